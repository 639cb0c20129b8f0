/**
 * The shape of every loop of the manager that keeps something true: events only mark, a tick does the work, one tick at
 * a time. A tick that fails is logged and comes again with a growing pause.
 */
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";

export interface LoopOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** Milliseconds from the first mark to the tick: what comes in between is done together. */
  readonly debounceMs: number;
  readonly work: () => Promise<void> | void;
}

const MAX_PAUSE_MS = 5_000;
const MAX_REST_MS = 500;

export class Loop {
  readonly #options: LoopOptions;
  #timer: (() => void) | undefined;
  #dueAt = 0;
  #busy = false;
  #again = false;
  #closed = false;
  #pause = 100;
  /** Until then it rests from the last tick. */
  #restUntil = 0;

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  /** There is work: tick after the debounce. A loop whose ticks take long rests as long, so that others have their turn. */
  mark(): void {
    this.markIn(Math.max(this.#options.debounceMs, this.#restUntil - this.#options.clock.steady()));
  }

  /** There will be work in `ms`: an earlier tick stays as it is. */
  markIn(ms: number): void {
    if (this.#closed) return;
    const dueAt = this.#options.clock.steady() + Math.max(0, ms);
    if (this.#timer) {
      if (this.#dueAt <= dueAt) return;
      this.#timer();
    }
    this.#dueAt = dueAt;
    this.#timer = this.#options.clock.after(Math.max(0, ms), () => {
      this.#timer = undefined;
      void this.#tick();
    });
  }

  close(): void {
    this.#closed = true;
    this.#timer?.();
    this.#timer = undefined;
  }

  async #tick(): Promise<void> {
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    const started = this.#options.clock.steady();
    try {
      await this.#options.work();
      this.#pause = 100;
    } catch (error) {
      if (!this.#closed) {
        this.#options.log.warn(`${this.#options.name} failed, trying again`, { error });
        this.markIn(this.#pause);
        this.#pause = Math.min(this.#pause * 2, MAX_PAUSE_MS);
      }
    } finally {
      this.#busy = false;
      const now = this.#options.clock.steady();
      this.#restUntil = now + Math.min(now - started, MAX_REST_MS);
    }
    if (this.#again) {
      this.#again = false;
      this.mark();
    }
  }
}
