/** A host of tasks in memory: containers that start, end and fall ill on command. */

import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { type Task, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeDescriptionSchema, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { Emitter } from "../../../src/base/async.ts";
import { VirtualClock } from "../../../src/base/clock.ts";
import { conflict, notFound, SkeinError } from "../../../src/base/errors.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { ContainerController, type TaskHost } from "../../../src/engine/swarm/controller.ts";
import type { ContainerCreate, ContainerStatus, EngineEvent, TaskAttachment } from "../../../src/engine/types.ts";
import type { PublishedPort } from "../../../src/network/types.ts";
import { expandContainerSpec, templateContext } from "../../../src/swarm/expand.ts";

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class FakeHost {
  readonly clock = new VirtualClock();
  readonly calls: string[] = [];
  readonly containers = new Map<string, Mutable<ContainerStatus>>();
  readonly created: ContainerCreate[] = [];
  readonly stream = new Emitter<EngineEvent>();
  attachments: TaskAttachment[] = [];
  hasImage = true;
  pullError: Error | undefined;
  startError: Error | undefined;
  /** Health of containers that start; undefined for none. */
  startHealth: ContainerStatus["health"];
  /** Why a container cannot be stopped. */
  stopError: Error | undefined;
  /** Exit code of a container that is stopped. */
  stopCode = 143;
  published: PublishedPort[] = [];
  #waiting = new Map<string, ((code: number) => void)[]>();

  find(ref: string): Mutable<ContainerStatus> {
    const found = this.containers.get(ref) ?? [...this.containers.values()].find((entry) => entry.name === ref);
    if (!found) throw notFound(`No such container: ${ref}`);
    return found;
  }

  event(id: string, action: string): void {
    const attributes = this.containers.get(id)?.labels ?? {};
    this.stream.emit({ type: "container", action, id, attributes, scope: "local", at: this.clock.now() });
  }

  exit(ref: string, code: number): void {
    const state = this.find(ref);
    state.status = "exited";
    state.exitCode = code;
    state.pid = 0;
    for (const resolve of this.#waiting.get(state.id) ?? []) resolve(code);
    this.#waiting.delete(state.id);
    this.event(state.id, "die");
  }

  health(ref: string, health: "healthy" | "unhealthy"): void {
    const state = this.find(ref);
    state.health = health;
    this.event(state.id, `health_status: ${health}`);
  }

  /** Whether its programs listen on the published ports; connections in the middle of something. */
  listening = true;
  busy = 0;

  readonly host: TaskHost = {
    clock: this.clock,
    log: nullLogger,
    events: { stream: this.stream } as TaskHost["events"],
    network: {
      publishedPorts: () => [...this.published],
      told: async () => {
        this.calls.push("told");
        return [];
      },
      isListening: () => this.listening,
      busyConnections: () => this.busy,
    },
    networks: { attachments: async () => this.attachments },
    images: {
      has: async () => this.hasImage,
      pull: async function* (this: void) {},
    } as unknown as TaskHost["images"],
    containers: {
      create: async (request: ContainerCreate) => {
        if ([...this.containers.values()].some((entry) => entry.name === request.name)) {
          throw conflict(`Conflict. The container name "/${request.name}" is already in use`);
        }
        this.calls.push(`create ${request.name}`);
        this.created.push(request);
        const id = String(this.containers.size + 1).repeat(64);
        this.containers.set(id, {
          id,
          name: request.name,
          status: "created",
          pid: 0,
          exitCode: 0,
          oomKilled: false,
          error: "",
          health: undefined,
          startedAt: "",
          finishedAt: "",
          labels: request.config.Labels,
        });
        this.event(id, "create");
        return { Id: id, Warnings: [] };
      },
      start: async (ref: string) => {
        if (this.startError) throw this.startError;
        const state = this.find(ref);
        this.calls.push("start");
        state.status = "running";
        state.pid = 42;
        state.health = this.startHealth;
        this.event(state.id, "start");
      },
      stop: async (ref: string, options: { timeout?: number }) => {
        const state = this.find(ref);
        this.calls.push(`stop ${options.timeout}`);
        if (this.stopError) throw this.stopError;
        if (state.status !== "running") throw new SkeinError("notModified", "already stopped");
        this.exit(state.id, this.stopCode);
      },
      remove: async (ref: string) => {
        const state = this.find(ref);
        this.calls.push("remove");
        this.containers.delete(state.id);
      },
      state: (ref: string) => ({ ...this.find(ref) }),
      setActivity: async (_ref: string, activity: string) => {
        this.calls.push(activity);
      },
      wait: (ref: string) => {
        const state = this.find(ref);
        if (state.status !== "running") return { exit: Promise.resolve({ StatusCode: state.exitCode }) };
        const { promise, resolve } = Promise.withResolvers<{ StatusCode: number }>();
        const waiting = this.#waiting.get(state.id) ?? [];
        waiting.push((code) => resolve({ StatusCode: code }));
        this.#waiting.set(state.id, waiting);
        return { exit: promise };
      },
      logs: () => ({
        tty: false,
        entries: (async function* () {
          yield { stream: "stderr" as const, line: Buffer.from("hi\n"), time: "2026-01-02T03:04:05.000000007Z" };
        })(),
      }),
    } as unknown as TaskHost["containers"],
  };

  controller(task: Task): ContainerController {
    const runtime = task.spec?.runtime;
    if (runtime?.case !== "container") throw new Error("no container");
    const context = templateContext(task, create(NodeDescriptionSchema, { hostname: "host-a" }));
    const none = { secret: () => undefined, config: () => undefined };
    return new ContainerController(this.host, task, expandContainerSpec(runtime.value, context), context, none);
  }
}

/** A task of service `web` on one overlay network. */
type TaskInit = Exclude<MessageInitShape<typeof TaskSchema>, { $typeName: string }>;

export function makeTask(change: TaskInit = {}): Task {
  return create(TaskSchema, {
    id: "task1",
    serviceId: "svc1",
    slot: 1n,
    nodeId: "node1",
    serviceAnnotations: { name: "web" },
    annotations: {},
    spec: { runtime: { case: "container", value: { image: "nginx" } } },
    status: { state: TaskState.ASSIGNED },
    desiredState: TaskState.RUNNING,
    networks: [
      {
        network: {
          id: "ingressid",
          spec: { annotations: { name: "ingress" }, ingress: true },
          driverState: { name: "overlay" },
          ipam: { driver: { name: "default" }, configs: [{ subnet: "10.0.0.0/24", gateway: "10.0.0.1" }] },
        },
        addresses: ["10.0.0.9/24"],
      },
      {
        network: {
          id: "netid",
          spec: { annotations: { name: "net1" } },
          driverState: { name: "overlay", options: { "com.docker.network.driver.overlay.vxlanid_list": "4097" } },
          ipam: { driver: { name: "default" }, configs: [{ subnet: "10.0.1.0/24", gateway: "10.0.1.1" }] },
        },
        addresses: ["10.0.1.5/24"],
        aliases: ["www"],
      },
    ],
    endpoint: {
      ports: [
        { protocol: 0, targetPort: 80, publishedPort: 8080, publishMode: 0 },
        { protocol: 1, targetPort: 53, publishedPort: 5353, publishMode: 1 },
      ],
      virtualIps: [
        { networkId: "netid", addr: "10.0.1.2/24" },
        { networkId: "ingressid", addr: "10.0.0.5/24" },
      ],
    },
    ...change,
  });
}
