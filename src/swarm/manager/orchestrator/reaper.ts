/** Forgets tasks: those that were to be removed and have ended, orphans, and old ones past the history limit. */

import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import type { Logger } from "../../../base/log.ts";
import type { Change, Store } from "../../store/store.ts";
import { TASK_HISTORY } from "../defaults.ts";
import { Loop } from "../loop.ts";
import { isOver, slotOf, stateOf } from "../tasks.ts";
import { historyLimit } from "./restarts.ts";
import { byAge } from "./task.ts";

const DEBOUNCE_MS = 100;

/** Nobody has it any more: it ended, or was never handed to a node. */
const isAtRest = (task: Task) => stateOf(task) >= TaskState.COMPLETE || stateOf(task) < TaskState.ASSIGNED;

/** True when the task is to be deleted without regard to its fellows. */
function isReapable(task: Task): boolean {
  if (stateOf(task) === TaskState.ORPHANED) return true;
  // An attachment has no service that would look at how it ended.
  if (task.serviceId === "") return isOver(task);
  return task.desiredState === TaskState.REMOVE && isAtRest(task);
}

/** Of the tasks of one slot those beyond the limit, oldest first; running ones are never among them. */
function surplusHistory(slot: readonly Task[], limit: number): Task[] {
  if (limit < 0 || slot.length <= limit) return [];
  const past = [...slot].sort(byAge).filter((task) => task.desiredState > TaskState.COMPLETE && isAtRest(task));
  return past.slice(0, slot.length - limit);
}

export class Reaper {
  readonly #store: Store;
  readonly #clusterId: string;
  readonly #loop: Loop;
  readonly #stopWatching: () => void;
  readonly #reapable = new Set<string>();
  readonly #slots = new Set<string>();

  constructor(store: Store, clusterId: string, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clusterId = clusterId;
    this.#loop = new Loop({ name: "task reaper", clock, log, debounceMs: DEBOUNCE_MS, work: () => this.#tick() });
    this.#stopWatching = store.onCommit((changes) => this.#onCommit(changes));
    for (const task of store.view.all("task")) this.#look(task);
  }

  close(): void {
    this.#stopWatching();
    this.#loop.close();
  }

  #onCommit(changes: Change[]): void {
    for (const change of changes) if (change.kind === "task" && change.action !== "remove") this.#look(change.object);
  }

  #look(task: Task): void {
    if (isReapable(task)) this.#reapable.add(task.id);
    else if (task.desiredState > TaskState.COMPLETE && task.serviceId)
      this.#slots.add(`${task.serviceId} ${slotOf(task)}`);
    else return;
    this.#loop.mark();
  }

  async #tick(): Promise<void> {
    const { view } = this.#store;
    const limit = Number(
      view.get("cluster", this.#clusterId)?.spec?.orchestration?.taskHistoryRetentionLimit ?? BigInt(TASK_HISTORY),
    );
    const doomed = new Set(this.#reapable);
    this.#reapable.clear();
    const byService = Map.groupBy([...this.#slots], (key) => key.split(" ")[0] ?? "");
    this.#slots.clear();
    for (const [serviceId, keys] of byService) {
      const slots = Map.groupBy(view.tasksOfService(serviceId), (task) => `${serviceId} ${slotOf(task)}`);
      const kept = historyLimit(view.get("service", serviceId), limit);
      for (const key of keys) for (const task of surplusHistory(slots.get(key) ?? [], kept)) doomed.add(task.id);
    }
    await this.#store.batch([...doomed], (tx, id) => {
      if (tx.get("task", id)) tx.remove("task", id);
    });
  }
}
