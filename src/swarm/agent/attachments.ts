/**
 * Containers outside services on attachable networks. The managers answer a request for an address with a task
 * of this node ("attachment task"): its assignment carries the address, its removal gives it back. There is
 * nothing to run: the task only stands for the container that the engine connects by itself.
 */
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { type Deferred, deferred } from "../../base/async.ts";
import type { TaskController } from "../types.ts";

export class Attachments {
  #assigned = new Map<string, Task>();
  #waiting = new Map<string, Deferred<Task>>();
  /** Resolved when the container is done with its address. */
  #detached = new Map<string, Deferred<void>>();

  /** Resolves with the task once it is assigned here with its addresses. */
  async wait(id: string, signal: AbortSignal): Promise<Task> {
    const assigned = this.#assigned.get(id);
    if (assigned) return assigned;
    signal.throwIfAborted();
    const waiter = deferred<Task>();
    this.#waiting.set(id, waiter);
    const onAbort = () => waiter.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await waiter.promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#waiting.delete(id);
    }
  }

  /** The container is done with its address: its task is complete, and stays so until the managers remove it. */
  detached(id: string): void {
    this.#end(id).resolve();
  }

  #end(id: string): Deferred<void> {
    const end = this.#detached.get(id) ?? deferred<void>();
    this.#detached.set(id, end);
    return end;
  }

  /** The runtime of attachment tasks. */
  controller(task: Task): TaskController {
    let current = task;
    const gone = async () => {
      this.#assigned.delete(task.id);
      this.#waiting.get(task.id)?.reject(new Error("the attachment was removed by the managers"));
    };
    const forget = () => this.#detached.delete(task.id);
    return {
      async update(changed) {
        current = changed;
      },
      async prepare() {},
      start: async () => {
        this.#assigned.set(task.id, current);
        this.#waiting.get(task.id)?.resolve(current);
      },
      wait: (signal) =>
        new Promise((resolve, reject) => {
          if (signal.aborted) reject(signal.reason);
          signal.addEventListener("abort", () => reject(signal.reason), { once: true });
          void this.#end(task.id).promise.then(resolve);
        }),
      shutdown: gone,
      async remove() {
        await gone();
        forget();
      },
      async close() {},
      status: () => undefined,
      async *logs() {},
    };
  }
}
