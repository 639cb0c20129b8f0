/** What the open streams to nodes wait for: a change that concerns their node, and what has changed meanwhile. */

/** Of one stream. */
export class Feed implements Disposable {
  readonly tasks = new Set<string>();
  readonly dependencies = new Map<string, ["secret" | "config", string]>();
  readonly #close: () => void;
  #wake: (() => void) | undefined;
  #marked = false;

  constructor(close: () => void) {
    this.#close = close;
  }

  /** Wakes the stream. */
  mark(): void {
    this.#marked = true;
    this.#wake?.();
  }

  /** Resolves true after a mark, false when the signal ends the wait. */
  next(signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const finish = () => {
        if (!this.#marked && !signal.aborted) return;
        signal.removeEventListener("abort", finish);
        this.#wake = undefined;
        this.#marked = false;
        resolve(!signal.aborted);
      };
      this.#wake = finish;
      signal.addEventListener("abort", finish, { once: true });
      finish();
    });
  }

  [Symbol.dispose](): void {
    this.#close();
  }
}

/** Of all streams of a kind, by node: one that comes back may have two for a moment. */
export class Feeds {
  readonly #byNode = new Map<string, Set<Feed>>();

  /** For a stream that begins; disposed of when it ends. */
  open(nodeId: string): Feed {
    const set = this.#byNode.get(nodeId) ?? new Set();
    this.#byNode.set(nodeId, set);
    const feed = new Feed(() => {
      set.delete(feed);
      if (set.size === 0 && this.#byNode.get(nodeId) === set) this.#byNode.delete(nodeId);
    });
    set.add(feed);
    return feed;
  }

  of(nodeId: string): Iterable<Feed> {
    return this.#byNode.get(nodeId) ?? [];
  }

  *all(): Iterable<Feed> {
    for (const feeds of this.#byNode.values()) yield* feeds;
  }
}
