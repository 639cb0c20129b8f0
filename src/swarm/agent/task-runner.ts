/**
 * Drives one task: one controller call after another as the table of transitions says, until the task rests.
 * A change of the task cuts a call short only when it has to: when the new task asks for another step, or
 * when the call waits for an end that may be far away.
 */
import { create, equals, toBinary } from "@bufbuild/protobuf";
import { type Task, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { type TaskStatus, TaskStatusSchema } from "#proto/docker/swarmkit/types_pb.js";
import { type Deferred, deferred } from "../../base/async.ts";
import { type Clock, sleep } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type TaskController, TaskFailed, TaskRetry } from "../types.ts";
import { isTerminal, nextStep, type Outcome, type Step, settle } from "./transitions.ts";

/** A temporary trouble is tried again after this long. */
const retryMs = 1000;

export interface TaskRunnerOptions {
  readonly task: Task;
  readonly controller: TaskController;
  readonly clock: Clock;
  readonly log: Logger;
  /** Called with each new status, before the next step begins. */
  report(task: Task): void;
  /** Resolves when the secrets and configs of the task are known; asked before `prepare` and `start`. */
  dependenciesKnown(signal: AbortSignal): Promise<void>;
}

export class TaskRunner {
  readonly controller: TaskController;
  #options: TaskRunnerOptions;
  #task: Task;
  #changed: Deferred<void> = deferred();
  /** The controller has not yet been told of the task as it is now. */
  #stale = false;
  #running: { step: Step; abort: AbortController } | undefined;
  #closing = new AbortController();
  #loop: Promise<void>;

  constructor(options: TaskRunnerOptions) {
    this.#options = options;
    this.controller = options.controller;
    this.#task = options.task;
    this.#loop = this.#run();
  }

  /** The task with this worker's own view of its status. */
  get task(): Task {
    return this.#task;
  }

  /** A new version of the task from the managers; ours stays the truth about its status. */
  update(task: Task): void {
    const mine = this.#task;
    if (task.desiredState < mine.desiredState) {
      this.#options.log.error("a task update that lowers the desired state is ignored", {
        task: task.id,
        from: mine.desiredState,
        to: task.desiredState,
      });
      return;
    }
    const next: Task = { ...task, status: status(mine) };
    if (sameTask(next, mine)) return;
    this.#task = next;
    this.#stale = true;
    this.#changed.resolve();
    const running = this.#running;
    if (!running) return;
    const wanted = nextStep(status(next).state, next.desiredState);
    if (running.step.kind !== "call" || running.step.call === "shutdown") return;
    if (running.step.call === "wait" || wanted.kind !== "call" || wanted.call !== running.step.call) {
      running.abort.abort(new Error("the task changed"));
    }
  }

  /** Stops driving the task, which goes on as it is: for the end of the agent. */
  async stop(): Promise<void> {
    this.#closing.abort(new Error("the agent stops"));
    this.#changed.resolve();
    await this.#loop;
  }

  /** The task is no longer assigned: stops it, removes what it left and closes the controller. Throws on failure. */
  async remove(signal: AbortSignal): Promise<void> {
    await this.stop();
    if (!isTerminal(status(this.#task).state)) await this.controller.shutdown(signal);
    await this.controller.remove(signal);
    await this.controller.close();
  }

  async #run(): Promise<void> {
    const { log } = this.#options;
    // Let the constructor finish, so that a report sees a whole runner.
    await Promise.resolve();
    while (!this.#closing.signal.aborted) {
      try {
        await this.#tick();
      } catch (error) {
        log.error("driving a task failed", { task: this.#task.id, error });
        await this.#pause(retryMs);
      }
    }
  }

  async #tick(): Promise<void> {
    this.#changed = deferred();
    if (this.#stale) {
      this.#stale = false;
      await this.controller.update(this.#task);
    }
    const task = this.#task;
    const step = nextStep(status(task).state, task.desiredState);
    if (step.kind === "rest") {
      // A change may have come while the controller was being told of the last one.
      if (!this.#stale && !this.#closing.signal.aborted) await this.#changed.promise;
      return;
    }
    const outcome: Outcome = step.kind === "advance" ? { kind: "done" } : await this.#call(step);
    this.#settle(step, outcome);
    if (outcome.kind === "retry") await this.#pause(retryMs);
  }

  #settle(step: Step, outcome: Outcome): void {
    const { clock, log, report } = this.#options;
    const before = status(this.#task);
    const after = settle(before, step, outcome, { nowMs: clock.now(), runtime: this.controller.status() });
    if (after === before) return;
    const next: Task = { ...this.#task, status: after };
    this.#task = next;
    log.debug("task state changed", { task: next.id, from: before.state, to: after.state, err: after.err });
    report(next);
  }

  async #call(step: Step & { kind: "call" }): Promise<Outcome> {
    const abort = new AbortController();
    const signal = AbortSignal.any([abort.signal, this.#closing.signal]);
    this.#running = { step, abort };
    try {
      if (step.call === "prepare" || step.call === "start") await this.#options.dependenciesKnown(signal);
      await this.controller[step.call](signal);
      return { kind: "done" };
    } catch (error) {
      if (error instanceof TaskRetry) return { kind: "retry", error: error.message };
      if (error instanceof TaskFailed) return { kind: "failed", error: error.message, exitCode: error.exitCode };
      if (signal.aborted) return { kind: "cancelled" };
      return { kind: "failed", error: messageOf(error) };
    } finally {
      this.#running = undefined;
    }
  }

  /** Waits, but not longer than until the task changes. */
  async #pause(ms: number): Promise<void> {
    const woken = new AbortController();
    const waiting = sleep(this.#options.clock, ms, AbortSignal.any([woken.signal, this.#closing.signal]));
    await Promise.race([waiting.catch(() => {}), this.#changed.promise]);
    woken.abort();
  }
}

function status(task: Task): TaskStatus {
  return task.status ?? create(TaskStatusSchema);
}

/** Compares bytes first: that is many times faster, and after a change of leader every task comes again. */
function sameTask(a: Task, b: Task): boolean {
  const [one, other] = [stable(a), stable(b)];
  if (Buffer.compare(toBinary(TaskSchema, one), toBinary(TaskSchema, other)) === 0) return true;
  return equals(TaskSchema, one, other);
}

/** A task without what says nothing to its controller: version and times of the record. */
function stable(task: Task): Task {
  return { ...task, meta: undefined, status: undefined };
}
