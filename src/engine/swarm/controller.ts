/**
 * One task as a container on this host.
 *
 *   prepare   networks, image, container          start     process, health, listening; discovery, known everywhere
 *   wait      exit code, or ill health            shutdown  withdrawn everywhere, connections drained; stop with grace
 *
 * Nothing is dropped on the way: a task gets its first connection when it is ready for it, and is told to stop when
 * nobody sends it another one and those that it has are done, or have had the stop grace period for it.
 *
 * Every step finds out what is there already: after a restart of the daemon the same calls adopt a container that
 * went on running.
 */

import { create } from "@bufbuild/protobuf";
import { type LogMessage, LogStream, type LogSubscriptionOptions } from "#proto/docker/swarmkit/logbroker_pb.js";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import type { ContainerSpec } from "#proto/docker/swarmkit/specs_pb.js";
import {
  type PortConfig,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  PortConfigSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import { type Clock, sleep } from "../../base/clock.ts";
import { messageOf, SkeinError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { TemplateValue } from "../../base/template.ts";
import type { NetworkController } from "../../network/types.ts";
import { taskContainerName } from "../../swarm/expand.ts";
import { type Dependencies, type TaskController, TaskFailed, TaskRetry } from "../../swarm/types.ts";
import type { ContainerStatus, Containers, Events, Images, SwarmNetworkSource } from "../types.ts";
import { containerCreate, TASK_LABEL } from "./container.ts";
import { isPredefined } from "./network-spec.ts";
import { payloadFiles } from "./payload.ts";
import { logMessage, registryAuth } from "./task-io.ts";
import { orAbort } from "./wait.ts";

/** What the controller uses of the engine. */
export interface TaskHost {
  readonly containers: Containers;
  readonly images: Images;
  readonly events: Events;
  readonly network: Pick<NetworkController, "told" | "isListening" | "busyConnections" | "publishedPorts">;
  readonly networks: Pick<SwarmNetworkSource, "attachments">;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Published ports that nobody listens on yet keep a task out of the balancers for so long. */
const LISTEN_MS = 5_000;
/** How often connections are looked at. */
const LOOK_MS = 50;
/** A withdrawn task whose connections were quiet at so many looks in a row may stop: packets are still on their way. */
const QUIET_LOOKS = 3;

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
    await this.#image(signal);
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
    if (!this.#isNamed() || this.#state()?.status !== "running") return;
    await this.#listening(before.id, signal);
    await containers.setActivity(before.id, "active");
    if (this.#isBalanced()) await this.#told(before.id, signal);
  }

  /** Waits until the published TCP ports are listened on, but not for ever: it is not known whether they ever are. */
  async #listening(id: string, signal: AbortSignal): Promise<void> {
    const { clock, network, log } = this.#host;
    const ports = (this.#task.endpoint?.ports ?? [])
      .filter(({ protocol, targetPort }) => protocol === PortConfig_Protocol.TCP && targetPort > 0)
      .map(({ targetPort }) => targetPort);
    if (ports.length === 0) return;
    const until = clock.now() + LISTEN_MS;
    try {
      while (!network.isListening(id, ports) && clock.now() < until && this.#state()?.status === "running") {
        await sleep(clock, LOOK_MS, signal);
      }
    } catch (error) {
      if (signal.aborted) throw error;
      log.warn("cannot see whether a task listens", { error: messageOf(error) });
    }
  }

  /** Waits until other nodes act on the task's activity. */
  async #told(id: string, signal: AbortSignal): Promise<void> {
    const { network, log } = this.#host;
    try {
      const silent = await network.told(id, signal);
      if (silent.length > 0) log.warn("nodes did not say that they know of a task's change", { nodes: silent });
    } catch (error) {
      if (signal.aborted) throw error;
      log.warn("cannot tell of a task's change", { error: messageOf(error) });
    }
  }

  /** Resolves when healthy, when there is nothing to check, or when the container has ended. */
  async #healthy(signal: AbortSignal): Promise<void> {
    const health = this.#state()?.health;
    if (health === undefined || health === "healthy") return;
    const verdict = await this.#healthVerdict(signal);
    if (verdict === "unhealthy") await this.#stopIll(signal);
  }

  /** The next "healthy", "unhealthy" or end of this container. */
  async #healthVerdict(signal: AbortSignal): Promise<"healthy" | "unhealthy" | "ended"> {
    const { events } = this.#host;
    const { promise, resolve } = Promise.withResolvers<void>();
    let wake = resolve;
    let change = promise;
    const off = events.stream.on((event) => {
      if (event.type === "container" && event.id === this.#containerId) wake();
    });
    try {
      for (;;) {
        const state = this.#state();
        if (!state || (state.status !== "running" && state.status !== "paused")) return "ended";
        if (state.health === "healthy" || state.health === undefined) return "healthy";
        if (state.health === "unhealthy") return "unhealthy";
        await orAbort(change, AbortSignal.any([signal, this.#closed.signal]));
        const next = Promise.withResolvers<void>();
        wake = next.resolve;
        change = next.promise;
      }
    } finally {
      off();
    }
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
    const { events } = this.#host;
    if (this.#state()?.health === undefined) return;
    const ill = Promise.withResolvers<void>();
    const off = events.stream.on((event) => {
      if (event.type !== "container" || event.id !== this.#containerId) return;
      if (event.action.startsWith("health_status") && event.action.endsWith("unhealthy")) ill.resolve();
    });
    try {
      if (this.#state()?.health !== "unhealthy") await orAbort(ill.promise, signal);
      this.#cause = UNHEALTHY;
      await this.shutdown(AbortSignal.any([this.#closed.signal]));
    } finally {
      off();
    }
  }

  async shutdown(signal: AbortSignal): Promise<void> {
    const { containers } = this.#host;
    const state = this.#find();
    if (!state || state.status === "created" || state.status === "exited" || state.status === "dead") return;
    const grace = this.#spec.stopGracePeriod;
    const timeout = grace ? Math.ceil(Number(grace.seconds) + grace.nanos / 1e9) : DEFAULT_GRACE_SECONDS;
    if (this.#isBalanced()) await this.#drain(state.id, timeout * 1000, signal);
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

  /** Withdraws the task everywhere, then gives its connections up to `graceMs` to end. An ill task's are not waited for. */
  async #drain(id: string, graceMs: number, signal: AbortSignal): Promise<void> {
    const { containers, network, clock, log } = this.#host;
    try {
      await containers.setActivity(id, "draining");
      await this.#told(id, signal);
      const until = clock.now() + graceMs;
      for (let quiet = 0; quiet < QUIET_LOOKS && clock.now() < until && !this.#cause; ) {
        await sleep(clock, LOOK_MS, signal);
        if (this.#look(id)?.status !== "running") return;
        quiet = network.busyConnections(id) === 0 ? quiet + 1 : 0;
      }
    } catch (error) {
      if (signal.aborted) throw error;
      log.warn("a task could not be withdrawn before its end", { task: this.#task.id, error: messageOf(error) });
    }
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

  /** Present, or pulled. Where no registry answers the message is that of the missing image. */
  async #image(signal: AbortSignal): Promise<void> {
    const { images, log } = this.#host;
    const { image, pullOptions } = this.#spec;
    if (await images.has(image)) return;
    try {
      const auth = registryAuth(pullOptions?.registryAuth ?? "");
      for await (const _ of images.pull(image, { ...(auth && { auth }), signal })) signal.throwIfAborted();
    } catch (error) {
      signal.throwIfAborted();
      log.error("pulling image failed", { image, error });
      const reference = /[@:][^/]+$/.test(image) ? image : `${image}:latest`;
      throw new SkeinError("notFound", `No such image: ${reference}`, { cause: error });
    }
  }

  /** True when there is a network on which others can find this task; on the default bridge there are no names. */
  #isNamed(): boolean {
    return this.#task.networks.some(({ network }) => network && !isPredefined(network));
  }

  /** True when others may have connections to this task by way of its service. */
  #isBalanced(): boolean {
    return (
      this.#task.serviceId !== "" && this.#task.networks.some(({ network }) => network?.driverState?.name === "overlay")
    );
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
        const ports = state.status === "running" ? this.#ports(state.id) : (this.#last?.ports ?? []);
        this.#last = { containerId: state.id, pid: state.pid, exitCode: state.exitCode, ports };
      }
      return state;
    } catch (error) {
      if (isCode(error, "notFound")) return undefined;
      throw error;
    }
  }

  /** Host-mode ports that are really bound. */
  #ports(id: string): PortConfig[] {
    const wanted = (this.#task.endpoint?.ports ?? []).filter(
      (port) => port.publishMode === PortConfig_PublishMode.HOST,
    );
    if (wanted.length === 0) return [];
    const protocols = { tcp: PortConfig_Protocol.TCP, udp: PortConfig_Protocol.UDP, sctp: PortConfig_Protocol.SCTP };
    const seen = new Map<string, PortConfig>();
    for (const bound of this.#host.network.publishedPorts(id)) {
      const key = `${bound.protocol}/${bound.containerPort}/${bound.hostPort}`;
      seen.set(
        key,
        create(PortConfigSchema, {
          protocol: protocols[bound.protocol],
          targetPort: bound.containerPort,
          publishedPort: bound.hostPort,
          publishMode: PortConfig_PublishMode.HOST,
        }),
      );
    }
    return [...seen.values()];
  }
}
