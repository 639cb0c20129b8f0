/**
 * The life of a task on a worker, as a table. Pure: `nextStep` says what to do in a state, `settle` what
 * came of it. One controller call per step; going backwards is a bug. (SwarmKit: agent/exec/controller.go)
 *
 *   ASSIGNED -> ACCEPTED -> PREPARING -prepare-> READY -> STARTING -start-> RUNNING -wait-> COMPLETE
 *                                                  any of them -shutdown-> SHUTDOWN   (desired >= SHUTDOWN)
 *   an error before STARTING -> REJECTED, from STARTING on -> FAILED
 */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  ContainerStatusSchema,
  PortStatusSchema,
  TaskState,
  type TaskStatus,
} from "#proto/docker/swarmkit/types_pb.js";
import type { TaskController } from "../types.ts";

/** The calls of a `TaskController` that move a task from one state to another. */
export type ControllerCall = "prepare" | "start" | "wait" | "shutdown";

export type Step =
  /** Nothing to do until the task changes. */
  | { readonly kind: "rest" }
  /** Move on without asking anybody. */
  | { readonly kind: "advance"; readonly to: TaskState; readonly message: string }
  /** Move on when the call succeeds. */
  | { readonly kind: "call"; readonly call: ControllerCall; readonly to: TaskState; readonly message: string };

export type Outcome =
  | { readonly kind: "done" }
  | { readonly kind: "failed"; readonly error: string; readonly exitCode?: number | undefined }
  /** Try the same step again later; `error` is shown meanwhile. */
  | { readonly kind: "retry"; readonly error: string }
  /** The step was cut short because the task changed. */
  | { readonly kind: "cancelled" };

const rest: Step = { kind: "rest" };

/**
 * Steps that are finished even when the desired state does not go beyond the present one:
 * PREPARING, STARTING and RUNNING are states in motion, the others are resting places.
 */
const inMotion: Partial<Record<TaskState, Step>> = {
  [TaskState.PREPARING]: { kind: "call", call: "prepare", to: TaskState.READY, message: "prepared" },
  [TaskState.STARTING]: { kind: "call", call: "start", to: TaskState.RUNNING, message: "started" },
  [TaskState.RUNNING]: { kind: "call", call: "wait", to: TaskState.COMPLETE, message: "finished" },
};

/** Steps that are taken only while the desired state lies beyond. */
const atRest: Partial<Record<TaskState, Step>> = {
  [TaskState.NEW]: { kind: "advance", to: TaskState.ACCEPTED, message: "accepted" },
  [TaskState.PENDING]: { kind: "advance", to: TaskState.ACCEPTED, message: "accepted" },
  [TaskState.ASSIGNED]: { kind: "advance", to: TaskState.ACCEPTED, message: "accepted" },
  [TaskState.ACCEPTED]: { kind: "advance", to: TaskState.PREPARING, message: "preparing" },
  [TaskState.READY]: { kind: "advance", to: TaskState.STARTING, message: "starting" },
};

const shutdown: Step = { kind: "call", call: "shutdown", to: TaskState.SHUTDOWN, message: "shutdown" };

/** No way leads on from here. */
export function isTerminal(state: TaskState): boolean {
  return state >= TaskState.COMPLETE;
}

/** On the way to RUNNING, with nothing to complain of: the next state follows by itself. */
export function isPassing({ state, err }: TaskStatus, desired: TaskState): boolean {
  return state < TaskState.RUNNING && err === "" && nextStep(state, desired).kind !== "rest";
}

/** What to do with a task in `state` that is wanted in `desired`. */
export function nextStep(state: TaskState, desired: TaskState): Step {
  if (isTerminal(state)) return rest;
  if (desired >= TaskState.SHUTDOWN) return shutdown;
  if (state > desired) return rest;
  const moving = inMotion[state];
  if (moving) return moving;
  return state < desired ? (atRest[state] ?? rest) : rest;
}

/** What is known of the task's container; see `TaskController.status`. */
export type Runtime = ReturnType<TaskController["status"]>;

/** The status after `step` came out as `outcome`; the same object when nothing changed. */
export function settle(
  status: TaskStatus,
  step: Step,
  outcome: Outcome,
  at: { nowMs: number; runtime?: Runtime },
): TaskStatus {
  if (step.kind === "rest") return status;
  switch (outcome.kind) {
    case "cancelled":
      return status;
    case "done":
      return moved(status, { state: step.to, message: step.message, err: "" }, at);
    case "retry":
      return status.err === outcome.error ? status : moved(status, { err: outcome.error }, at);
    case "failed":
      return moved(status, { state: failure(status.state), err: outcome.error }, at, outcome.exitCode);
  }
}

/** The status of a task for which no controller could be made. */
export function rejected(status: TaskStatus, error: string, nowMs: number): TaskStatus {
  if (isTerminal(status.state)) return status;
  return moved(status, { state: failure(status.state), message: "resolving controller failed", err: error }, { nowMs });
}

/** Before anything was started it is a refusal, from then on a failure. */
function failure(state: TaskState): TaskState {
  return state < TaskState.STARTING ? TaskState.REJECTED : TaskState.FAILED;
}

function moved(
  status: TaskStatus,
  change: { state?: TaskState; message?: string; err?: string },
  at: { nowMs: number; runtime?: Runtime },
  exitCode?: number,
): TaskStatus {
  const next: TaskStatus = {
    ...status,
    state: change.state ?? status.state,
    message: change.message ?? status.message,
    err: change.err ?? status.err,
    timestamp: timestampFromMs(at.nowMs),
  };
  if (next.state < status.state) throw new Error(`task state would go back from ${status.state} to ${next.state}`);
  if (next.state >= TaskState.STARTING && at.runtime) {
    const { containerId, pid, exitCode: known, ports } = at.runtime;
    const value = create(ContainerStatusSchema, { containerId, pid, exitCode: exitCode ?? known });
    next.runtimeStatus = { case: "container", value };
    next.portStatus = create(PortStatusSchema, { ports });
  }
  return next;
}
