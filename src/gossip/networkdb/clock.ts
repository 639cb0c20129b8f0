/** A Lamport clock as Serf's: counts events, and jumps past whatever it hears of. */

/** No honest peer is ahead by more events than this; beyond it, a time is refused. */
const maxAhead = 1n << 40n;
/** Nor anybody, in all of a cluster's life, near the end of what 64 bits hold. */
const maxTime = 1n << 63n;

export class LamportClock {
  #time = 0n;

  time(): bigint {
    return this.#time;
  }

  increment(): bigint {
    this.#time += 1n;
    return this.#time;
  }

  /** Takes a time that was heard; false when it is absurd and the message should be dropped. */
  witness(time: bigint): boolean {
    if (time > this.#time + maxAhead || time > maxTime) return false;
    if (time >= this.#time) this.#time = time + 1n;
    return true;
  }
}
