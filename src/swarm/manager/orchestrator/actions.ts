/** What a planner wants done with the tasks of one service, and the doing of it. */
import type { Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import type { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { Transaction } from "../../store/transaction.ts";

/** Writes per step: what is left over is for the next one. */
const MAX_WRITES = 1000;

export class Actions {
  readonly created: Task[] = [];
  readonly desired = new Map<string, TaskState>();
  /** Changes of the service itself. */
  service: ((service: Service) => Service) | undefined;
  /** When to look again although nothing happened, steady milliseconds. */
  wakeAt = Number.POSITIVE_INFINITY;

  create(task: Task): Task {
    this.created.push(task);
    return task;
  }

  want(task: Task, state: TaskState): void {
    if (task.desiredState >= state) return;
    this.desired.set(task.id, state);
  }

  wake(at: number): void {
    this.wakeAt = Math.min(this.wakeAt, at);
  }

  get isEmpty(): boolean {
    return this.created.length === 0 && this.desired.size === 0 && this.service === undefined;
  }

  /** Writes the actions, or so many of them as fit into a step; gives the others. A desired state never goes back. */
  apply(tx: Transaction, serviceId: string): Actions {
    const service = tx.get("service", serviceId);
    const left = new Actions();
    let room = MAX_WRITES;
    for (const [id, state] of this.desired) {
      if (room-- <= 0) {
        left.desired.set(id, state);
        continue;
      }
      const task = tx.get("task", id);
      if (task && task.desiredState < state) tx.update("task", { ...task, desiredState: state });
    }
    if (!service) return left;
    for (const task of this.created) {
      if (room-- > 0) tx.create("task", task);
      else left.created.push(task);
    }
    if (this.service) tx.update("service", this.service(service));
    return left;
  }
}
