/** One timer for all that wait for a leader: the calls of a thousand nodes do, when one was lost. */
import { type Clock, sleep } from "../../../base/clock.ts";

const LOOK_MS = 50;

export class Looks {
  readonly #clock: Clock;
  readonly #closing: AbortSignal;
  #next: Promise<void> | undefined;

  constructor(clock: Clock, closing: AbortSignal) {
    this.#clock = clock;
    this.#closing = closing;
  }

  /** Resolves when it is time to look again; rejects when the manager stops. */
  async next(): Promise<void> {
    this.#closing.throwIfAborted();
    this.#next ??= sleep(this.#clock, LOOK_MS, this.#closing).finally(() => {
      this.#next = undefined;
    });
    await this.#next;
  }
}
