/**
 * Tells the managers how tasks are, one call at a time: managers apply the updates of one task in the order in
 * which they arrive, so two calls under way at once could leave the older state standing.
 * Between calls only the newest status of each task is kept.
 *
 * States that a task only passes through wait a moment for the next one: a start of half a second would otherwise be
 * five reports, each with its write to the managers' disks, while the processors are wanted for the containers.
 */
import type { TaskStatus } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
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
/** Milliseconds that a state on the way may wait: the time of a usual start, and nothing to somebody who watches. */
const PASSING_MS = 250;

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
  /** When what is pending has to be told. */
  #due = Number.POSITIVE_INFINITY;
  #cancelTimer: (() => void) | undefined;
  #clock: Clock;
  #log: Logger;

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
  }

  /** Updates not yet taken by the managers. */
  get pending(): number {
    return this.#pending.size;
  }

  /** `passing`: the task is on its way and will soon have another status; whatever is told meanwhile takes it along. */
  report(taskId: string, status: TaskStatus, passing = false): void {
    // Set anew, so that the order of sending is that of the latest changes.
    this.#pending.delete(taskId);
    const { err, message } = status;
    const long = err.length > MAX_TEXT || message.length > MAX_TEXT;
    const told = long ? { ...status, err: err.slice(0, MAX_TEXT), message: message.slice(0, MAX_TEXT) } : status;
    this.#pending.set(taskId, told);
    this.#dueIn(passing ? PASSING_MS : 0);
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
    if (this.#pending.size > 0) this.#dueIn(0);
    void this.#pump();
  }

  #dueIn(ms: number): void {
    this.#due = Math.min(this.#due, this.#clock.steady() + ms);
  }

  async #pump(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    try {
      while (this.#send && this.#pending.size > 0 && this.#due <= this.#clock.steady()) await this.#round(this.#send);
    } finally {
      this.#busy = false;
    }
    if (!this.#send || this.#pending.size === 0) return;
    // By the timer, not by the time: that may be set back.
    this.#cancelTimer = this.#clock.after(Math.min(this.#due - this.#clock.steady(), PASSING_MS), () => {
      this.#due = 0;
      void this.#pump();
    });
  }

  async #round(send: SendUpdates): Promise<void> {
    this.#underWay = callful(this.#pending);
    for (const taskId of this.#underWay.keys()) this.#pending.delete(taskId);
    if (this.#pending.size === 0) this.#due = Number.POSITIVE_INFINITY;
    const updates = [...this.#underWay].map(([taskId, status]) => ({ taskId, status }));
    try {
      await send(updates);
    } catch (error) {
      this.#log.warn("task statuses were not taken; they are sent again", { count: updates.length, error });
      for (const [taskId, status] of this.#underWay) {
        if (!this.#pending.has(taskId)) this.#pending.set(taskId, status);
      }
      this.#dueIn(0);
      // Whoever failed is not asked again; its session is over and the next one connects anew.
      if (this.#send === send) this.#send = undefined;
    } finally {
      this.#underWay = new Map();
    }
  }
}
