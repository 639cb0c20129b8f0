/** Small tools for asynchronous code. */

/** A promise with its handles outside. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(reason: unknown): void;
}

export function deferred<T>(): Deferred<T> {
  return Promise.withResolvers<T>();
}

/** Runs jobs one after another; a failed job does not stop the next. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve();

  run<T>(job: () => Promise<T> | T): Promise<T> {
    const result = this.#tail.then(job);
    this.#tail = result.catch(() => {});
    return result;
  }
}

/** One mutex per key, forgotten when idle. */
export class KeyedMutex {
  #locks = new Map<string, { mutex: Mutex; users: number }>();

  async run<T>(key: string, job: () => Promise<T> | T): Promise<T> {
    const entry = this.#locks.get(key) ?? { mutex: new Mutex(), users: 0 };
    this.#locks.set(key, entry);
    entry.users++;
    try {
      return await entry.mutex.run(job);
    } finally {
      if (--entry.users === 0) this.#locks.delete(key);
    }
  }
}

/** Listeners of one kind of event. A listener that throws does not hurt the others. */
export class Emitter<T> {
  #listeners = new Set<(event: T) => void>();
  #onError: (error: unknown) => void;

  constructor(onError: (error: unknown) => void = () => {}) {
    this.#onError = onError;
  }

  /** Adds a listener; the returned function removes it. */
  on(listener: (event: T) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  emit(event: T): void {
    for (const listener of [...this.#listeners]) {
      try {
        listener(event);
      } catch (error) {
        this.#onError(error);
      }
    }
  }
}

/**
 * A queue read with `for await`. Ends after `end()` when drained, throws after `fail()`.
 * `limit` bounds what a slow reader may leave unread, in items or what `weigh` says they are; past it the queue fails.
 */
export class AsyncQueue<T> implements AsyncIterable<T> {
  #items: T[] = [];
  #wake: Deferred<void> | undefined;
  #ended = false;
  #error: unknown;
  #limit: number;
  #weigh: (item: T) => number;
  #weight = 0;

  constructor(limit = Number.POSITIVE_INFINITY, weigh: (item: T) => number = () => 1) {
    this.#limit = limit;
    this.#weigh = weigh;
  }

  push(item: T): void {
    if (this.#ended) return;
    this.#weight += this.#weigh(item);
    if (this.#weight > this.#limit) {
      this.fail(new Error("queue overflow: its reader is too slow"));
      return;
    }
    this.#items.push(item);
    this.#wake?.resolve();
  }

  end(): void {
    this.#ended = true;
    this.#wake?.resolve();
  }

  fail(error: unknown): void {
    this.#error ??= error;
    this.end();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<T> {
    for (;;) {
      const item = this.#items.shift();
      if (item !== undefined) {
        this.#weight -= this.#weigh(item);
        yield item;
      } else if (this.#ended) {
        if (this.#error !== undefined) throw this.#error;
        return;
      } else {
        this.#wake = deferred();
        await this.#wake.promise;
        this.#wake = undefined;
      }
    }
  }
}
