/**
 * One service's tasks as they should be. Pure: (service, its tasks, nodes, time) -> actions.
 *
 *  - a task that ended, or whose node is lost or drained, is shut down and replaced as the restart policy says;
 *  - a replicated service has as many filled slots as replicas, a global one a task on each node that takes it;
 *  - a replacement waits in READY until what it replaces has stopped and the restart delay is over.
 */
import type { Cluster, Node, Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeSpec_Availability, NodeSpec_Membership } from "#proto/docker/swarmkit/specs_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { STOP_PATIENCE_MS } from "../defaults.ts";
import { type Constraint, constraintsOf, meets } from "../scheduler/constraints.ts";
import { isGlobal, isInvalid, isLost, isOnNode, isOver, isWanted, slotOf, stateOf } from "../tasks.ts";
import type { Actions } from "./actions.ts";
import { type RestartHistory, restartDelayMs, shouldRestart } from "./restarts.ts";
import { byAge, createdAt, newTask } from "./task.ts";

export interface World {
  readonly cluster: Cluster | undefined;
  readonly node: (id: string) => Node | undefined;
  readonly nodes: () => Node[];
  readonly history: RestartHistory;
  /** Steady milliseconds: for what has to wait. */
  readonly now: number;
  /** Wall milliseconds: for stamps. */
  readonly wall: number;
  /** A wall stamp of the store in steady time: the same each time it is asked, whatever is done to the clocks meanwhile. */
  readonly since: (what: string, stamp: number) => number;
}

/** Tasks of a service by the place they fill, oldest first. */
export function slotsOf(tasks: readonly Task[]): Map<string, Task[]> {
  const slots = Map.groupBy(tasks, slotOf);
  for (const slot of slots.values()) if (slot.length > 1) slot.sort(byAge);
  return slots;
}

/** Replaces tasks that ended or whose node is gone. Returns the tasks as they will be, with the new ones. */
export function planRestarts(service: Service, tasks: readonly Task[], world: World, actions: Actions): Task[] {
  const after: Task[] = [];
  for (const task of tasks) {
    const node = task.nodeId ? world.node(task.nodeId) : undefined;
    const misplaced = task.nodeId !== "" && isInvalid(node);
    // What failed while it waited for its turn waits on: its own replacement comes no sooner (`planStarts`).
    const waits = task.desiredState === TaskState.READY && !misplaced;
    if (!isWanted(task) || waits || !(isOver(task) || misplaced)) {
      after.push(task);
      continue;
    }
    actions.want(task, TaskState.SHUTDOWN);
    after.push({ ...task, desiredState: TaskState.SHUTDOWN });
    // In global mode a node that is gone or drained gets no replacement.
    if (isGlobal(service) && misplaced) continue;
    if (isOver(task) && !misplaced) {
      if (!shouldRestart(service, task, world.history, world.now)) continue;
      world.history.record(service, task, world.now);
    }
    const nodeId = isGlobal(service) ? task.nodeId : "";
    after.push(
      actions.create(newTask({ service, slot: task.slot, nodeId, desiredState: TaskState.READY }, [task], world)),
    );
  }
  return after;
}

/** A slot counts as filled by a wanted task, or by one that ended and is not to be restarted. */
export function isFilled(service: Service, slot: readonly Task[], world: World): boolean {
  if (slot.some(isWanted)) return true;
  const newest = slot.at(-1);
  return (
    newest !== undefined &&
    isOver(newest) &&
    newest.desiredState < TaskState.REMOVE &&
    stateOf(newest) !== TaskState.ORPHANED &&
    stateOf(newest) !== TaskState.SHUTDOWN &&
    !isLost(world.node(newest.nodeId)) &&
    !shouldRestart(service, newest, world.history, world.now)
  );
}

/** Scales a replicated service. */
export function planReplicas(service: Service, tasks: readonly Task[], world: World, actions: Actions): void {
  const mode = service.spec?.mode;
  if (mode?.case !== "replicated") return;
  const replicas = Number(mode.value.replicas);
  const slots = slotsOf(tasks);
  const filled = [...slots].filter(([, slot]) => isFilled(service, slot, world));
  if (filled.length < replicas) {
    const used = new Set(filled.map(([key]) => key));
    for (let slot = 1, missing = replicas - filled.length; missing > 0; slot++) {
      if (used.has(String(slot))) continue;
      missing--;
      const place = { service, slot: BigInt(slot), nodeId: "", desiredState: TaskState.RUNNING };
      actions.create(newTask(place, slots.get(String(slot)) ?? [], world));
    }
  }
  if (filled.length > replicas) {
    for (const slot of surplus(filled, replicas)) for (const task of slot) actions.want(task, TaskState.REMOVE);
  }
}

/** Which slots to give up: those that do not run first, then from the fullest nodes, then the highest numbers. */
function surplus(filled: [string, Task[]][], keep: number): Task[][] {
  const perNode = new Map<string, number>();
  const runner = (slot: Task[]) => slot.find((task) => isWanted(task) && stateOf(task) === TaskState.RUNNING);
  // The number of tasks that this one would share its node with if all lower slots were kept.
  const ranked = filled
    .map(([key, slot]) => ({ key: Number(key), slot, runner: runner(slot) }))
    .sort((a, b) => Number(b.runner !== undefined) - Number(a.runner !== undefined) || a.key - b.key)
    .map((entry) => {
      const nodeId = entry.runner?.nodeId ?? "";
      const rank = perNode.get(nodeId) ?? 0;
      perNode.set(nodeId, rank + 1);
      return { ...entry, rank };
    })
    .sort(
      (a, b) => Number(b.runner !== undefined) - Number(a.runner !== undefined) || a.rank - b.rank || a.key - b.key,
    );
  return ranked.slice(keep).map(({ slot }) => slot);
}

/** True when a global service wants a task on this node. */
export function isEligible(node: Node, constraints: readonly Constraint[]): boolean {
  return !isInvalid(node) && node.spec?.membership === NodeSpec_Membership.ACCEPTED && meets(node, constraints);
}

/** One task of a global service on each eligible node. */
export function planGlobal(service: Service, tasks: readonly Task[], world: World, actions: Actions): void {
  if (service.spec?.mode.case !== "global") return;
  const constraints = constraintsOf(service.spec.task);
  const byNode = Map.groupBy([...tasks].sort(byAge), (task) => task.nodeId);
  const eligible = new Set<string>();
  for (const node of constraints ? world.nodes() : []) {
    if (!isEligible(node, constraints ?? [])) continue;
    eligible.add(node.id);
    if (node.spec?.availability === NodeSpec_Availability.PAUSE) continue;
    if (isFilled(service, byNode.get(node.id) ?? [], world)) continue;
    const place = { service, slot: 0n, nodeId: node.id, desiredState: TaskState.RUNNING };
    actions.create(newTask(place, byNode.get(node.id) ?? [], world));
  }
  for (const [nodeId, list] of byNode) {
    if (!eligible.has(nodeId)) for (const task of list) if (isWanted(task)) actions.want(task, TaskState.SHUTDOWN);
  }
}

/** The service's constraints; undefined when they cannot be read, and then no node meets them. */
/** Lets tasks that wait in READY run when their turn has come. */
export function planStarts(service: Service, tasks: readonly Task[], world: World, actions: Actions): void {
  const waiting = tasks.filter((task) => task.desiredState === TaskState.READY);
  if (waiting.length === 0) return;
  const slots = slotsOf(tasks);
  for (const task of waiting) {
    const before = (slots.get(slotOf(task)) ?? []).filter((other) => other.id !== task.id && byAge(other, task) < 0);
    const at = startsAt(service, task, before, world);
    if (at <= world.now) actions.want(task, TaskState.RUNNING);
    else actions.wake(at);
  }
}

/** When a waiting task may run, given what was in its place before. */
function startsAt(service: Service, task: Task, before: readonly Task[], world: World): number {
  const since = world.since(task.id, createdAt(task));
  const stopping = before.some((other) => isOnNode(other) && !isLost(world.node(other.nodeId)));
  if (stopping && world.now < since + STOP_PATIENCE_MS) return since + STOP_PATIENCE_MS;
  const last = before.at(-1);
  const endedByItself =
    last !== undefined &&
    [TaskState.COMPLETE, TaskState.FAILED, TaskState.REJECTED].includes(stateOf(last)) &&
    last.specVersion?.index === task.specVersion?.index &&
    !isInvalid(world.node(last.nodeId));
  return endedByItself ? since + restartDelayMs(service) : since;
}
