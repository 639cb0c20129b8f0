/** Gives each PENDING task a node, or says in its status why none will do. */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import type { Logger } from "../../../base/log.ts";
import type { Change, Store } from "../../store/store.ts";
import { Loop } from "../loop.ts";
import { Pipeline } from "./filters.ts";
import { NodeSet } from "./nodes.ts";
import { type Placement, place } from "./place.ts";

/** Short: what arrives together is placed together, and a service starts at once. */
const DEBOUNCE_MS = 1;

const isWaiting = (task: Task) => task.status?.state === TaskState.PENDING && task.desiredState <= TaskState.COMPLETE;

export class Scheduler {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #loop: Loop;
  readonly #stopWatching: () => void;
  readonly #waiting = new Set<string>();
  #nodes: NodeSet;

  constructor(store: Store, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clock = clock;
    this.#log = log;
    this.#nodes = NodeSet.of(store.view);
    this.#loop = new Loop({ name: "scheduler", clock, log, debounceMs: DEBOUNCE_MS, work: () => this.#tick() });
    for (const task of store.view.all("task")) if (isWaiting(task)) this.#waiting.add(task.id);
    this.#stopWatching = store.onCommit((changes) => this.#onCommit(changes));
    this.#loop.mark();
  }

  close(): void {
    this.#stopWatching();
    this.#loop.close();
  }

  #onCommit(changes: Change[]): void {
    let room = false;
    for (const change of changes) {
      if (this.#nodes.apply(change, this.#store.view, this.#clock.steady())) room = true;
      if (change.kind !== "task") continue;
      if (change.action === "remove" || !isWaiting(change.object)) this.#waiting.delete(change.object.id);
      else if (!this.#waiting.has(change.object.id)) {
        this.#waiting.add(change.object.id);
        room = true;
      }
    }
    if (room && this.#waiting.size > 0) this.#loop.mark();
  }

  async #tick(): Promise<void> {
    const now = this.#clock.steady();
    const tasks = [...this.#waiting].flatMap((id) => this.#store.view.get("task", id) ?? []).filter(isWaiting);
    const placements: (Placement & { message: string })[] = [];
    const reasons = new Map<string, string>();
    const [preassigned, free] = split(tasks, (task) => task.nodeId !== "");
    for (const task of preassigned) {
      const info = this.#nodes.get(task.nodeId);
      // The task itself is booked on its node already: it must not stand in its own way.
      info?.remove(task.id);
      const pipeline = new Pipeline(task);
      const fits = info !== undefined && pipeline.check(info);
      info?.add(task);
      if (fits) {
        const message = "scheduler confirmed task can run on preassigned node";
        placements.push({ task, nodeId: task.nodeId, message });
      } else reasons.set(task.id, pipeline.explain());
    }
    const groups = Map.groupBy(free, (task) =>
      task.serviceId ? `${task.serviceId}@${task.specVersion?.index ?? 0n}` : task.id,
    );
    const message = "scheduler assigned task to node";
    for (const group of groups.values()) {
      const placed = place(group, this.#nodes.all(), now, (task, nodeId) => ({ ...task, nodeId }));
      placements.push(...placed.placements.map((placement) => ({ ...placement, message })));
      for (const task of placed.unplaced) reasons.set(task.id, placed.explanation);
    }
    try {
      await this.#write(placements, reasons);
    } catch (error) {
      this.#nodes = NodeSet.of(this.#store.view);
      throw error;
    }
  }

  async #write(placements: (Placement & { message: string })[], reasons: Map<string, string>): Promise<void> {
    const timestamp = timestampFromMs(this.#clock.now());
    let lost = false;
    await Promise.all([
      this.#store.batch(placements, (tx, { task: { id }, nodeId, message }) => {
        const task = tx.get("task", id);
        if (!task?.status || !isWaiting(task) || !tx.get("node", nodeId)) {
          lost = true;
          return;
        }
        const status = { ...task.status, state: TaskState.ASSIGNED, message, err: "", timestamp };
        tx.update("task", { ...task, nodeId, status });
      }),
      this.#store.batch([...reasons], (tx, [id, err]) => {
        const task = tx.get("task", id);
        if (!task?.status || !isWaiting(task) || task.status.err === err) return;
        tx.update("task", { ...task, status: { ...task.status, err, timestamp } });
      }),
    ]);
    if (placements.length > 0) this.#log.debug("placed tasks", { placed: placements.length, waiting: reasons.size });
    if (lost) {
      // A booking came to nothing: count again.
      this.#nodes = NodeSet.of(this.#store.view);
      if (this.#waiting.size > 0) this.#loop.mark();
    }
  }
}

function split<T>(items: T[], test: (item: T) => boolean): [T[], T[]] {
  const yes: T[] = [];
  const no: T[] = [];
  for (const item of items) (test(item) ? yes : no).push(item);
  return [yes, no];
}
