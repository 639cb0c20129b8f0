/** The log files of one container: `<path>`, older ones `<path>.1`, `<path>.2`… */
import { closeSync, fstatSync, ftruncateSync, mkdirSync, openSync, readSync, renameSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { errnoOf } from "../../base/errors.ts";

export interface Rotation {
  /** Bytes per file, undefined for no bound. */
  readonly maxSize: number | undefined;
  readonly maxFiles: number;
}

/** Appends whole lines; rotates before a write when the current file is full. */
export class RotatingFile {
  readonly #path: string;
  readonly #rotation: Rotation;
  #fd: number;
  #size: number;

  constructor(path: string, rotation: Rotation) {
    this.#path = path;
    this.#rotation = rotation;
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
    for (let n = this.#rotation.maxFiles - 1; n >= 1; n--) {
      renameIfThere(n === 1 ? this.#path : `${this.#path}.${n - 1}`, `${this.#path}.${n}`);
    }
    this.#fd = openSync(this.#path, "a", 0o640);
    this.#size = 0;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

function renameIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

/** Open descriptors of a log, oldest first, with the sizes at this moment. Close them all. */
export function openSnapshot(path: string): { fd: number; size: number }[] {
  const out: { fd: number; size: number }[] = [];
  for (let n = 0; ; n++) {
    try {
      const fd = openSync(n === 0 ? path : `${path}.${n}`, "r");
      out.unshift({ fd, size: fstatSync(fd).size });
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return out;
      throw error;
    }
  }
}
