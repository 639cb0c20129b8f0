/**
 * Peers without a certificate of the swarm. Whoever joins is one for a moment, so is whoever attacks: they are few at a
 * time, stay for minutes at most, and do not fill the log.
 */
import type { Clock } from "../../base/clock.ts";
import type { Fields, Logger } from "../../base/log.ts";

const MAX_STRANGERS = 512;
/** Many nodes may join at once from behind one address. */
const MAX_PER_ADDRESS = 256;
export const STRANGER_STAYS_MS = 5 * 60_000;
const QUIET_MS = 10_000;

/** Counts them. */
export class Strangers {
  #count = 0;
  readonly #perAddress = new Map<string, number>();

  /** Lets one in; the result lets it out again. Undefined when there is no room. */
  enter(address: string): (() => void) | undefined {
    const here = this.#perAddress.get(address) ?? 0;
    if (this.#count >= MAX_STRANGERS || here >= MAX_PER_ADDRESS) return undefined;
    this.#count++;
    this.#perAddress.set(address, here + 1);
    return () => {
      this.#count--;
      const left = (this.#perAddress.get(address) ?? 1) - 1;
      if (left > 0) this.#perAddress.set(address, left);
      else this.#perAddress.delete(address);
    };
  }
}

/** Warns of the first at once, then of all others within ten seconds in one line. */
export class BoundedWarning {
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #message: string;
  #quiet = false;
  #untold = 0;
  #last: Fields = {};

  constructor(log: Logger, clock: Clock, message: string) {
    this.#log = log;
    this.#clock = clock;
    this.#message = message;
  }

  tell(fields: Fields): void {
    if (this.#quiet) {
      this.#untold++;
      this.#last = fields;
      return;
    }
    this.#quiet = true;
    this.#log.warn(this.#message, fields);
    this.#clock.after(QUIET_MS, () => this.#speakUp());
  }

  #speakUp(): void {
    this.#quiet = false;
    const times = this.#untold;
    this.#untold = 0;
    if (times > 0) this.tell({ ...this.#last, times });
  }
}
