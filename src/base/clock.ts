/**
 * Time comes from outside, so that a test can run an hour in a second.
 */
export interface Clock {
  /** Wall time, milliseconds since the epoch: for stamps and validities. It may be set, by an hour and in both directions. */
  now(): number;
  /** Milliseconds that only ever go by, from no particular moment: for how long something took or has to wait. */
  steady(): number;
  /** Calls `fn` once after `ms`; the returned function cancels. */
  after(ms: number, fn: () => void): () => void;
  /** Calls `fn` every `ms`; the returned function cancels. */
  every(ms: number, fn: () => void): () => void;
}

/** The machine's clock. A timer that is not cancelled keeps the process alive. */
export const systemClock: Clock = {
  now: () => Date.now(),
  steady: () => performance.timeOrigin + performance.now(),
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
  readonly fn: () => void;
  readonly period: number;
  cancelled: boolean;
}

/** A clock that moves only when told to; timers fire in order of time, then of creation. */
export class VirtualClock implements Clock {
  #now: number;
  /** By how much the wall clock was set. */
  #set = 0;
  #seq = 0;
  /** A heap: a simulated cluster has thousands of timers. What was cancelled is skipped when it comes up. */
  readonly #heap: Pending[] = [];

  constructor(start = 0) {
    this.#now = start;
  }

  now(): number {
    return this.#now + this.#set;
  }

  steady(): number {
    return this.#now;
  }

  /** Sets the wall clock by `ms`, as somebody who corrects it; no timer notices. */
  set(ms: number): void {
    this.#set += ms;
  }

  after(ms: number, fn: () => void): () => void {
    return this.#add(ms, fn, 0);
  }

  every(ms: number, fn: () => void): () => void {
    return this.#add(ms, fn, Math.max(1, ms));
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

  #add(ms: number, fn: () => void, period: number): () => void {
    const entry: Pending = { at: this.#now + Math.max(0, ms), seq: this.#seq++, fn, period, cancelled: false };
    this.#push(entry);
    return () => {
      entry.cancelled = true;
    };
  }

  /** Takes out the next timer that is due by `end`. */
  #next(end: number): Pending | undefined {
    for (let top = this.#heap[0]; top && (top.cancelled || top.at <= end); top = this.#heap[0]) {
      this.#pop();
      if (!top.cancelled) return top;
    }
    return undefined;
  }

  #fire(entry: Pending): void {
    this.#now = Math.max(this.#now, entry.at);
    if (entry.period > 0) {
      entry.at = this.#now + entry.period;
      entry.seq = this.#seq++;
      this.#push(entry);
    }
    entry.fn();
  }

  #push(entry: Pending): void {
    const heap = this.#heap;
    let at = heap.length;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (!above || !before(entry, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = entry;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (!last || heap.length === 0) return;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const [a, b] = [heap[left], heap[left + 1]];
      if (!a) break;
      const [child, index] = b && before(b, a) ? [b, left + 1] : [a, left];
      if (!before(child, last)) break;
      heap[at] = child;
      at = index;
    }
    heap[at] = last;
  }
}

function before(a: Pending, b: Pending): boolean {
  return a.at < b.at || (a.at === b.at && a.seq < b.seq);
}

function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
