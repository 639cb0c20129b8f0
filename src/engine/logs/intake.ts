/**
 * Output on its way to the log. Cutting and encoding a flood of short lines costs more than reading it: the work is done
 * in slices between which the event loop turns, and the process is held up when too much waits.
 */
import type { OutputChunk } from "../../runtime/types.ts";
import { Backlog, type Flow } from "../containers/flow.ts";
import type { ContainerLog } from "./log.ts";

/** Milliseconds of work per turn, and bytes per piece: the clock is looked at after each. */
const SLICE_MS = 4;
const PIECE = 4 * 1024;
/** Bytes that may wait before the process is held up. */
const HIGH = 512 * 1024;

export class LogIntake {
  readonly #log: ContainerLog;
  readonly #backlog: Backlog;
  readonly #queue: OutputChunk[] = [];
  #waiting = 0;
  #scheduled = false;

  constructor(log: ContainerLog, flow: Flow) {
    this.#log = log;
    this.#backlog = new Backlog(() => flow, HIGH);
  }

  take(chunk: OutputChunk): void {
    if (!this.#log.kept) return;
    const { buffer } = this.#log;
    if (buffer !== undefined && this.#waiting + chunk.data.length > buffer) return;
    this.#waiting += chunk.data.length;
    for (let at = 0; at < chunk.data.length; at += PIECE) {
      this.#queue.push({ ...chunk, data: chunk.data.subarray(at, at + PIECE) });
    }
    if (buffer === undefined) this.#backlog.add(chunk.data.length);
    if (!this.#scheduled) this.#slice();
  }

  #slice(): void {
    this.#scheduled = false;
    const until = performance.now() + SLICE_MS;
    while (this.#queue.length > 0) {
      this.#one();
      if (performance.now() >= until) break;
    }
    if (this.#queue.length > 0) {
      this.#scheduled = true;
      setImmediate(() => this.#slice());
    }
  }

  #one(): void {
    const piece = this.#queue.shift();
    if (!piece) return;
    this.#log.write(piece);
    this.#waiting -= piece.data.length;
    if (this.#log.buffer === undefined) this.#backlog.done(piece.data.length);
  }

  /** The process is done: all that waits is written now. */
  finish(): void {
    while (this.#queue.length > 0) this.#one();
  }
}
