/** SwarmKit's defaults, and small readers of messages that fill them in. */
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";

/** Milliseconds of a duration; `fallback` when there is none. */
export function durationMs(duration: Duration | undefined, fallback: number): number {
  return duration ? Number(duration.seconds) * 1000 + duration.nanos / 1e6 : fallback;
}

/** Milliseconds since the epoch; 0 when there is none. */
export function timestampMs(timestamp: Timestamp | undefined): number {
  return timestamp ? Number(timestamp.seconds) * 1000 + timestamp.nanos / 1e6 : 0;
}

export const RESTART_DELAY_MS = 5_000;
/** How long a replacement waits for the task before it to stop. */
export const STOP_PATIENCE_MS = 60_000;
export const UPDATE_MONITOR_MS = 5_000;
export const TASK_HISTORY = 5;
export const HEARTBEAT_PERIOD_MS = 5_000;
