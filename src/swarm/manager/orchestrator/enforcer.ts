/**
 * Takes tasks off nodes that no longer meet their constraints or have room for them (labels were changed, resources
 * shrank). The orchestrator then replaces them elsewhere.
 */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Node, Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeSpec_Availability } from "#proto/docker/swarmkit/specs_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import type { Logger } from "../../../base/log.ts";
import type { Change, Store } from "../../store/store.ts";
import { Loop } from "../loop.ts";
import { constraintsOf, meets } from "../scheduler/constraints.ts";
import { isLost, isOnNode, isWanted } from "../tasks.ts";
import { byAge } from "./task.ts";

const DEBOUNCE_MS = 100;

/**
 * Tasks of a node that may not stay on it. Pure. What counts is their service's present placement: a task that fits a new
 * one keeps the spec it was made by.
 */
export function misplaced(node: Node, tasks: readonly Task[], service: (id: string) => Service | undefined): Task[] {
  if (isLost(node) || node.spec?.availability === NodeSpec_Availability.DRAIN) return [];
  const has = node.description?.resources;
  let cpus = has?.nanoCpus ?? 0n;
  let memory = has?.memoryBytes ?? 0n;
  const result: Task[] = [];
  for (const task of [...tasks].sort(byAge)) {
    if (!isOnNode(task) || !isWanted(task) || task.spec?.runtime.case === "attachment") continue;
    const wants = task.spec?.resources?.reservations;
    const fits = !has || !wants || (wants.nanoCpus <= cpus && wants.memoryBytes <= memory);
    if (!fits || !meets(node, constraintsOf(service(task.serviceId)?.spec?.task ?? task.spec) ?? [])) {
      result.push(task);
      continue;
    }
    cpus -= wants?.nanoCpus ?? 0n;
    memory -= wants?.memoryBytes ?? 0n;
  }
  return result;
}

export class Enforcer {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #loop: Loop;
  readonly #stopWatching: () => void;
  readonly #dirty = new Set<string>();

  constructor(store: Store, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clock = clock;
    this.#loop = new Loop({
      name: "constraint enforcer",
      clock,
      log,
      debounceMs: DEBOUNCE_MS,
      work: () => this.#tick(),
    });
    this.#stopWatching = store.onCommit((changes) => this.#onCommit(changes));
    for (const { id } of store.view.all("node")) this.#dirty.add(id);
    this.#loop.mark();
  }

  close(): void {
    this.#stopWatching();
    this.#loop.close();
  }

  #onCommit(changes: Change[]): void {
    for (const { kind, action, object, old } of changes) {
      if (kind !== "node" || action !== "update") continue;
      if (object.spec === old?.spec && object.description === old?.description && object.role === old?.role) continue;
      this.#dirty.add(object.id);
      this.#loop.mark();
    }
  }

  async #tick(): Promise<void> {
    const { view } = this.#store;
    const tasks = [...this.#dirty].flatMap((id) => {
      const node = view.get("node", id);
      return node ? misplaced(node, view.tasksOfNode(id), (service) => view.get("service", service)) : [];
    });
    this.#dirty.clear();
    await this.#store.batch(tasks, (tx, { id }) => {
      const task = tx.get("task", id);
      if (!task?.status || !isOnNode(task)) return;
      const status = {
        ...task.status,
        state: TaskState.REJECTED,
        message: "task rejected by constraint enforcer",
        err: "assigned node no longer meets constraints",
        timestamp: timestampFromMs(this.#clock.now()),
      };
      tx.update("task", { ...task, status });
    });
  }
}
