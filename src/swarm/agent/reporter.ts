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

/** Bytes of one call, about; managers take a megabyte from a worker, Docker's four. */
const CALL_BYTES = 256 << 10;
/** Of an update without its texts. */
const UPDATE_BYTES = 512;
/** Characters of a text that are told: an error may quote a whole page of a registry's. */
const MAX_TEXT = 4096;

/** The first of these updates that fit into one call, at least one. */
function callful(pending: ReadonlyMap<string, TaskStatus>): Map<string, TaskStatus> {
  const taken = new Map<string, TaskStatus>();
  let bytes = 0;
  for (const [taskId, status] of pending) {
    bytes += UPDATE_BYTES + 2 * (status.err.length + status.message.length);
    if (taken.size > 0 && bytes > CALL_BYTES) break;
    taken.set(taskId, status);
  }
  return taken;
}

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
    const { err, message } = status;
    const long = err.length > MAX_TEXT || message.length > MAX_TEXT;
    const told = long ? { ...status, err: err.slice(0, MAX_TEXT), message: message.slice(0, MAX_TEXT) } : status;
    this.#pending.set(taskId, told);
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
    this.#underWay = callful(this.#pending);
    for (const taskId of this.#underWay.keys()) this.#pending.delete(taskId);
    const updates = [...this.#underWay].map(([taskId, status]) => ({ taskId, status }));
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
