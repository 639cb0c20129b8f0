import type { Clock } from "../../base/clock.ts";

/** Jobs that run once, after a while, by key: asking again meanwhile changes nothing. */
export class Later {
  readonly #clock: Clock;
  readonly #waiting = new Map<string, () => void>();
  #closed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  run(key: string, ms: number, job: () => void): void {
    if (this.#waiting.has(key) || this.#closed) return;
    const cancel = this.#clock.after(ms, () => {
      this.#waiting.delete(key);
      job();
    });
    this.#waiting.set(key, cancel);
  }

  close(): void {
    this.#closed = true;
    for (const cancel of this.#waiting.values()) cancel();
    this.#waiting.clear();
  }
}
