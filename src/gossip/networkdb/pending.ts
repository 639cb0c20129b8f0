/**
 * Events that came before the event they depend on: a table event before its owner's joining of the network, a
 * network event before the node itself. Docker drops them and lives with the gap until the next bulk sync; here
 * they wait a little for the other to arrive.
 */
export class Pending<T> {
  readonly #waiting = new Map<string, { at: number; items: T[] }>();
  readonly #ttlMs: number;
  readonly #capacity: number;
  #size = 0;

  constructor(ttlMs: number, capacity: number) {
    this.#ttlMs = ttlMs;
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#size;
  }

  /** Keeps an item; "first" when nothing waited under that key yet, "full" when it was not kept. */
  add(key: string, item: T, now: number): "first" | "more" | "full" {
    if (this.#size >= this.#capacity) return "full";
    this.#size++;
    const slot = this.#waiting.get(key);
    if (slot) slot.items.push(item);
    else this.#waiting.set(key, { at: now, items: [item] });
    return slot ? "more" : "first";
  }

  /** Takes out what waits under a key, in order of arrival. */
  take(key: string): T[] {
    const slot = this.#waiting.get(key);
    this.#waiting.delete(key);
    this.#size -= slot?.items.length ?? 0;
    return slot?.items ?? [];
  }

  has(key: string): boolean {
    return this.#waiting.has(key);
  }

  /** Drops what waited too long; returns how many. */
  expire(now: number): number {
    const before = this.#size;
    for (const [key, { at }] of this.#waiting) if (now - at >= this.#ttlMs) this.take(key);
    return before - this.#size;
  }
}
