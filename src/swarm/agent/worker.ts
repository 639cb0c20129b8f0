/**
 * The tasks of this node: takes assignments, keeps one runner per task, remembers them on disk, removes what is
 * no longer assigned.
 */
import { clone } from "@bufbuild/protobuf";
import type { AssignmentsMessage } from "#proto/docker/swarmkit/dispatcher_pb.js";
import { type Task, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import type { TaskStatus } from "#proto/docker/swarmkit/types_pb.js";
import { deferred, Emitter, Mutex } from "../../base/async.ts";
import { type Clock, sleep } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Executor, TaskController } from "../types.ts";
import { changesOf } from "./assignments.ts";
import type { Attachments } from "./attachments.ts";
import { DependencyStore } from "./dependencies.ts";
import type { TaskDb } from "./task-db.ts";
import { TaskRunner } from "./task-runner.ts";
import { isPassing, rejected } from "./transitions.ts";

/** What a task left on this host is tried again to remove after this long, doubling. */
const removeRetryMs = { first: 1_000, max: 60_000 };

export interface WorkerOptions {
  readonly executor: Executor;
  readonly attachments: Attachments;
  readonly db: TaskDb;
  readonly clock: Clock;
  readonly log: Logger;
  /** A task's status changed; `passing`: it will soon change again. */
  report(taskId: string, status: TaskStatus, passing: boolean): void;
  /** A task is no longer assigned. */
  forget(taskId: string): void;
}

/** A task without a runner is one that no controller could be made for. */
interface Entry {
  task: Task;
  runner?: TaskRunner;
}

export class Worker {
  /** Tasks newly driven by this worker. */
  readonly started = new Emitter<TaskRunner>();
  #options: WorkerOptions;
  #entries = new Map<string, Entry>();
  #removals = new Map<string, Promise<void>>();
  #dependencies = new DependencyStore();
  /** Resolves with the first complete set: from then on a missing secret is missing. */
  #synced = deferred<void>();
  #mutex = new Mutex();
  #closing = new AbortController();

  constructor(options: WorkerOptions) {
    this.#options = options;
  }

  /** Goes on with the tasks of the last run of this agent. */
  restore(): Promise<void> {
    return this.#mutex.run(async () => {
      const stored = this.#options.db.load();
      await this.#options.executor.keepOnly?.(new Set(stored.map(({ task }) => task.id)));
      await Promise.all(
        stored.map(async ({ task, removing }) => {
          await this.#start(task, true);
          if (removing) this.#remove(task.id);
        }),
      );
    });
  }

  /** Applies a message of assignments; resolves when its tasks have their runners. */
  apply(message: AssignmentsMessage): Promise<void> {
    return this.#mutex.run(async () => {
      if (this.#closing.signal.aborted) return;
      const { complete, secrets, configs, tasks, volumes } = changesOf(message);
      const dependencies = this.#dependencies;
      if (complete) dependencies.reset();
      for (const secret of secrets.put) dependencies.putSecret(secret);
      for (const id of secrets.remove) dependencies.removeSecret(id);
      for (const config of configs.put) dependencies.putConfig(config);
      for (const id of configs.remove) dependencies.removeConfig(id);
      if (complete) this.#synced.resolve();
      if (volumes.length > 0) this.#options.log.warn("cluster volumes are not supported", { volumes });

      const listed = new Set(tasks.put.map((task) => task.id));
      const gone = complete ? [...this.#entries.keys()].filter((id) => !listed.has(id)) : tasks.remove;
      for (const id of gone) this.#remove(id);
      await Promise.all(tasks.put.map((task) => this.#put(task)));
    });
  }

  /** Every task assigned here, with this worker's own view of its status. */
  tasks(): Task[] {
    return [...this.#entries.values()].map((entry) => entry.runner?.task ?? entry.task);
  }

  runners(): TaskRunner[] {
    return [...this.#entries.values()].flatMap((entry) => entry.runner ?? []);
  }

  /** Stops driving; the tasks themselves go on. */
  async close(): Promise<void> {
    this.#closing.abort(new Error("the agent stops"));
    await this.#mutex.run(() => Promise.all(this.runners().map((runner) => runner.stop())));
    await Promise.all(this.#removals.values());
    await Promise.all(this.runners().map((runner) => runner.controller.close().catch(() => {})));
  }

  /** Shuts down and removes every task; for a node that leaves the swarm. */
  async removeAll(): Promise<void> {
    await this.#mutex.run(async () => {
      for (const id of [...this.#entries.keys()]) this.#remove(id);
    });
    await Promise.all(this.#removals.values());
  }

  async #put(task: Task): Promise<void> {
    const entry = this.#entries.get(task.id);
    if (entry?.runner) {
      entry.runner.update(task);
      this.#keep(entry.runner.task);
    } else if (!entry) {
      await this.#start(task);
    }
  }

  /** Remembers a task. A full disk must not keep the managers from hearing of it, nor other tasks from what they need. */
  #keep(task: Task, removing = false): void {
    try {
      this.#options.db.put(task, removing);
    } catch (error) {
      this.#options.log.warn("a task's state is not on disk", { task: task.id, error });
    }
  }

  /** `known`: of this host's last run; its record is there. */
  async #start(task: Task, known = false): Promise<void> {
    const { db, log, report } = this.#options;
    await this.#removals.get(task.id);
    const entry: Entry = { task };
    this.#entries.set(task.id, entry);
    let controller: TaskController;
    try {
      // What this host could not find again after a crash it does not begin: another one may have room.
      if (!known) db.put(task);
      controller = await this.#controller(task);
    } catch (error) {
      log.error("no controller for a task", { task: task.id, error });
      entry.task = withStatus(task, (status) => rejected(status, messageOf(error), this.#options.clock.now()));
      this.#keep(entry.task);
      if (entry.task.status) report(task.id, entry.task.status, false);
      return;
    }
    entry.runner = new TaskRunner({
      task,
      controller,
      clock: this.#options.clock,
      log,
      report: (changed) => {
        // A last word of a task that is being removed must not bring its record back.
        if (this.#entries.get(changed.id) !== entry) return;
        this.#keep(changed);
        if (changed.status) report(changed.id, changed.status, isPassing(changed.status, changed.desiredState));
      },
      dependenciesKnown: (signal) => this.#dependenciesKnown(task, signal),
    });
    this.started.emit(entry.runner);
  }

  #controller(task: Task): Promise<TaskController> {
    if (task.spec?.runtime.case === "attachment") return Promise.resolve(this.#options.attachments.controller(task));
    return this.#options.executor.controller(task, this.#dependencies.of(task));
  }

  async #dependenciesKnown(task: Task, signal: AbortSignal): Promise<void> {
    if (this.#dependencies.satisfies(task)) return;
    const aborted = deferred<never>();
    const onAbort = () => aborted.reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      await Promise.race([this.#synced.promise, aborted.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  #remove(id: string): void {
    const entry = this.#entries.get(id);
    if (!entry) return;
    this.#entries.delete(id);
    this.#options.forget(id);
    const { runner } = entry;
    if (!runner) {
      this.#options.db.delete(id);
      return;
    }
    this.#keep(runner.task, true);
    const removal = this.#removeFully(runner).finally(() => this.#removals.delete(id));
    this.#removals.set(id, removal);
  }

  /** Tries until it is done: what is left behind would hold addresses, ports and disk. */
  async #removeFully(runner: TaskRunner): Promise<void> {
    const { clock, db, log } = this.#options;
    const { signal } = this.#closing;
    let wait = removeRetryMs.first;
    while (!signal.aborted) {
      try {
        await runner.remove(signal);
        db.delete(runner.task.id);
        return;
      } catch (error) {
        if (signal.aborted) return;
        log.warn("removing a task failed; it is tried again", { task: runner.task.id, error });
      }
      await sleep(clock, wait, signal).catch(() => {});
      wait = Math.min(2 * wait, removeRetryMs.max);
    }
  }
}

function withStatus(task: Task, change: (status: TaskStatus) => TaskStatus): Task {
  const next = clone(TaskSchema, task);
  if (next.status) next.status = change(next.status);
  return next;
}
