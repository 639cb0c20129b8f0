/** Long waits say what they wait for. */
import { type Clock, systemClock } from "./clock.ts";
import type { Logger } from "./log.ts";

/** After so long without an end a wait is told, and again after each such time, ms. */
const TELL_MS = 4_000;

/** Gives what `work` gives; while it takes long, the log tells `what` is waited for. */
export async function waitFor<T>(what: string, work: Promise<T>, log: Logger, clock: Clock = systemClock): Promise<T> {
  const began = clock.now();
  const cancel = clock.every(TELL_MS, () =>
    log.warn("still waiting", { for: what, seconds: Math.round((clock.now() - began) / 1_000) }),
  );
  try {
    return await work;
  } finally {
    cancel();
  }
}
