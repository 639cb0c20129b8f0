/**
 * Opens a directory inside a container's root file system as a descriptor, one component after another, never following
 * a link but by its text: a process in the container that swaps a directory for a link meanwhile cannot lead us out.
 */
import { closeSync, constants, mkdirSync, openSync, readlinkSync } from "node:fs";
import { posix } from "node:path";
import { errnoOf, invalid, notFound } from "../../base/errors.ts";

const MAX_LINKS = 40;
/** O_PATH, which Node does not name: neither read nor written. */
const POINT = 0o10000000 | constants.O_NOFOLLOW;
const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

/** A directory that stays what it is, however its path changes. */
export interface OpenDir extends Disposable {
  readonly fd: number;
  /** Path of an entry of this directory, for calls that do not follow a last link. */
  entry(name: string): string;
  /** The same for a name that is bytes. */
  entryOf(name: Buffer): Buffer;
}

/** The link's text, undefined for what is no link. */
function linkText(path: Buffer, make: boolean): string | undefined {
  try {
    return readlinkSync(path, { encoding: "latin1" });
  } catch (error) {
    if (errnoOf(error) === "EINVAL") return undefined;
    if (errnoOf(error) !== "ENOENT" || !make) throw error;
    mkdirSync(path, 0o755);
    return undefined;
  }
}

interface OpenOptions {
  /** The path in messages. */
  readonly shown?: string;
  /** Directories that are not there are made, but none that only a link leads to. */
  readonly make?: boolean;
  /** The last part may be something else than a directory: opened only to be pointed at. */
  readonly leaf?: boolean;
}

/** `path` may be bytes: names of files need not be UTF-8. */
export function openInRoot(root: string, path: string | Buffer, options: OpenOptions = {}): OpenDir {
  const { shown = path.toString(), make = false, leaf = false } = options;
  // The way back for "..": the root at the bottom, never left.
  const stack = [openSync(root, constants.O_RDONLY | constants.O_DIRECTORY)];
  const top = () => stack.at(-1) ?? -1;
  // One character per byte from here on.
  let rest = Buffer.from(path).toString("latin1").split("/").filter(Boolean);
  let links = 0;
  // How many of the next parts come from the text of a link.
  let linked = 0;
  try {
    while (rest.length > 0) {
      const [part = "", ...after] = rest;
      rest = after;
      const own = linked === 0;
      if (!own) linked--;
      if (part === ".") continue;
      if (part === "..") {
        if (stack.length > 1) closeSync(stack.pop() ?? -1);
        continue;
      }
      const here = Buffer.from(`/proc/self/fd/${top()}/${part}`, "latin1");
      const target = linkText(here, make && own);
      if (target === undefined) {
        stack.push(openSync(here, leaf && rest.length === 0 ? POINT : DIRECTORY));
        continue;
      }
      if (++links > MAX_LINKS) throw invalid(`too many levels of symbolic links in ${shown}`);
      if (posix.isAbsolute(target)) while (stack.length > 1) closeSync(stack.pop() ?? -1);
      const parts = target.split("/").filter(Boolean);
      linked += parts.length;
      rest = [...parts, ...rest];
    }
  } catch (error) {
    for (const fd of stack) closeSync(fd);
    if (errnoOf(error) === "ENOENT") throw notFound(`Could not find the file ${shown}`);
    if (errnoOf(error) === "ENAMETOOLONG") throw invalid(`file name too long: ${shown}`);
    if (errnoOf(error) === "ENOTDIR" || errnoOf(error) === "ELOOP") throw invalid(`not a directory: ${shown}`);
    throw error;
  }
  const fd = stack.pop() ?? -1;
  for (const other of stack) closeSync(other);
  return {
    fd,
    entry: (name) => `/proc/self/fd/${fd}/${name}`,
    entryOf: (name) => Buffer.concat([Buffer.from(`/proc/self/fd/${fd}/`), name]),
    [Symbol.dispose]: () => closeSync(fd),
  };
}
