/**
 * Jobs: services whose tasks are to finish. Each change of a job begins a new iteration; tasks of older ones that are not
 * over are removed, the others are its history.
 * Pure: (service, its tasks, nodes, time) -> actions.
 */
import type { Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeSpec_Availability } from "#proto/docker/swarmkit/specs_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { TASK_HISTORY } from "../defaults.ts";
import { type Constraint, parseConstraints } from "../scheduler/constraints.ts";
import { isInvalid, isOver, stateOf } from "../tasks.ts";
import type { Actions } from "./actions.ts";
import { isEligible, type World } from "./plan.ts";
import { restartDelayMs, shouldRestart } from "./restarts.ts";
import { byAge, createdAt, newTask } from "./task.ts";

const iterationOf = (object: { jobIteration?: { index: bigint } | undefined } | undefined) =>
  object?.jobIteration?.index ?? 0n;

export function planJob(service: Service, tasks: readonly Task[], world: World, actions: Actions): void {
  const iteration = iterationOf(service.jobStatus);
  const [current, old] = [
    tasks.filter((task) => iterationOf(task) === iteration),
    tasks.filter((task) => iterationOf(task) !== iteration),
  ];
  for (const task of [...old.filter((one) => !isOver(one)), ...surplus(service, old.filter(isOver), world)]) {
    actions.want(task, TaskState.REMOVE);
  }
  const live = current.filter((task) => {
    if (task.desiredState > TaskState.COMPLETE) return false;
    const unfinished = !isOver(task) && (task.nodeId === "" || !isInvalid(world.node(task.nodeId)));
    if (unfinished || stateOf(task) === TaskState.COMPLETE) return true;
    actions.want(task, TaskState.SHUTDOWN);
    return false;
  });
  const mode = service.spec?.mode;
  if (mode?.case === "replicatedJob") {
    const completed = live.filter((task) => stateOf(task) === TaskState.COMPLETE).length;
    const running = live.length - completed;
    const total = Number(mode.value.totalCompletions);
    const concurrent = Number(mode.value.maxConcurrent) || total;
    const missing = Math.min(concurrent, total - completed) - running;
    const used = new Set(live.map((task) => task.slot));
    for (let slot = 0n, left = missing; left > 0 && slot < BigInt(total); slot++) {
      if (used.has(slot)) continue;
      left--;
      replace(
        service,
        current.filter((task) => task.slot === slot),
        slot,
        "",
        world,
        actions,
      );
    }
  } else if (mode?.case === "globalJob") {
    const done = new Set(live.map((task) => task.nodeId));
    for (const node of world.nodes()) {
      if (done.has(node.id) || !isEligible(node, constraintsOf(service))) continue;
      if (node.spec?.availability !== NodeSpec_Availability.ACTIVE) continue;
      replace(
        service,
        current.filter((task) => task.nodeId === node.id),
        0n,
        node.id,
        world,
        actions,
      );
    }
  }
}

/** What is past the history limit, which counts the present iteration; Docker keeps the tasks of all of them. */
function surplus(service: Service, over: readonly Task[], { cluster }: World): Task[] {
  const limit = Number(cluster?.spec?.orchestration?.taskHistoryRetentionLimit ?? BigInt(TASK_HISTORY));
  if (limit < 0) return [];
  const replicated = service.spec?.mode.case === "replicatedJob";
  const places = Map.groupBy(over, ({ nodeId, slot }) => (replicated ? String(slot) : nodeId));
  return [...places.values()].flatMap((tasks) => tasks.sort(byAge).slice(0, Math.max(0, tasks.length - limit + 1)));
}

/** Makes a task for a place, after the restart delay when tasks failed there before. */
function replace(
  service: Service,
  before: readonly Task[],
  slot: bigint,
  nodeId: string,
  world: World,
  actions: Actions,
): void {
  const { now } = world;
  const failed = before.filter((task) => stateOf(task) === TaskState.FAILED || stateOf(task) === TaskState.REJECTED);
  const last = failed.reduce<Task | undefined>((a, b) => (a && createdAt(a) >= createdAt(b) ? a : b), undefined);
  if (last) {
    if (!shouldRestart(service, last, world.history, now)) return;
    const endedAt = Number(last.meta?.updatedAt?.seconds ?? 0n) * 1000;
    const at = world.since(last.id, endedAt) + restartDelayMs(service);
    if (at > now) {
      actions.wake(at);
      return;
    }
    world.history.record(service, last, now);
  }
  actions.create(newTask({ service, slot, nodeId, desiredState: TaskState.COMPLETE }, before, world));
}

function constraintsOf(service: Service): Constraint[] {
  return parseConstraints(service.spec?.task?.placement?.constraints ?? []);
}
