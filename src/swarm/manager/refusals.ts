/** Calls that were refused, in the log: who called what and why not, a line in ten seconds for each kind of refusal. */
import type { Clock } from "../../base/clock.ts";
import { status } from "../../base/grpc.ts";
import type { CallContext, Failure } from "../../base/grpc-server.ts";
import type { Logger } from "../../base/log.ts";
import type { Identity } from "../ca/certificates.ts";
import { BoundedWarning } from "./strangers.ts";

/** What honest nodes run into when managers change (NOT_FOUND, ABORTED, UNAVAILABLE, …) is not among them. */
const kinds = {
  [status.PERMISSION_DENIED]: "refused a call: not allowed",
  [status.INVALID_ARGUMENT]: "refused a call: its argument is wrong",
  [status.INTERNAL]: "refused a call: its message is broken",
  [status.RESOURCE_EXHAUSTED]: "refused a call: it asks for too much",
  [status.UNKNOWN]: "a call failed",
} as const;

/** A reason may quote what the caller sent. */
const MAX_REASON = 200;

/** Ends with the manager: `closing`. */
export function refusalLog(
  log: Logger,
  clock: Clock,
  closing: AbortSignal,
  callerOf: (context: CallContext) => Identity | undefined,
): (failure: Failure) => void {
  const warnings = new Map(
    Object.entries(kinds).map(([code, message]) => [Number(code), new BoundedWarning(log, clock, message)]),
  );
  const close = () => {
    for (const warning of warnings.values()) warning.close();
  };
  closing.addEventListener("abort", close, { once: true });
  return ({ code, context, error, path }) => {
    const warning = warnings.get(code);
    if (!warning) return;
    // Not what the caller was told: of an unknown error that is nothing.
    const reason = (error instanceof Error ? error.message : String(error)).slice(0, MAX_REASON);
    warning.tell({
      method: path.slice(path.lastIndexOf(".") + 1),
      peer: context.peer,
      node: callerOf(context)?.cn,
      reason,
    });
  };
}
