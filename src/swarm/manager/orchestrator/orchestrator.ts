/**
 * Keeps services true: commits mark services, a tick plans each marked one and writes what it wants. One tick does
 * restarts, scaling, updates and delayed starts of a service together, on one view of it.
 */

import type { Node } from "#proto/docker/swarmkit/objects_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import { messageOf } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import type { Change, Store } from "../../store/store.ts";
import { Loop } from "../loop.ts";
import { isGlobal, stateOf } from "../tasks.ts";
import { Actions } from "./actions.ts";
import { planJob } from "./jobs.ts";
import { planGlobal, planReplicas, planRestarts, planStarts, type World } from "./plan.ts";
import { RestartHistory } from "./task.ts";
import { type Run, stepUpdate } from "./updater.ts";

const DEBOUNCE_MS = 5;

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

  constructor(store: Store, clusterId: string, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clusterId = clusterId;
    this.#clock = clock;
    this.#log = log;
    this.#loop = new Loop({ name: "orchestrator", clock, log, debounceMs: DEBOUNCE_MS, work: () => this.#tick() });
    this.#stopWatching = store.onCommit((changes) => this.#onCommit(changes));
    for (const { id } of store.view.all("service")) this.#dirty.add(id);
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
        const { object, old } = change;
        const told = old && stateOf(old) === stateOf(object) && old.desiredState === object.desiredState;
        if (object.serviceId && (change.action === "remove" || !told)) this.#dirty.add(object.serviceId);
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

  async #tick(): Promise<void> {
    const now = this.#clock.now();
    for (const [id, at] of this.#wakeAt) {
      if (at > now) continue;
      this.#wakeAt.delete(id);
      this.#dirty.add(id);
    }
    const ids = [...this.#dirty];
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
      this.#wakeAt.set(id, now + 500);
    }
    const next = Math.min(...this.#wakeAt.values());
    if (next !== Number.POSITIVE_INFINITY) this.#loop.markIn(next - this.#clock.now());
  }

  async #service(id: string, now: number): Promise<void> {
    const store = this.#store.view;
    const actions = new Actions();
    const service = store.get("service", id);
    const tasks = store.tasksOfService(id);
    if (!service) {
      this.#history.forget(id);
      this.#runs.delete(id);
      this.#wakeAt.delete(id);
      for (const task of tasks) actions.want(task, TaskState.REMOVE);
    } else {
      const world: World = {
        cluster: store.get("cluster", this.#clusterId),
        node: (nodeId) => store.get("node", nodeId),
        nodes: () => store.all("node"),
        history: this.#history,
        now,
      };
      const mode = service.spec?.mode.case;
      if (mode === "replicatedJob" || mode === "globalJob") planJob(service, tasks, world, actions);
      else {
        const after = planRestarts(service, tasks, world, actions);
        planReplicas(service, after, world, actions);
        planGlobal(service, after, world, actions);
        // The updater sees what is being given up as given up, and not yet what is being made.
        const made = new Set(actions.created);
        const steady = after
          .filter((task) => !made.has(task))
          .map((task) => ({ ...task, desiredState: actions.desired.get(task.id) ?? task.desiredState }));
        const run = stepUpdate(service, steady, world, this.#runs.get(id), actions);
        if (run) this.#runs.set(id, run);
        else this.#runs.delete(id);
      }
      planStarts(service, tasks, world, actions);
    }
    if (actions.wakeAt !== Number.POSITIVE_INFINITY) this.#wakeAt.set(id, actions.wakeAt);
    if (!actions.isEmpty) await this.#store.update((tx) => actions.apply(tx, id));
  }
}

/** Whether a change of a node may move tasks. Its own status reports may not. */
function nodeMatters(old: Node | undefined, node: Node | undefined): boolean {
  return (
    old?.status?.state !== node?.status?.state || old?.spec !== node?.spec || old?.description !== node?.description
  );
}
