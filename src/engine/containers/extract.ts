/**
 * `docker cp` into a container: an archive unpacked below a directory of its root file system.
 *
 * Not by the system's tar, which asks the host where a link of the container leads: an entry "link/x", where the container
 * has link → /etc, would be written into the host's /etc. Here each parent is opened component by component inside the
 * root (`openInRoot`), and each last step is a call that follows no link, so that a process of the container that swaps a
 * directory for a link meanwhile gains nothing, and the container need not be frozen.
 *
 * Names are bytes, which need not be UTF-8: inside here a path is a string with one character per byte (`Raw`).
 */
import { execFile } from "node:child_process";
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  futimesSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
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
import { hexId } from "../../base/id.ts";
import { setExtendedAttribute } from "../../runtime/libc.ts";
import { openTar, type TarEntry, type TarHeader } from "../../runtime/tar/read.ts";
import { type OpenDir, openInRoot } from "./rootpath.ts";

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;
const run = promisify(execFile);

type Raw = string;
const raw = (name: Buffer): Raw => name.toString("latin1");
const bytes = (name: Raw): Buffer => Buffer.from(name, "latin1");
/** For people. */
const shownAs = (name: Raw): string => JSON.stringify(bytes(name).toString());

/** What is carried: the kernel's own and the file system's (trusted, overlay's among them) are no archive's to say. */
const isCarried = (attribute: string): boolean => attribute === "security.capability" || attribute.startsWith("user.");

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
  readonly #dir: Raw;
  readonly #options: ExtractOptions;
  /** Times of directories are set when nothing is written into them any more. */
  readonly #dirs: { path: Raw; header: TarHeader }[] = [];
  /** The parent that was opened last: entries come directory by directory. */
  #parent: { path: Raw; open: OpenDir } | undefined;

  constructor(root: string, dir: string, options: ExtractOptions) {
    this.#root = root;
    this.#dir = raw(Buffer.from(dir));
    this.#options = options;
  }

  async add({ header, stream }: TarEntry): Promise<void> {
    const path = this.#inside(header.name, `invalid tar header: ${shownAs(raw(header.name))} is outside`);
    try {
      if (path === ".") return;
      const entry = this.#entry(path);
      this.#makeRoom(entry, path, header);
      await this.#make(entry, path, header, stream);
    } catch (error) {
      const code = errnoOf(error);
      if (error instanceof SkeinError || code === undefined) throw error;
      // Node names the descriptor that we went by; the user knows the path.
      const why = messageOf(error).replace(/^\w+: ([^,]*),[\s\S]*$/, "$1");
      throw new SkeinError("internal", `${bytes(posix.join(this.#dir, path)).toString()}: ${why}`, { cause: error });
    }
  }

  finish(): void {
    for (const { path, header } of this.#dirs.reverse()) {
      const at = timeOf(header);
      lutimesSync(this.#entry(path), at, at);
    }
  }

  #entry(path: Raw): Buffer {
    return this.#parentOf(path).entryOf(bytes(posix.basename(path)));
  }

  /** A name of the archive, relative to the directory that it is unpacked in. */
  #inside(name: Buffer, words: string): Raw {
    const clean = posix.normalize(raw(name));
    if (clean === ".." || clean.startsWith("../")) throw invalid(`${words} of ${shownAs(this.#dir)}`);
    return clean.replace(/^\/+/, "").replace(/\/$/, "") || ".";
  }

  #parentOf(path: Raw): OpenDir {
    const parent = posix.dirname(path);
    if (this.#parent?.path !== parent) {
      // The archive need not name the directories of its files.
      const open = openInRoot(this.#root, bytes(posix.join(this.#dir, parent)), { make: true });
      this[Symbol.dispose]();
      this.#parent = { path: parent, open };
    }
    return this.#parent.open;
  }

  /** What lies at the place of an entry goes, unless both are directories. */
  #makeRoom(entry: Buffer, path: Raw, { type }: TarHeader): void {
    const there = statOf(entry);
    if (!there) return;
    const directory = type === "directory";
    if (there.isDirectory() && directory) return;
    const { noOverwriteDirNonDir } = this.#options;
    const shown = shownAs(posix.join(this.#dir, path));
    const dest = shownAs(this.#dir);
    if (noOverwriteDirNonDir && there.isDirectory()) {
      throw invalid(`cannot overwrite directory ${shown} with non-directory ${dest}`);
    }
    if (noOverwriteDirNonDir && directory) {
      throw invalid(`cannot overwrite non-directory ${shown} with directory ${dest}`);
    }
    removeTree(entry, there);
  }

  async #make(entry: Buffer, path: Raw, header: TarHeader, stream: TarEntry["stream"]): Promise<void> {
    const { uid, gid } = this.#options.owner ?? header;
    const mode = header.mode & 0o7777;
    const at = timeOf(header);
    switch (header.type) {
      case "directory": {
        if (!statOf(entry)) mkdirSync(entry, 0o700);
        const fd = openSync(entry, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        try {
          fchownSync(fd, uid, gid);
          fchmodSync(fd, mode);
          setAttributes(fd, header);
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
          await writeFile(fd, header, stream);
          // In this order: a change of the owner clears set-uid bits and capabilities.
          fchownSync(fd, uid, gid);
          fchmodSync(fd, mode);
          setAttributes(fd, header);
          futimesSync(fd, at, at);
        } finally {
          closeSync(fd);
        }
        return;
      }
      case "symlink":
        symlinkSync(header.linkname, entry);
        break;
      case "link": {
        const names = `${shownAs(raw(header.name))} -> ${shownAs(raw(header.linkname))}`;
        const target = this.#inside(header.linkname, `invalid hardlink ${names}: outside`);
        using from = openInRoot(this.#root, bytes(posix.join(this.#dir, posix.dirname(target))));
        linkSync(from.entryOf(bytes(posix.basename(target))), entry);
        return;
      }
      case "character-device":
      case "block-device":
      case "fifo":
        await this.#node(entry, path, header);
        break;
      default:
        throw invalid(`${header.name.toString()}: unhandled tar header type`);
    }
    lchownSync(entry, uid, gid);
    lutimesSync(entry, at, at);
  }

  async #node(entry: Buffer, path: Raw, { type, mode, devmajor, devminor }: TarHeader): Promise<void> {
    const { fd, entry: pathOf } = this.#parentOf(path);
    const kind = type === "fifo" ? "p" : type === "block-device" ? "b" : "c";
    const numbers = type === "fifo" ? [] : [String(devmajor), String(devminor)];
    // Node has no mknod; the program reaches the directory through our own descriptor of it, and cannot be told of bytes.
    const name = `.skein-${hexId().slice(0, 16)}`;
    const place = `/proc/${process.pid}/fd/${fd}/${name}`;
    await run("mknod", ["-m", (mode & 0o7777).toString(8), "--", place, kind, ...numbers]);
    renameSync(pathOf(name), entry);
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

function statOf(path: Buffer): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

/** Of a file with holes the pieces only. */
async function writeFile(fd: number, { pieces, size }: TarHeader, stream: TarEntry["stream"]): Promise<void> {
  const rest = pieces && [...pieces];
  let piece = rest?.shift();
  let written = 0;
  for await (const chunk of stream) {
    for (let done = 0; done < chunk.length; ) {
      const most = piece ? Math.min(piece.length - written, chunk.length - done) : chunk.length - done;
      const count = writeSync(fd, chunk, done, most, piece ? piece.offset + written : null);
      done += count;
      written += count;
      if (piece && written === piece.length) {
        piece = rest?.shift();
        written = 0;
      }
    }
  }
  if (pieces) ftruncateSync(fd, size);
}

function setAttributes(fd: number, { xattrs }: TarHeader): void {
  for (const [name, value] of xattrs) {
    try {
      if (isCarried(name)) setExtendedAttribute(fd, name, value);
    } catch (error) {
      // As Docker: not every file system has them.
      if (errnoOf(error) !== "ENOTSUP" && errnoOf(error) !== "EOPNOTSUPP") throw error;
    }
  }
}

/** Seconds since the epoch, which is also the time of what is older. */
const timeOf = ({ mtime }: TarHeader): number => Math.max(0, mtime);
