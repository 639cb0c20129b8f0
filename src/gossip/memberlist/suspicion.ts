/**
 * How long a suspected node has to prove that it lives. The more independent nodes confirm the suspicion, the
 * shorter (Lifeguard): from `max` with the first accuser down to `min` with `k` confirmations.
 */
export class Suspicion {
  readonly #min: number;
  readonly #max: number;
  readonly #wanted: number;
  readonly #startedAt: number;
  /** Accusers, the first one included: it cannot confirm itself. */
  readonly #accusers: Set<string>;

  constructor(from: string, wanted: number, min: number, max: number, now: number) {
    this.#wanted = wanted;
    this.#min = min;
    this.#max = max;
    this.#startedAt = now;
    this.#accusers = new Set([from]);
  }

  /** True when this is news, worth passing on. */
  confirm(from: string): boolean {
    if (this.#accusers.size > this.#wanted || this.#accusers.has(from)) return false;
    this.#accusers.add(from);
    return true;
  }

  /** When the suspected node is declared dead, in the clock's milliseconds. */
  get deadline(): number {
    if (this.#wanted < 1) return this.#startedAt + this.#min;
    const confirmations = this.#accusers.size - 1;
    const share = Math.log(confirmations + 1) / Math.log(this.#wanted + 1);
    const timeout = Math.floor(this.#max - share * (this.#max - this.#min));
    return this.#startedAt + Math.max(this.#min, timeout);
  }
}

/** The shortest suspicion in a cluster of `nodes`, in milliseconds. */
export function suspicionTimeout(multiplier: number, nodes: number, intervalMs: number): number {
  return multiplier * Math.max(1, Math.log10(Math.max(1, nodes))) * intervalMs;
}
