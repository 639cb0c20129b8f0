/**
 * Keeps services true: commits mark services, a tick plans each marked one and writes what it wants. One tick does
 * restarts, scaling, updates and delayed starts of a service together, on one view of it.
 */

import type { Node, Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import { messageOf } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import type { Change, Store } from "../../store/store.ts";
import { Loop } from "../loop.ts";
import { isGlobal, isInvalid, isOver, stateOf } from "../tasks.ts";
import { Actions } from "./actions.ts";
import { planJob } from "./jobs.ts";
import { planGlobal, planReplicas, planRestarts, planStarts, type World } from "./plan.ts";
import { RestartHistory } from "./restarts.ts";
import { type Run, stepUpdate } from "./updater.ts";

const DEBOUNCE_MS = 1;

export class Orchestrator {
  readonly #store: Store;
  readonly #clusterId: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #loop: Loop;
  readonly #stopWatching: () => void;
  readonly #history = new RestartHistory();
  readonly #runs = new Map<string, Run>();
  readonly #dirty = new Set<string>();
  /** When each service wants to be looked at again. */
  readonly #wakeAt = new Map<string, number>();
  /** Of each service what `World.since` said in its last plan. */
  readonly #since = new Map<string, ReadonlyMap<string, number>>();
  /** Of large plans what is still to be written, while nothing happens that would change them. */
  readonly #rest = new Map<string, { readonly service: Service | undefined; readonly actions: Actions }>();

  constructor(store: Store, clusterId: string, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clusterId = clusterId;
    this.#clock = clock;
    this.#log = log;
    this.#loop = new Loop({ name: "orchestrator", clock, log, debounceMs: DEBOUNCE_MS, work: () => this.#tick() });
    this.#stopWatching = store.onCommit((changes) => this.#onCommit(changes));
    const age = clock.now() - clock.steady();
    for (const service of store.view.all("service")) {
      this.#history.recall(service, store.view.tasksOfService(service.id), age);
      this.#dirty.add(service.id);
    }
    for (const { serviceId } of store.view.all("task")) if (serviceId) this.#dirty.add(serviceId);
    this.#loop.mark();
  }

  close(): void {
    this.#stopWatching();
    this.#loop.close();
  }

  #onCommit(changes: Change[]): void {
    for (const change of changes) {
      if (change.kind === "service") this.#dirty.add(change.object.id);
      else if (change.kind === "task") {
        if (change.object.serviceId && this.#taskMatters(change)) this.#dirty.add(change.object.serviceId);
      } else if (
        change.kind === "node" &&
        nodeMatters(change.old, change.action === "remove" ? undefined : change.object)
      ) {
        for (const task of this.#store.view.tasksOfNode(change.object.id)) {
          if (task.serviceId) this.#dirty.add(task.serviceId);
        }
        for (const service of this.#store.view.all("service")) if (isGlobal(service)) this.#dirty.add(service.id);
      }
    }
    if (this.#dirty.size > 0) this.#loop.mark();
  }

  /**
   * Whether a change of a task may ask for another plan. Its way to RUNNING does not, unless an update waits for that:
   * a large service would be planned anew with every report of its nodes.
   */
  #taskMatters({ action, object, old }: Extract<Change, { kind: "task" }>): boolean {
    if (!this.#store.view.get("service", object.serviceId)) return object.desiredState < TaskState.REMOVE;
    if (action === "remove") return true;
    if (!old) return object.desiredState === TaskState.READY;
    if (old.desiredState !== object.desiredState) return true;
    if (old.nodeId !== object.nodeId && isInvalid(this.#store.view.get("node", object.nodeId))) return true;
    return stateOf(old) !== stateOf(object) && (isOver(object) || this.#runs.has(object.serviceId));
  }

  async #tick(): Promise<void> {
    const now = this.#clock.steady();
    for (const [id, at] of this.#wakeAt) {
      if (at > now) continue;
      this.#wakeAt.delete(id);
      this.#dirty.add(id);
    }
    for (const id of this.#dirty) this.#rest.delete(id);
    const ids = [...new Set([...this.#dirty, ...this.#rest.keys()])];
    this.#dirty.clear();
    const results = await Promise.allSettled(ids.map((id) => this.#service(id, now)));
    for (const [at, result] of results.entries()) {
      const id = ids[at];
      if (result.status === "fulfilled" || id === undefined) continue;
      this.#log.warn("a service could not be reconciled, trying again", {
        service: id,
        error: messageOf(result.reason),
      });
      this.#runs.delete(id);
      this.#rest.delete(id);
      this.#wakeAt.set(id, now + 500);
    }
    if (this.#rest.size > 0) this.#loop.mark();
    const next = Math.min(...this.#wakeAt.values());
    if (next !== Number.POSITIVE_INFINITY) this.#loop.markIn(next - this.#clock.steady());
  }

  async #service(id: string, now: number): Promise<void> {
    const service = this.#store.view.get("service", id);
    const rest = this.#rest.get(id);
    this.#rest.delete(id);
    const actions = rest && rest.service === service ? rest.actions : this.#plan(id, service, now);
    if (actions.isEmpty) return;
    let left = new Actions();
    await this.#store.update((tx) => {
      left = actions.apply(tx, id);
    });
    if (!left.isEmpty) this.#rest.set(id, { service: this.#store.view.get("service", id), actions: left });
  }

  #plan(id: string, service: Service | undefined, now: number): Actions {
    const store = this.#store.view;
    const actions = new Actions();
    const tasks: Task[] = store.tasksOfService(id);
    const since = new Map<string, number>();
    if (!service) {
      this.#history.forget(id);
      this.#runs.delete(id);
      this.#wakeAt.delete(id);
      for (const task of tasks) actions.want(task, TaskState.REMOVE);
    } else {
      const wall = this.#clock.now();
      const world: World = {
        cluster: store.get("cluster", this.#clusterId),
        node: (nodeId) => store.get("node", nodeId),
        nodes: () => store.all("node"),
        history: this.#history,
        now,
        wall,
        since: (what, stamp) => {
          const at = this.#since.get(id)?.get(what) ?? now - Math.max(0, wall - stamp);
          since.set(what, at);
          return at;
        },
      };
      const mode = service.spec?.mode.case;
      if (mode === "replicatedJob" || mode === "globalJob") planJob(service, tasks, world, actions);
      else {
        const after = planRestarts(service, tasks, world, actions);
        planReplicas(service, after, world, actions);
        planGlobal(service, after, world, actions);
        // The updater sees what is being given up as given up, and not yet what is being made.
        const made = new Set(actions.created);
        const stable = after
          .filter((task) => !made.has(task))
          .map((task) => ({ ...task, desiredState: actions.desired.get(task.id) ?? task.desiredState }));
        const run = stepUpdate(service, stable, world, this.#runs.get(id), actions);
        if (run) this.#runs.set(id, run);
        else this.#runs.delete(id);
      }
      planStarts(service, tasks, world, actions);
    }
    if (since.size > 0) this.#since.set(id, since);
    else this.#since.delete(id);
    if (actions.wakeAt !== Number.POSITIVE_INFINITY) this.#wakeAt.set(id, actions.wakeAt);
    return actions;
  }
}

/** Whether a change of a node may move tasks. That it found its way to a new leader does not. */
function nodeMatters(old: Node | undefined, node: Node | undefined): boolean {
  return isInvalid(old) !== isInvalid(node) || old?.spec !== node?.spec || old?.description !== node?.description;
}
