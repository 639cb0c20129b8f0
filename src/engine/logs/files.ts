/** The log files of one container: `<path>`, older ones `<path>.1`, `<path>.2`…, or `<path>.1.gz` (`shelf.ts`). */
import { closeSync, fstatSync, ftruncateSync, mkdirSync, openSync, readSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf } from "../../base/errors.ts";
import type { Shelf } from "./shelf.ts";

export interface Rotation {
  /** Bytes per file, undefined for no bound. */
  readonly maxSize: number | undefined;
  readonly maxFiles: number;
  /** Older files are compressed. */
  readonly compress: boolean;
}

/** Appends whole lines; rotates before a write when the current file is full. */
export class RotatingFile {
  readonly #path: string;
  readonly #rotation: Rotation;
  readonly #shelf: Shelf;
  #fd: number;
  #size: number;

  constructor(path: string, rotation: Rotation, shelf: Shelf) {
    this.#path = path;
    this.#rotation = rotation;
    this.#shelf = shelf;
    mkdirSync(dirname(path), { recursive: true });
    this.#fd = openSync(path, "a", 0o640);
    this.#size = fstatSync(this.#fd).size;
    this.#mendTail();
  }

  /** A line cut off by a crash is ended, so that the next one stays whole. */
  #mendTail(): void {
    if (this.#size === 0) return;
    const fd = openSync(this.#path, "r");
    try {
      const last = Buffer.alloc(1);
      readSync(fd, last, 0, 1, this.#size - 1);
      if (last[0] !== 0x0a) this.#size += writeSync(this.#fd, "\n");
    } finally {
      closeSync(fd);
    }
  }

  append(text: string): void {
    const { maxSize } = this.#rotation;
    if (maxSize !== undefined && this.#size >= maxSize) this.#rotate();
    const bytes = Buffer.from(text);
    for (let done = 0; done < bytes.length; ) done += writeSync(this.#fd, bytes, done);
    this.#size += bytes.length;
  }

  #rotate(): void {
    if (this.#rotation.maxFiles <= 1) {
      ftruncateSync(this.#fd, 0);
      this.#size = 0;
      return;
    }
    closeSync(this.#fd);
    this.#shelf.take();
    this.#fd = openSync(this.#path, "a", 0o640);
    this.#size = 0;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** A file of a log as it was when it was opened. */
export interface LogFile {
  readonly fd: number;
  readonly size: number;
  readonly compressed: boolean;
}

/** Open descriptors of a log, oldest first, with the sizes at this moment. Close them all. */
export function openSnapshot(path: string): LogFile[] {
  const out: LogFile[] = [];
  for (let n = 0; ; n++) {
    const file =
      n === 0 ? openFile(path, false) : (openFile(`${path}.${n}`, false) ?? openFile(`${path}.${n}.gz`, true));
    if (!file) return out;
    out.unshift(file);
  }
}

function openFile(path: string, compressed: boolean): LogFile | undefined {
  try {
    const fd = openSync(path, "r");
    return { fd, size: fstatSync(fd).size, compressed };
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

const BLOCK = 256 * 1024;

/** The bytes of an open file. It stays open, which a stream of Node's does not promise when something fails. */
export function* blocksOf(fd: number): Generator<Buffer> {
  for (let at = 0; ; ) {
    const block = Buffer.allocUnsafe(BLOCK);
    const got = readSync(fd, block, 0, BLOCK, at);
    if (got === 0) return;
    at += got;
    yield block.subarray(0, got);
  }
}
