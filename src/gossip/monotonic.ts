import { type Clock, systemClock } from "../base/clock.ts";

/** The machine's timers with a clock that nobody sets: all times in this room are differences. */
export const monotonicClock: Clock = { ...systemClock, now: () => performance.now() };
