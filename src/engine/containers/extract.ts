/**
 * `docker cp` into a container: an archive unpacked below a directory of its root file system.
 *
 * Not by the system's tar, which asks the host where a link of the container leads: an entry "link/x", where the container
 * has link → /etc, would be written into the host's /etc. Here each parent is opened component by component inside the
 * root (`openInRoot`), and each last step is a call that follows no link, so that a process of the container that swaps a
 * directory for a link meanwhile gains nothing, and the container need not be frozen.
 */
import { execFile } from "node:child_process";
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  futimesSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmdirSync,
  type Stats,
  symlinkSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { posix } from "node:path";
import type { Readable } from "node:stream";
import { promisify } from "node:util";
import { errnoOf, invalid, messageOf, SkeinError } from "../../base/errors.ts";
import { openTar, type TarEntry, type TarHeader } from "../../runtime/tar.ts";
import { type OpenDir, openInRoot } from "./rootpath.ts";

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;
const run = promisify(execFile);

export interface ExtractOptions {
  /** Everything gets this owner; absent, each entry its own. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Refuse to put a file in the place of a directory, or a directory in that of a file. */
  readonly noOverwriteDirNonDir?: boolean;
  /** The directory in messages. */
  readonly shown?: string;
}

/** Unpacks below `dir`, a path inside `root`. What was written before an error stays, as with Docker. */
export async function extract(
  root: string,
  dir: string,
  archive: Readable,
  options: ExtractOptions = {},
): Promise<void> {
  // Fails before anything is read where there is no such directory.
  openInRoot(root, dir, options.shown === undefined ? {} : { shown: options.shown })[Symbol.dispose]();
  const extraction = new Extraction(root, dir, options);
  try {
    for await (const entry of openTar(archive)) await extraction.add(entry);
    extraction.finish();
  } finally {
    extraction[Symbol.dispose]();
  }
}

class Extraction implements Disposable {
  readonly #root: string;
  readonly #dir: string;
  readonly #options: ExtractOptions;
  /** Times of directories are set when nothing is written into them any more. */
  readonly #dirs: { path: string; header: TarHeader }[] = [];
  /** The parent that was opened last: entries come directory by directory. */
  #parent: { path: string; open: OpenDir } | undefined;

  constructor(root: string, dir: string, options: ExtractOptions) {
    this.#root = root;
    this.#dir = dir;
    this.#options = options;
  }

  async add({ header, stream }: TarEntry): Promise<void> {
    const path = this.#inside(header.name, `invalid tar header: ${JSON.stringify(header.name)} is outside`);
    try {
      if (path === ".") return;
      const entry = this.#parentOf(path).entry(posix.basename(path));
      this.#makeRoom(entry, path, header);
      await this.#make(entry, path, header, stream);
    } catch (error) {
      const code = errnoOf(error);
      if (error instanceof SkeinError || code === undefined) throw error;
      // Node names the descriptor that we went by; the user knows the path.
      const why = messageOf(error).replace(/^\w+: ([^,]*),[\s\S]*$/, "$1");
      throw new SkeinError("internal", `${posix.join(this.#dir, path)}: ${why}`, { cause: error });
    }
  }

  finish(): void {
    for (const { path, header } of this.#dirs.reverse()) {
      const at = timeOf(header);
      lutimesSync(this.#parentOf(path).entry(posix.basename(path)), at, at);
    }
  }

  /** A name of the archive, relative to the directory that it is unpacked in. */
  #inside(name: string, words: string): string {
    if (name.includes("\ufffd")) throw invalid(`invalid tar header: a name is not UTF-8: ${JSON.stringify(name)}`);
    const clean = posix.normalize(name);
    if (clean === ".." || clean.startsWith("../")) throw invalid(`${words} of ${JSON.stringify(this.#dir)}`);
    return clean.replace(/^\/+/, "").replace(/\/$/, "") || ".";
  }

  #parentOf(path: string): OpenDir {
    const parent = posix.dirname(path);
    if (this.#parent?.path !== parent) {
      // The archive need not name the directories of its files.
      const open = openInRoot(this.#root, posix.join(this.#dir, parent), { make: true });
      this[Symbol.dispose]();
      this.#parent = { path: parent, open };
    }
    return this.#parent.open;
  }

  /** What lies at the place of an entry goes, unless both are directories. */
  #makeRoom(entry: string, path: string, { type }: TarHeader): void {
    const there = statOf(entry);
    if (!there) return;
    const directory = type === "directory";
    if (there.isDirectory() && directory) return;
    const { noOverwriteDirNonDir } = this.#options;
    const shown = JSON.stringify(posix.join(this.#dir, path));
    const dest = JSON.stringify(this.#dir);
    if (noOverwriteDirNonDir && there.isDirectory()) {
      throw invalid(`cannot overwrite directory ${shown} with non-directory ${dest}`);
    }
    if (noOverwriteDirNonDir && directory) {
      throw invalid(`cannot overwrite non-directory ${shown} with directory ${dest}`);
    }
    removeTree(entry, there);
  }

  async #make(entry: string, path: string, header: TarHeader, stream: TarEntry["stream"]): Promise<void> {
    const { uid, gid } = this.#options.owner ?? ownerOf(header);
    const mode = (header.mode ?? 0) & 0o7777;
    const at = timeOf(header);
    if (header.pax["GNU.sparse.major"] !== undefined || header.pax["GNU.sparse.map"] !== undefined) {
      throw invalid(`${header.name}: sparse files are not supported in archives`);
    }
    switch (header.type) {
      case "directory": {
        if (!statOf(entry)) mkdirSync(entry, 0o700);
        const fd = openSync(entry, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        try {
          fchownSync(fd, uid, gid);
          fchmodSync(fd, mode);
        } finally {
          closeSync(fd);
        }
        this.#dirs.push({ path, header });
        return;
      }
      case "file":
      case "contiguous-file": {
        const fd = openSync(entry, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600);
        try {
          for await (const chunk of stream)
            for (let done = 0; done < chunk.length; ) done += writeSync(fd, chunk, done);
          // In this order: a change of the owner clears set-uid bits.
          fchownSync(fd, uid, gid);
          fchmodSync(fd, mode);
          futimesSync(fd, at, at);
        } finally {
          closeSync(fd);
        }
        return;
      }
      case "symlink":
        symlinkSync(header.linkname ?? "", entry);
        break;
      case "link": {
        const words = `invalid hardlink ${JSON.stringify(header.name)} -> ${JSON.stringify(header.linkname)}: outside`;
        const target = this.#inside(header.linkname ?? "", words);
        using from = openInRoot(this.#root, posix.join(this.#dir, posix.dirname(target)));
        linkSync(from.entry(posix.basename(target)), entry);
        return;
      }
      case "character-device":
      case "block-device":
      case "fifo":
        await this.#node(path, header);
        break;
      default:
        throw invalid(`${header.name}: unhandled tar header type`);
    }
    lchownSync(entry, uid, gid);
    lutimesSync(entry, at, at);
  }

  async #node(path: string, { type, mode = 0, devmajor, devminor }: TarHeader): Promise<void> {
    const { fd } = this.#parentOf(path);
    const kind = type === "fifo" ? "p" : type === "block-device" ? "b" : "c";
    const numbers = type === "fifo" ? [] : [String(devmajor ?? 0), String(devminor ?? 0)];
    // Node has no mknod; the program reaches the directory through our own descriptor of it.
    const place = `/proc/${process.pid}/fd/${fd}/${posix.basename(path)}`;
    await run("mknod", ["-m", (mode & 0o7777).toString(8), "--", place, kind, ...numbers]);
  }

  [Symbol.dispose](): void {
    this.#parent?.open[Symbol.dispose]();
    this.#parent = undefined;
  }
}

/** Removes an entry and all below it, by descriptors, following no link. Names are bytes: they need not be UTF-8. */
function removeTree(path: string | Buffer, stat: Stats): void {
  if (!stat.isDirectory()) {
    unlinkSync(path);
    return;
  }
  const fd = openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    const here = `/proc/self/fd/${fd}`;
    for (const name of readdirSync(here, { encoding: "buffer" })) {
      const below = Buffer.concat([Buffer.from(`${here}/`), name]);
      removeTree(below, lstatSync(below));
    }
  } finally {
    closeSync(fd);
  }
  rmdirSync(path);
}

function statOf(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

function ownerOf({ uid, gid, pax }: TarHeader): { uid: number; gid: number } {
  return { uid: Number(pax.uid ?? uid ?? 0), gid: Number(pax.gid ?? gid ?? 0) };
}

/** Seconds since the epoch, which is also the time of what is older. */
function timeOf({ mtime, pax }: TarHeader): number {
  const seconds = pax.mtime === undefined ? (mtime?.getTime() ?? 0) / 1000 : Number(pax.mtime);
  return Number.isFinite(seconds) && seconds > 0 ? seconds : 0;
}
