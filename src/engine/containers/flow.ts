/**
 * Holds up a process whose output is taken more slowly than it comes: by the log, or by an attached client. Any holder
 * stops the reading; it goes on when none is left.
 */
import type { ProcessIo } from "../../runtime/types.ts";

export class Flow {
  readonly #io: ProcessIo;
  readonly #holders = new Set<object>();
  #open = false;

  constructor(io: ProcessIo) {
    this.#io = io;
  }

  hold(holder: object): void {
    if (this.#open || this.#holders.has(holder)) return;
    this.#holders.add(holder);
    if (this.#holders.size === 1) this.#io.pause?.();
  }

  release(holder: object): void {
    if (this.#holders.delete(holder) && this.#holders.size === 0) this.#io.resume?.();
  }

  /** The process has ended: what is left in the pipe is little, and is read at once. */
  open(): void {
    this.#open = true;
    if (this.#holders.size === 0) return;
    this.#holders.clear();
    this.#io.resume?.();
  }
}

/** One reader's backlog in bytes: holds above the high mark, releases below the low one. */
export class Backlog {
  readonly #flow: () => Flow | undefined;
  readonly #high: number;
  #bytes = 0;

  constructor(flow: () => Flow | undefined, high: number) {
    this.#flow = flow;
    this.#high = high;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > this.#high) this.#flow()?.hold(this);
  }

  done(bytes: number): void {
    this.#bytes -= bytes;
    if (this.#bytes <= this.#high / 4) this.#flow()?.release(this);
  }

  close(): void {
    this.#flow()?.release(this);
  }
}
