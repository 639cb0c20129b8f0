import type { Clock } from "../../base/clock.ts";

/** A timer that is later than this has been waiting for a busy process, not for time. */
const stallMs = 100;

/**
 * As `clock.after`, for verdicts on others. When this process was stalled, the timer falls due before the packets
 * that arrived meanwhile are read; then it waits `graceMs` more, so that nobody is accused for our own delay.
 */
export function afterReading(clock: Clock, ms: number, graceMs: number, fn: () => void): () => void {
  const due = clock.now() + ms;
  let cancel = clock.after(ms, () => {
    if (clock.now() - due <= stallMs) fn();
    else cancel = clock.after(graceMs, fn);
  });
  return () => cancel();
}
