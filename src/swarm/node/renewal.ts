/** Renews the node's certificate well before it ends, and at once when asked. (SwarmKit: ca/renewer.go) */
import { type Clock, sleep } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";

const minuteMs = 60_000;
/** Timers hold less than 25 days and stand still while a machine sleeps: time is looked at this often. */
const lookMs = 60 * minuteMs;
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
  /** When to renew next, milliseconds since the epoch. */
  #due: number;
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
    this.#due = Math.min(this.#due, this.#options.clock.now() + forcedDelayMs);
    this.#wake.abort();
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error("the node stops"));
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { clock, log, random, renew, unsatisfied, validity } = this.#options;
    const { signal } = this.#closing;
    let failures = 0;
    while (!signal.aborted) {
      const wait = this.#due - clock.now();
      if (wait > 0) {
        this.#wake = new AbortController();
        await sleep(clock, Math.min(wait, lookMs), AbortSignal.any([signal, this.#wake.signal])).catch(() => {});
        continue;
      }
      // Whoever asks while a renewal is under way gets another one.
      this.#due = Number.POSITIVE_INFINITY;
      try {
        await renew(signal);
        if (unsatisfied()) throw new Error("the managers did not yet issue the certificate that is wanted");
        failures = 0;
        this.#due = Math.min(this.#due, renewalTime(validity(), random));
      } catch (error) {
        if (signal.aborted) return;
        this.#due = Math.min(this.#due, clock.now() + retryDelay(failures++, random));
        log.warn("renewing the certificate failed; it is tried again", { error });
      }
    }
  }
}
