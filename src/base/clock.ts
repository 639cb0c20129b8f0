/**
 * Time comes from outside, so that a test can run an hour in a second.
 */
export interface Clock {
  /** Wall time, milliseconds since the epoch. */
  now(): number;
  /** Calls `fn` once after `ms`; the returned function cancels. */
  after(ms: number, fn: () => void): () => void;
  /** Calls `fn` every `ms`; the returned function cancels. */
  every(ms: number, fn: () => void): () => void;
}

/** The machine's clock. Its timers keep the process alive only while something else does. */
export const systemClock: Clock = {
  now: () => Date.now(),
  after(ms, fn) {
    const timer = setTimeout(fn, ms);
    return () => clearTimeout(timer);
  },
  every(ms, fn) {
    const timer = setInterval(fn, ms);
    return () => clearInterval(timer);
  },
};

/** Waits `ms`; rejects with the signal's reason when aborted first. */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const onAbort = () => {
      cancel();
      reject(signal?.reason);
    };
    const cancel = clock.after(ms, () => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    });
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

interface Pending {
  at: number;
  seq: number;
  fn: () => void;
  period: number;
}

/** A clock that moves only when told to; timers fire in order of time, then of creation. */
export class VirtualClock implements Clock {
  #now: number;
  #seq = 0;
  #pending = new Set<Pending>();

  constructor(start = 0) {
    this.#now = start;
  }

  now(): number {
    return this.#now;
  }

  after(ms: number, fn: () => void): () => void {
    return this.#add(ms, fn, 0);
  }

  every(ms: number, fn: () => void): () => void {
    return this.#add(ms, fn, Math.max(1, ms));
  }

  #add(ms: number, fn: () => void, period: number): () => void {
    const entry: Pending = { at: this.#now + Math.max(0, ms), seq: this.#seq++, fn, period };
    this.#pending.add(entry);
    return () => this.#pending.delete(entry);
  }

  /** Moves time forward by `ms`, firing what falls due. Promise callbacks run only with `advanceAsync`. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (let next = this.#next(end); next; next = this.#next(end)) this.#fire(next);
    this.#now = end;
  }

  /** As `advance`, and lets promise callbacks run after each timer. */
  async advanceAsync(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settle();
    for (let next = this.#next(end); next; next = this.#next(end)) {
      this.#fire(next);
      await settle();
    }
    this.#now = end;
  }

  #next(end: number): Pending | undefined {
    let best: Pending | undefined;
    for (const entry of this.#pending) {
      if (entry.at > end) continue;
      if (!best || entry.at < best.at || (entry.at === best.at && entry.seq < best.seq)) best = entry;
    }
    return best;
  }

  #fire(entry: Pending): void {
    this.#now = Math.max(this.#now, entry.at);
    if (entry.period > 0) {
      entry.at = this.#now + entry.period;
      entry.seq = this.#seq++;
    } else {
      this.#pending.delete(entry);
    }
    entry.fn();
  }
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
