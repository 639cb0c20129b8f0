/**
 * The older files of a log: `<path>.1` the newest of them, or `<path>.1.gz` where they are compressed. A file is compressed
 * beside the container's work, one at a time; it may have grown older by the time that is done. Its place is taken in one
 * step, so that a reader finds it either way, and one way only.
 */
import { closeSync, createWriteStream, openSync, renameSync, rmSync, unlinkSync } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { errnoOf } from "../../base/errors.ts";
import { blocksOf } from "./files.ts";

export interface ShelfOptions {
  /** How many files the log has, the one that is written included. */
  readonly maxFiles: number;
  readonly compress: boolean;
}

/** A file to be compressed, by its number at present. */
interface Job {
  age: number;
}

export class Shelf {
  readonly #path: string;
  readonly #options: ShelfOptions;
  readonly #jobs: Job[] = [];
  #working: Promise<void> | undefined;

  constructor(path: string, options: ShelfOptions) {
    this.#path = path;
    this.#options = options;
    // What a daemon that was killed had begun.
    if (options.compress) rmSync(`${path}.gz.tmp`, { force: true });
  }

  /** Puts the file that was written to among the older ones. The oldest goes. */
  take(): void {
    const { maxFiles, compress } = this.#options;
    rmSync(`${this.#path}.${maxFiles - 1}`, { force: true });
    rmSync(`${this.#path}.${maxFiles - 1}.gz`, { force: true });
    for (let n = maxFiles - 2; n >= 1; n--) {
      for (const end of ["", ".gz"]) moveIfThere(`${this.#path}.${n}${end}`, `${this.#path}.${n + 1}${end}`);
    }
    moveIfThere(this.#path, `${this.#path}.1`);
    if (!compress) return;
    for (const job of this.#jobs) job.age++;
    this.#jobs.push({ age: 1 });
    this.#working ??= this.#work();
  }

  /** Resolves when all that was taken is compressed. */
  async settled(): Promise<void> {
    await this.#working;
  }

  async #work(): Promise<void> {
    for (let job = this.#jobs[0]; job !== undefined; job = this.#jobs[0]) {
      // One that cannot be compressed stays as it is, and readable.
      if (job.age < this.#options.maxFiles) await this.#compress(job).catch(() => {});
      this.#jobs.shift();
    }
    this.#working = undefined;
  }

  async #compress(job: Job): Promise<void> {
    const fresh = `${this.#path}.gz.tmp`;
    const fd = openSync(`${this.#path}.${job.age}`, "r");
    try {
      await pipeline(Readable.from(blocksOf(fd)), createGzip(), createWriteStream(fresh, { mode: 0o640 }));
      if (job.age >= this.#options.maxFiles) return;
      const place = `${this.#path}.${job.age}`;
      renameSync(fresh, `${place}.gz`);
      unlinkSync(place);
    } finally {
      closeSync(fd);
      rmSync(fresh, { force: true });
    }
  }
}

function moveIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}
