/** Runs a job for the newest of a series of values, one at a time, and again after a failure. */
import { type Clock, sleep } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";

const retryMs = { first: 500, max: 8_000 };

export class Latest<T> {
  #job: (value: T) => Promise<void>;
  #what: string;
  #clock: Clock;
  #log: Logger;
  #next: { value: T } | undefined;
  #busy = false;
  #closed = new AbortController();

  constructor(what: string, job: (value: T) => Promise<void>, clock: Clock, log: Logger) {
    this.#what = what;
    this.#job = job;
    this.#clock = clock;
    this.#log = log;
  }

  /** Values that are overtaken before their turn are skipped. */
  set(value: T): void {
    this.#next = { value };
    void this.#pump();
  }

  close(): void {
    this.#closed.abort(new Error("closed"));
    this.#next = undefined;
  }

  async #pump(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    let wait = retryMs.first;
    while (this.#next && !this.#closed.signal.aborted) {
      const current: { value: T } = this.#next;
      this.#next = undefined;
      try {
        await this.#job(current.value);
        wait = retryMs.first;
      } catch (error) {
        this.#log.warn(`${this.#what} failed; it is tried again`, { error });
        await sleep(this.#clock, wait, this.#closed.signal).catch(() => {});
        wait = Math.min(2 * wait, retryMs.max);
        this.#next ??= current;
      }
    }
    this.#busy = false;
  }
}
