/**
 * Lifeguard's local health: 0 is healthy; the higher, the more this node doubts itself and the longer it waits
 * before it accuses others.
 */
export class Awareness {
  readonly #max: number;
  #score = 0;

  /** The score stays below `max`. */
  constructor(max: number) {
    this.#max = max;
  }

  get score(): number {
    return this.#score;
  }

  apply(delta: number): void {
    this.#score = Math.min(Math.max(0, this.#score + delta), this.#max - 1);
  }

  /** Stretches a time-out by the score. */
  scale(ms: number): number {
    return ms * (this.#score + 1);
  }
}
