/** Renews the node's certificate well before it ends, and at once when asked. (SwarmKit: ca/renewer.go) */
import { type Clock, sleep } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";

const minuteMs = 60_000;
/**
 * Time is looked at so often, at a hundredth of what is to wait: timers stand still while a machine sleeps, and the clock
 * may be set.
 */
const lookMs = { least: minuteMs / 2, most: 60 * minuteMs };
const forcedDelayMs = 500;
const retryMs = { base: 5_000, max: 60 * minuteMs };

/** A random minute between 50 % and 80 % of the certificate's life. Milliseconds since the epoch. */
export function renewalTime(validity: { notBefore: number; notAfter: number }, random: () => number): number {
  const minutes = (validity.notAfter - validity.notBefore) / minuteMs;
  const from = Math.floor(minutes * 0.5);
  const to = Math.floor(minutes * 0.8);
  return validity.notBefore + (from + Math.floor(random() * Math.max(1, to - from))) * minuteMs;
}

/** How long to wait after the n-th failure (0, 1, …): random below a limit that doubles. */
export function retryDelay(failures: number, random: () => number): number {
  const limit = Math.min(retryMs.base + retryMs.base * 2 ** Math.min(failures, 20), retryMs.max);
  return random() * limit;
}

export interface RenewerOptions {
  /** Life of the present certificate. */
  validity(): { notBefore: number; notAfter: number };
  /** Gets and installs a new certificate. */
  renew(signal: AbortSignal): Promise<void>;
  /** Whether a new certificate is still wanted after one came, e.g. one of another role. */
  unsatisfied(): boolean;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
}

export class Renewer {
  #options: RenewerOptions;
  /** When the certificate is to be renewed for its age, milliseconds since the epoch. */
  #due: number;
  /** When to renew it anyway, because somebody wants it or the last try failed: steady milliseconds. */
  #wanted = Number.POSITIVE_INFINITY;
  #wake = new AbortController();
  #closing = new AbortController();
  #loop: Promise<void> | undefined;

  constructor(options: RenewerOptions) {
    this.#options = options;
    this.#due = renewalTime(options.validity(), options.random);
  }

  start(): void {
    this.#loop = this.#run();
  }

  /** Renews soon, whatever the age of the certificate. */
  force(): void {
    this.#wanted = Math.min(this.#wanted, this.#options.clock.steady() + forcedDelayMs);
    this.#wake.abort();
  }

  /** A fresh certificate that by this host's clock is old already would be renewed without a pause for ever. */
  #plan(): void {
    const { clock, random, validity } = this.#options;
    const due = renewalTime(validity(), random);
    if (due > clock.now()) {
      this.#due = due;
      return;
    }
    const pause = Math.max(minuteMs, (validity().notAfter - clock.now()) / 2);
    this.#wanted = Math.min(this.#wanted, clock.steady() + pause);
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error("the node stops"));
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { clock, log, random, renew, unsatisfied } = this.#options;
    const { signal } = this.#closing;
    let failures = 0;
    while (!signal.aborted) {
      const wait = Math.min(this.#due - clock.now(), this.#wanted - clock.steady());
      if (wait > 0) {
        this.#wake = new AbortController();
        const look = Math.min(Math.max(wait / 100, lookMs.least), lookMs.most);
        await sleep(clock, Math.min(wait, look), AbortSignal.any([signal, this.#wake.signal])).catch(() => {});
        continue;
      }
      // Whoever asks while a renewal is under way gets another one.
      this.#due = Number.POSITIVE_INFINITY;
      this.#wanted = Number.POSITIVE_INFINITY;
      try {
        await renew(signal);
        if (unsatisfied()) throw new Error("the managers did not yet issue the certificate that is wanted");
        failures = 0;
        this.#plan();
      } catch (error) {
        if (signal.aborted) return;
        this.#wanted = Math.min(this.#wanted, clock.steady() + retryDelay(failures++, random));
        const { notAfter } = this.#options.validity();
        const until = new Date(notAfter).toISOString();
        if (clock.now() <= notAfter) log.warn("renewing the certificate failed; it is tried again", { error, until });
        else log.error("this node's certificate has expired: leave the swarm and join again", { error, until });
      }
    }
  }
}
