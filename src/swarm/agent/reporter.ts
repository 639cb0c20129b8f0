/**
 * Tells the managers how tasks are, one call at a time: managers apply the updates of one task in the order in
 * which they arrive, so two calls under way at once could leave the older state standing.
 * Between calls only the newest status of each task is kept.
 */
import type { TaskStatus } from "#proto/docker/swarmkit/types_pb.js";
import type { Logger } from "../../base/log.ts";

export interface StatusUpdate {
  readonly taskId: string;
  readonly status: TaskStatus;
}

/** Sends updates to the managers; rejects when they did not take them. */
export type SendUpdates = (updates: StatusUpdate[]) => Promise<void>;

export class Reporter {
  #pending = new Map<string, TaskStatus>();
  /** What the call under way carries; goes back to `#pending` when it fails. */
  #underWay = new Map<string, TaskStatus>();
  #send: SendUpdates | undefined;
  #busy = false;
  #log: Logger;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Updates not yet taken by the managers. */
  get pending(): number {
    return this.#pending.size;
  }

  report(taskId: string, status: TaskStatus): void {
    // Set anew, so that the order of sending is that of the latest changes.
    this.#pending.delete(taskId);
    this.#pending.set(taskId, status);
    void this.#pump();
  }

  /** The task is gone: nobody wants to hear of it any more. */
  forget(taskId: string): void {
    this.#pending.delete(taskId);
    this.#underWay.delete(taskId);
  }

  /** A session is there, or (undefined) has gone; what is not yet told waits for the next. */
  connect(send: SendUpdates | undefined): void {
    this.#send = send;
    void this.#pump();
  }

  async #pump(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      while (this.#send && this.#pending.size > 0) await this.#round(this.#send);
    } finally {
      this.#busy = false;
    }
  }

  async #round(send: SendUpdates): Promise<void> {
    const updates = [...this.#pending].map(([taskId, status]) => ({ taskId, status }));
    this.#underWay = this.#pending;
    this.#pending = new Map();
    try {
      await send(updates);
    } catch (error) {
      this.#log.warn("task statuses were not taken; they are sent again", { count: updates.length, error });
      for (const [taskId, status] of this.#underWay) {
        if (!this.#pending.has(taskId)) this.#pending.set(taskId, status);
      }
      // Whoever failed is not asked again; its session is over and the next one connects anew.
      if (this.#send === send) this.#send = undefined;
    } finally {
      this.#underWay = new Map();
    }
  }
}
