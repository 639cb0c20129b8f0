/** Restart policies: a pure decision per exit. */
import { invalid } from "../../base/errors.ts";
import type { RestartPolicy } from "../shapes.ts";

const FIRST_DELAY = 100;
const MAX_DELAY = 60_000;
/** A run of this length was a success: the back-off starts again. */
const GOOD_RUN = 10_000;

export function checkRestartPolicy(policy: RestartPolicy): void {
  switch (policy.Name) {
    case "always":
    case "unless-stopped":
    case "no":
      if (policy.MaximumRetryCount > 0) {
        throw invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'");
      }
      return;
    case "on-failure":
      if (policy.MaximumRetryCount < 0) {
        throw invalid("invalid restart policy: maximum retry count cannot be negative");
      }
      return;
    case "":
      return;
    default:
      throw invalid(
        `invalid restart policy: unknown policy '${policy.Name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'`,
      );
  }
}

export interface Exit {
  readonly exitCode: number;
  /** Milliseconds the process ran. */
  readonly ran: number;
  /** Stopped or killed by a user. */
  readonly manually: boolean;
  /** Restarts so far. */
  readonly restarts: number;
  /** The delay before this run, 0 for the first. */
  readonly lastDelay: number;
}

/** Milliseconds until the next start, or undefined to leave it. */
export function restartDelay(policy: RestartPolicy, exit: Exit): number | undefined {
  if (exit.manually || !wants(policy, exit)) return undefined;
  if (exit.ran >= GOOD_RUN || exit.lastDelay === 0) return FIRST_DELAY;
  return Math.min(exit.lastDelay * 2, MAX_DELAY);
}

function wants(policy: RestartPolicy, exit: Exit): boolean {
  switch (policy.Name) {
    case "always":
    case "unless-stopped":
      return true;
    case "on-failure":
      return exit.exitCode !== 0 && (policy.MaximumRetryCount === 0 || exit.restarts < policy.MaximumRetryCount);
    default:
      return false;
  }
}

/** Whether a container that does not run is started when the daemon starts. */
export function startsAtBoot(policy: RestartPolicy, wasStarted: boolean, manually: boolean): boolean {
  if (!wasStarted) return false;
  return policy.Name === "always" || (policy.Name === "unless-stopped" && !manually);
}
