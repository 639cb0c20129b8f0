/**
 * Rolling updates and rollbacks of one service. A state machine stepped by the orchestrator: what it remembers is only
 * which slots are in hand and which of its tasks are still being watched; all else is in the store, so a manager that
 * starts again goes on where the last one stopped.
 */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeSpec_Availability } from "#proto/docker/swarmkit/specs_pb.js";
import {
  TaskState,
  type UpdateConfig,
  UpdateConfig_FailureAction,
  UpdateConfig_UpdateOrder,
  UpdateStatus_UpdateState,
  UpdateStatusSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import { durationMs, UPDATE_MONITOR_MS } from "../defaults.ts";
import { isGlobal, isInvalid, isOver, isWanted, stateOf } from "../tasks.ts";
import type { Actions } from "./actions.ts";
import { isFilled, slotsOf, type World } from "./plan.ts";
import { isDirty, newTask } from "./task.ts";

const { UPDATING, PAUSED, COMPLETED, ROLLBACK_STARTED, ROLLBACK_PAUSED, ROLLBACK_COMPLETED } = UpdateStatus_UpdateState;

interface Worker {
  /** The slot in hand and the task that shall fill it. */
  job: { slot: string; taskId: string } | undefined;
  /** Not before this time the next slot. */
  nextAt: number;
}

/** What is remembered of one update. */
export interface Run {
  /** The version that is being rolled out. */
  readonly version: bigint;
  readonly rollback: boolean;
  readonly workers: Worker[];
  /** Slots that had to be updated when the run began. */
  readonly total: number;
  /** Tasks of this update, and when each was seen running (0 = not yet). */
  readonly watched: Map<string, number>;
  readonly failed: Set<string>;
}

function statusChange(actions: Actions, state: UpdateStatus_UpdateState, message: string, wall: number): void {
  actions.service = (service) => {
    const done = state === COMPLETED || state === ROLLBACK_COMPLETED;
    const time = timestampFromMs(wall);
    const status = create(UpdateStatusSchema, { state, message, startedAt: service.updateStatus?.startedAt ?? time });
    if (done) status.completedAt = time;
    return { ...service, updateStatus: status };
  };
}

/** The service as it was before its last update. */
export function rolledBack(service: Service, message: string, now: number): Service {
  const updateStatus = create(UpdateStatusSchema, {
    state: ROLLBACK_STARTED,
    message,
    startedAt: timestampFromMs(now),
  });
  return {
    ...service,
    spec: service.previousSpec,
    specVersion: service.previousSpecVersion,
    previousSpec: undefined,
    previousSpecVersion: undefined,
    updateStatus,
  };
}

/** One step. `run` is what the last step returned; undefined = nothing in hand. */
export function stepUpdate(
  service: Service,
  tasks: readonly Task[],
  world: World,
  run: Run | undefined,
  actions: Actions,
): Run | undefined {
  const state = service.updateStatus?.state;
  if (state === PAUSED || state === ROLLBACK_PAUSED) return undefined;
  const rollback = state === ROLLBACK_STARTED;
  const version = service.specVersion?.index ?? 0n;
  const config = rollback ? service.spec?.rollback : service.spec?.update;
  const dirty = slotsToKeep(service, tasks, world).filter(
    ([, slot]) => slot.length > 1 || slot.some((task) => isDirty(service, task, world.node(task.nodeId))),
  );
  const current = run && run.version === version && run.rollback === rollback ? run : undefined;
  if (!current) {
    if (dirty.length === 0) {
      if (state === UPDATING || state === ROLLBACK_STARTED) complete(rollback, actions, world.wall);
      return undefined;
    }
    if (state !== UPDATING && !rollback) statusChange(actions, UPDATING, "update in progress", world.wall);
    const parallelism = Number(config ? config.parallelism : 1n) || dirty.length;
    const workers = Array.from({ length: Math.min(parallelism, dirty.length) }, () => ({ job: undefined, nextAt: 0 }));
    const fresh = { version, rollback, workers, total: dirty.length, watched: new Map(), failed: new Set<string>() };
    return work(service, tasks, dirty, config, world, fresh, actions);
  }
  return work(service, tasks, dirty, config, world, current, actions);
}

/**
 * The slots that are to do what the service says, with the tasks that do it. That is also one whose task ended for good
 * (its job is done, its attempts are used up): the next version begins there anew. Nothing is done on a paused node, where
 * no other task could follow.
 */
function slotsToKeep(service: Service, tasks: readonly Task[], world: World): [string, Task[]][] {
  const global = isGlobal(service);
  return [...slotsOf(tasks)].flatMap(([key, slot]): [string, Task[]][] => {
    const node = global ? world.node(key) : undefined;
    if (node?.spec?.availability === NodeSpec_Availability.PAUSE) return [];
    const wanted = slot.filter(isWanted);
    if (wanted.length > 0) return [[key, wanted]];
    const last = slot.at(-1);
    if (!last || (global && isInvalid(node)) || !isFilled(service, slot, world)) return [];
    return [[key, [last]]];
  });
}

function complete(rollback: boolean, actions: Actions, wall: number): void {
  if (rollback) statusChange(actions, ROLLBACK_COMPLETED, "rollback completed", wall);
  else statusChange(actions, COMPLETED, "update completed", wall);
}

function work(
  service: Service,
  tasks: readonly Task[],
  dirty: [string, Task[]][],
  config: UpdateConfig | undefined,
  world: World,
  run: Run,
  actions: Actions,
): Run | undefined {
  const { now } = world;
  const monitorMs = durationMs(config?.monitor, UPDATE_MONITOR_MS);
  const byId = new Map(tasks.map((task) => [task.id, task]));
  const failure = watch(run, byId, monitorMs, now, actions);
  if (failure !== undefined && act(service, run, config, failure, actions, world.wall)) return undefined;

  const startFirst = config?.order === UpdateConfig_UpdateOrder.START_FIRST;
  const todo = dirty.filter(([slot]) => !run.workers.some((worker) => worker.job?.slot === slot));
  for (const worker of run.workers) {
    if (worker.job) {
      const task = byId.get(worker.job.taskId);
      const running = task && stateOf(task) === TaskState.RUNNING;
      if (task && isWanted(task) && !running && !isOver(task)) continue;
      // Running, or failed and now the restart policy's business. Start-first: the old one goes when the new one runs.
      if (running)
        for (const other of tasks)
          if (sameSlot(other, task) && isWanted(other)) actions.want(other, TaskState.SHUTDOWN);
      worker.job = undefined;
      worker.nextAt = now + durationMs(config?.delay, 0);
    }
    if (worker.nextAt > now) {
      if (todo.length > 0) actions.wake(worker.nextAt);
      continue;
    }
    const next = todo.shift();
    if (next) worker.job = begin(service, next, startFirst, world, run, actions);
  }
  const busy = run.workers.some((worker) => worker.job !== undefined);
  if (busy || dirty.length > 0) return run;
  // All replaced: the last ones are watched to the end before the update counts as done.
  const end = Math.max(0, ...[...run.watched.values()].map((since) => since + monitorMs));
  if (end > now) {
    actions.wake(end);
    return run;
  }
  complete(run.rollback, actions, world.wall);
  return undefined;
}

const sameSlot = (a: Task, b: Task) => a.id !== b.id && a.slot === b.slot && (a.slot > 0n || a.nodeId === b.nodeId);

/** Replaces the tasks of a slot; a task in it that is right already is kept. */
function begin(
  service: Service,
  [slot, tasks]: [string, Task[]],
  startFirst: boolean,
  world: World,
  run: Run,
  actions: Actions,
): Worker["job"] {
  const [first] = tasks;
  if (!first) return undefined;
  const clean = tasks.findLast((task) => !isDirty(service, task, world.node(task.nodeId)));
  const desiredState = startFirst ? TaskState.RUNNING : TaskState.READY;
  const nodeId = first.slot > 0n ? "" : first.nodeId;
  const place = { service, slot: first.slot, nodeId, desiredState };
  const fresh = clean ?? actions.create(newTask(place, tasks, world));
  if (!clean) run.watched.set(fresh.id, 0);
  if (!startFirst) for (const task of tasks) if (task.id !== fresh.id) actions.want(task, TaskState.SHUTDOWN);
  return { slot, taskId: fresh.id };
}

/** Looks at the tasks of this update; returns one that has just failed within its time of watching. */
function watch(
  run: Run,
  tasks: Map<string, Task>,
  monitorMs: number,
  now: number,
  actions: Actions,
): string | undefined {
  let failure: string | undefined;
  for (const [id, since] of run.watched) {
    const task = tasks.get(id);
    if (!task) {
      run.watched.delete(id);
      continue;
    }
    if (since > 0 && now - since >= monitorMs) continue;
    if (isOver(task)) {
      run.watched.delete(id);
      // Shut down by somebody else (scale, drain) is no failure.
      if (stateOf(task) === TaskState.SHUTDOWN || stateOf(task) === TaskState.ORPHANED) continue;
      run.failed.add(id);
      failure = id;
    } else if (since === 0 && stateOf(task) === TaskState.RUNNING) {
      run.watched.set(id, now);
      actions.wake(now + monitorMs);
    }
  }
  return failure;
}

/** Does what the failure action says; true when the run ends by it. */
function act(
  service: Service,
  run: Run,
  config: UpdateConfig | undefined,
  taskId: string,
  actions: Actions,
  wall: number,
): boolean {
  if (run.failed.size / run.total <= (config?.maxFailureRatio ?? 0)) return false;
  const why = `due to failure or early termination of task ${taskId}`;
  switch (config?.failureAction ?? UpdateConfig_FailureAction.PAUSE) {
    case UpdateConfig_FailureAction.CONTINUE:
      return false;
    case UpdateConfig_FailureAction.ROLLBACK:
      if (!run.rollback && service.previousSpec) {
        actions.service = (current) => rolledBack(current, `update rolled back ${why}`, wall);
        return true;
      }
      break;
    case UpdateConfig_FailureAction.PAUSE:
  }
  if (run.rollback) statusChange(actions, ROLLBACK_PAUSED, `rollback paused ${why}`, wall);
  else statusChange(actions, PAUSED, `update paused ${why}`, wall);
  return true;
}
