/**
 * One task as a container on this host.
 *
 *   prepare   networks, image, container          start     process, health, listening; discovery, known everywhere
 *   wait      exit code, or ill health            shutdown  withdrawn everywhere, connections drained; stop with grace
 *
 * Nothing is dropped on the way (`traffic.ts`).
 *
 * Every step finds out what is there already: after a restart of the daemon the same calls adopt a container that
 * went on running.
 */

import { type LogMessage, LogStream, type LogSubscriptionOptions } from "#proto/docker/swarmkit/logbroker_pb.js";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import type { ContainerSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { messageOf, SkeinError } from "../../base/errors.ts";
import type { TemplateValue } from "../../base/template.ts";
import { taskContainerName } from "../../swarm/expand.ts";
import { type Dependencies, type TaskController, TaskFailed, TaskRetry } from "../../swarm/types.ts";
import type { ContainerStatus, Containers, Events, Images, SwarmNetworkSource } from "../types.ts";
import { containerCreate, TASK_LABEL } from "./container.ts";
import { payloadFiles } from "./payload.ts";
import { type Verdict, verdict } from "./task-health.ts";
import { ensureImage } from "./task-image.ts";
import { logMessage } from "./task-io.ts";
import { admit, hostPorts, isNamed, type TrafficHost, withdraw } from "./traffic.ts";
import { orAbort } from "./wait.ts";

/** What the controller uses of the engine. */
export interface TaskHost extends TrafficHost {
  readonly containers: Containers;
  readonly images: Images;
  readonly events: Events;
  readonly networks: Pick<SwarmNetworkSource, "attachments">;
}

const DEFAULT_GRACE_SECONDS = 10;
const UNHEALTHY = "unhealthy container";

const isCode = (error: unknown, ...codes: string[]): boolean =>
  error instanceof SkeinError && codes.includes(error.code);

const exitMessage = (code: number, cause: string): string =>
  `task: non-zero exit (${code})${cause ? `: ${cause}` : ""}`;

export class ContainerController implements TaskController {
  readonly #host: TaskHost;
  readonly #dependencies: Dependencies;
  /** With templates expanded. */
  readonly #spec: ContainerSpec;
  readonly #context: TemplateValue;
  readonly #name: string;
  readonly #closed = new AbortController();
  #task: Task;
  #containerId = "";
  /** Why the container is being stopped by ourselves. */
  #cause = "";
  #last: ReturnType<TaskController["status"]>;

  constructor(host: TaskHost, task: Task, spec: ContainerSpec, context: TemplateValue, dependencies: Dependencies) {
    this.#host = host;
    this.#task = task;
    this.#spec = spec;
    this.#context = context;
    this.#dependencies = dependencies;
    this.#name = taskContainerName(task);
  }

  async update(task: Task): Promise<void> {
    this.#task = task;
  }

  async prepare(signal: AbortSignal): Promise<void> {
    const { containers, networks } = this.#host;
    if (this.#find()) return;
    const attachments = await networks.attachments(this.#task, signal);
    const files = payloadFiles(this.#task, this.#spec, this.#dependencies, this.#context);
    await ensureImage(this.#host, this.#spec, signal);
    signal.throwIfAborted();
    try {
      const { Id } = await containers.create(containerCreate(this.#task, this.#spec, { attachments, files }));
      this.#containerId = Id;
    } catch (error) {
      // Created before the daemon restarted.
      if (!(isCode(error, "conflict") && this.#find())) throw error;
    }
  }

  async start(signal: AbortSignal): Promise<void> {
    const { containers } = this.#host;
    const before = this.#state();
    if (!before) throw new TaskFailed(`No such container: ${this.#name}`);
    if (before.status === "created") {
      try {
        await containers.start(before.id);
      } catch (error) {
        throw new TaskFailed(`starting container failed: ${messageOf(error)}`, this.#state()?.exitCode || undefined);
      }
    }
    await this.#healthy(signal);
    // An end before good health is told by wait().
    if (!isNamed(this.#task) || this.#state()?.status !== "running") return;
    await admit(this.#host, this.#task, before.id, () => this.#state()?.status === "running", signal);
  }

  /** Resolves when healthy, when there is nothing to check, or when the container has ended. */
  async #healthy(signal: AbortSignal): Promise<void> {
    const health = this.#state()?.health;
    if (health === undefined || health === "healthy") return;
    if ((await this.#verdict(() => true, signal)) === "unhealthy") await this.#stopIll(signal);
  }

  #verdict(wanted: (verdict: Verdict) => boolean, signal: AbortSignal): Promise<Verdict> {
    const own = AbortSignal.any([signal, this.#closed.signal]);
    return verdict(this.#host.events, this.#containerId, () => this.#state(), wanted, own);
  }

  /** An unhealthy container is stopped; its exit then carries the reason. */
  async #stopIll(signal: AbortSignal): Promise<void> {
    this.#cause = UNHEALTHY;
    await this.shutdown(signal);
    const code = this.#state()?.exitCode ?? 0;
    throw new TaskFailed(exitMessage(code, UNHEALTHY), code);
  }

  async wait(signal: AbortSignal): Promise<void> {
    const { containers, log } = this.#host;
    const state = this.#state();
    if (!state) throw new TaskFailed(`No such container: ${this.#name}`);
    const done = new AbortController();
    const own = AbortSignal.any([signal, done.signal, this.#closed.signal]);
    const ill = this.#watchHealth(own).catch((error) => {
      if (!own.aborted) log.warn("health of a task could not be watched", { task: this.#task.id, error });
    });
    try {
      const { exit } = containers.wait(state.id, "not-running", own);
      const { StatusCode: code, Error: failure } = await orAbort(exit, signal);
      // A stop for ill health goes on until it is done, so that its reason is told.
      if (this.#cause) await ill;
      if (code !== 0 || failure) throw new TaskFailed(exitMessage(code, this.#cause || (failure?.Message ?? "")), code);
      if (this.#cause) throw new TaskFailed(exitMessage(0, this.#cause), 0);
    } finally {
      done.abort();
    }
  }

  /** Stops the container when it turns unhealthy while it runs. */
  async #watchHealth(signal: AbortSignal): Promise<void> {
    if (this.#state()?.health === undefined) return;
    if ((await this.#verdict((verdict) => verdict !== "healthy", signal)) !== "unhealthy") return;
    this.#cause = UNHEALTHY;
    await this.shutdown(this.#closed.signal);
  }

  async shutdown(signal: AbortSignal): Promise<void> {
    const { containers } = this.#host;
    const state = this.#find();
    if (!state || state.status === "created" || state.status === "exited" || state.status === "dead") return;
    const grace = this.#spec.stopGracePeriod;
    const timeout = grace ? Math.ceil(Number(grace.seconds) + grace.nanos / 1e9) : DEFAULT_GRACE_SECONDS;
    // An ill task's connections are not waited for.
    const goesOn = () => this.#look(state.id)?.status === "running" && !this.#cause;
    await withdraw(this.#host, this.#task, state.id, timeout * 1000, goesOn, signal);
    try {
      await orAbort(containers.stop(state.id, { timeout }), signal);
    } catch (error) {
      if (signal.aborted) throw error;
      // A task is over when its container is: what went wrong (a full disk) may be right at the next attempt.
      if (this.#state()?.status === "running") throw new TaskRetry(messageOf(error));
      if (!isCode(error, "notFound", "notModified")) throw error;
    }
    this.#state();
  }

  async remove(signal: AbortSignal): Promise<void> {
    const state = this.#find();
    if (!state) return;
    await this.shutdown(signal);
    this.#state();
    try {
      await this.#host.containers.remove(state.id, { force: true, volumes: true });
    } catch (error) {
      if (!isCode(error, "notFound")) throw error;
    }
  }

  async close(): Promise<void> {
    this.#closed.abort(new Error("the task's controller is closed"));
  }

  status(): ReturnType<TaskController["status"]> {
    this.#find();
    return this.#last;
  }

  async *logs(
    options: LogSubscriptionOptions,
    signal: AbortSignal,
  ): AsyncIterable<Pick<LogMessage, "timestamp" | "stream" | "data">> {
    const { containers } = this.#host;
    const both = options.streams.length === 0;
    const since = options.since ? Number(options.since.seconds) * 1000 + options.since.nanos / 1e6 : undefined;
    const own = AbortSignal.any([signal, this.#closed.signal]);
    if (options.follow) await this.#wasStarted(own);
    const state = this.#find();
    if (!state) return;
    const { entries } = containers.logs(state.id, {
      stdout: both || options.streams.includes(LogStream.STDOUT),
      stderr: both || options.streams.includes(LogStream.STDERR),
      follow: options.follow,
      ...(options.tail < 0n && { tail: Number(-options.tail - 1n) }),
      ...(since !== undefined && { since }),
      signal: own,
    });
    for await (const entry of entries) yield logMessage(entry);
  }

  /** Waits until there is a container that was started: the logs of one that was only created end at once. */
  async #wasStarted(signal: AbortSignal): Promise<void> {
    const { events } = this.#host;
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => {
      const state = this.#find();
      if (state && state.status !== "created") resolve();
    };
    const off = events.stream.on((event) => {
      if (event.type === "container" && event.attributes[TASK_LABEL] === this.#task.id) look();
    });
    try {
      look();
      await orAbort(promise, signal);
    } finally {
      off();
    }
  }

  /** The container's present state, also remembered for `status()`. */
  #state(): ContainerStatus | undefined {
    if (!this.#containerId) return this.#find();
    return this.#look(this.#containerId);
  }

  /** As `state`, looking by name where the id is not known yet. A container of another task is none of ours. */
  #find(): ContainerStatus | undefined {
    if (this.#containerId) return this.#look(this.#containerId);
    const state = this.#look(this.#name);
    if (!state || state.labels[TASK_LABEL] !== this.#task.id) return undefined;
    this.#containerId = state.id;
    return state;
  }

  #look(ref: string): ContainerStatus | undefined {
    try {
      const state = this.#host.containers.state(ref);
      if (state.labels[TASK_LABEL] === this.#task.id) {
        const runs = state.status === "running";
        const ports = runs ? hostPorts(this.#host, this.#task, state.id) : (this.#last?.ports ?? []);
        this.#last = { containerId: state.id, pid: state.pid, exitCode: state.exitCode, ports };
      }
      return state;
    } catch (error) {
      if (isCode(error, "notFound")) return undefined;
      throw error;
    }
  }
}
