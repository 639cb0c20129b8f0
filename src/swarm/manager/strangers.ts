/**
 * Peers that have shown no certificate of the swarm: who joins is one for a moment, so is whoever attacks. They are few
 * at a time, stay for minutes at most, and do not fill the log.
 */
import type { Clock } from "../../base/clock.ts";
import type { Fields, Logger } from "../../base/log.ts";

export const STRANGER_STAYS_MS = 5 * 60_000;
const QUIET_MS = 10_000;

interface Visitor {
  readonly address: string;
  readonly turnOut: () => void;
}

/**
 * Keeps a crowd small: when it is full, whoever came first of the address that has the most in it has to go. A flood
 * only pushes out its own, and one who does in milliseconds what he came for is served in the middle of it.
 */
export class Crowd {
  readonly #max: number;
  readonly #maxPerAddress: number;
  #count = 0;
  readonly #perAddress = new Map<string, Set<Visitor>>();

  /** `max` in all, `maxPerAddress` of one address: many nodes may join at once from behind one. */
  constructor(max: number, maxPerAddress: number) {
    this.#max = max;
    this.#maxPerAddress = maxPerAddress;
  }

  get size(): number {
    return this.#count;
  }

  /** Lets one in; the result lets it out again. `turnOut` is called when another needs its place. */
  enter(address: string, turnOut: () => void): () => void {
    if ((this.#perAddress.get(address)?.size ?? 0) >= this.#maxPerAddress) this.#turnOutOf(address);
    else if (this.#count >= this.#max) this.#turnOutOf(this.#largest());
    const visitor = { address, turnOut };
    const here = this.#perAddress.get(address) ?? new Set();
    this.#perAddress.set(address, here.add(visitor));
    this.#count++;
    return () => this.#leave(visitor);
  }

  #leave(visitor: Visitor): void {
    const here = this.#perAddress.get(visitor.address);
    if (!here?.delete(visitor)) return;
    this.#count--;
    if (here.size === 0) this.#perAddress.delete(visitor.address);
  }

  #turnOutOf(address: string): void {
    const [first] = this.#perAddress.get(address) ?? [];
    if (!first) return;
    this.#leave(first);
    first.turnOut();
  }

  #largest(): string {
    let largest = "";
    let size = 0;
    for (const [address, { size: here }] of this.#perAddress) {
      if (here <= size) continue;
      largest = address;
      size = here;
    }
    return largest;
  }
}

/** Warns of the first at once, then of all others within ten seconds in one line; once closed, of nothing more. */
export class BoundedWarning {
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #message: string;
  #quiet = false;
  #untold = 0;
  #last: Fields = {};
  #closed = false;
  #cancel: (() => void) | undefined;

  constructor(log: Logger, clock: Clock, message: string) {
    this.#log = log;
    this.#clock = clock;
    this.#message = message;
  }

  tell(fields: Fields): void {
    if (this.#closed) return;
    if (this.#quiet) {
      this.#untold++;
      this.#last = fields;
      return;
    }
    this.#quiet = true;
    this.#log.warn(this.#message, fields);
    this.#cancel = this.#clock.after(QUIET_MS, () => this.#speakUp());
  }

  /** Tells at once what was kept back. */
  close(): void {
    this.#cancel?.();
    if (this.#untold > 0) this.#log.warn(this.#message, { ...this.#last, times: this.#untold });
    this.#untold = 0;
    this.#closed = true;
  }

  #speakUp(): void {
    this.#quiet = false;
    const times = this.#untold;
    this.#untold = 0;
    if (times > 0) this.tell({ ...this.#last, times });
  }
}
