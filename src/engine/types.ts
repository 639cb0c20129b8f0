/**
 * The door of the engine room: one host put together. The API translates HTTP into these calls; the swarm executor
 * (src/engine/swarm/) uses the same calls for its tasks. What is answered to clients is Docker's JSON, made here.
 * `ref` is a name, a full id or an unambiguous id prefix; unknown ones throw Docker's "No such …".
 */
import type { Readable, Writable } from "node:stream";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import type { Emitter } from "../base/async.ts";
import type { EndpointRequest, NetworkController, NetworkSpec } from "../network/types.ts";
import type { ImageConfig, OutputChunk, Progress, RegistryAuth, Runtime } from "../runtime/types.ts";
import type { SwarmNode } from "../swarm/types.ts";
import type {
  ContainerConfig,
  ExecConfig,
  HostConfig,
  NetworkCreate,
  NetworkingConfig,
  VolumeCreate,
} from "./shapes.ts";
import type { Views } from "./view/types.ts";

export type Filters = ReadonlyMap<string, readonly string[]>;
/** A JSON object for clients, in Docker's shape. */
export type Json = Record<string, unknown>;

/** `docker events`. `time` is derived when it is sent. */
export interface EngineEvent {
  readonly type: "container" | "image" | "network" | "volume" | "daemon" | "service" | "node" | "secret" | "config";
  readonly action: string;
  readonly id: string;
  readonly attributes: Readonly<Record<string, string>>;
  readonly scope: "local" | "swarm";
  /** Milliseconds since the epoch. */
  readonly at: number;
}

export interface Engine extends AsyncDisposable {
  readonly runtime: Runtime;
  readonly network: NetworkController;
  readonly containers: Containers;
  readonly images: Images;
  readonly volumes: Volumes;
  readonly networks: Networks;
  readonly system: System;
  readonly events: Events;
  /** What people can see of the inside. */
  readonly views: Views;
  /** This host's part in a swarm; undefined until `connectSwarm`. */
  readonly swarm: SwarmNode | undefined;
  /** Gives the engine its swarm node and the networks that come with it. Called once, before the API is served. */
  connectSwarm(node: SwarmNode, networks: SwarmNetworkSource): void;
}

export interface Events {
  readonly stream: Emitter<EngineEvent>;
  emit(event: Omit<EngineEvent, "at" | "scope"> & { scope?: EngineEvent["scope"] }): void;
  /** Docker's documents, past (bounded history) and future, until `until` or abort. */
  watch(options: { since?: string; until?: string; filters: Filters; signal: AbortSignal }): AsyncIterable<Json>;
}

/** A network of the swarm as its managers (or this node's tasks) know it. */
export interface SwarmNetworkView {
  readonly spec: NetworkSpec;
  /** Docker's date of creation is in `spec`; this is the raw object's version. */
  readonly version?: bigint;
}

/** Overlay networks come from the managers. Implemented in src/engine/swarm/. */
export interface SwarmNetworkSource {
  /** All networks of the swarm on a manager; those this node has used on a worker; none outside a swarm. */
  list(): SwarmNetworkView[];
  /** A network of the swarm that lists leave out (bridge and host, which services may name), by id or name. */
  predefined(ref: string): SwarmNetworkView | undefined;
  /** `network create` of a swarm-scoped driver. Gives the id. Throws Docker's message on a worker. */
  create(request: NetworkCreate): Promise<string>;
  remove(id: string): Promise<void>;
  /** The endpoints that an assigned task is to have here, addresses decided, networks created on this node. */
  attachments(task: Task, signal?: AbortSignal): Promise<TaskAttachment[]>;
}

/** One network of a task, ready to connect to. */
export interface TaskAttachment {
  readonly network: NetworkSpec;
  /** The load balancer address (CIDR) of this node on it, where it is known. */
  readonly lbAddress?: string;
  readonly request: Omit<EndpointRequest, "networkId">;
}

/** What a swarm task's container has beyond `docker run`. */
export interface TaskExtras {
  /** Connected in this order instead of HostConfig's networks. May be empty. */
  readonly attachments: TaskAttachment[];
  /** Secrets and configs: written under a tmpfs, bound read-only at `target`. */
  readonly files: { target: string; data: Uint8Array; uid: number; gid: number; mode: number }[];
}

export interface ContainerCreate {
  /** "" chooses a random name. */
  readonly name: string;
  readonly platform?: string;
  readonly config: ContainerConfig;
  readonly hostConfig: HostConfig;
  readonly networking: NetworkingConfig;
  readonly task?: TaskExtras;
  /** Read-only mounts leave what is mounted below them writable, as clients before API 1.44 expect it. */
  readonly flatReadOnly?: boolean;
}

export interface LogOptions {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  /** Number of last lines, undefined for all. */
  readonly tail?: number;
  /** Milliseconds since the epoch; fractions count. */
  readonly since?: number;
  readonly until?: number;
  readonly signal: AbortSignal;
}

/** One line (with its newline) as it was logged. `time` is RFC 3339 with nanoseconds. */
export interface LogEntry {
  readonly stream: "stdout" | "stderr";
  readonly line: Buffer;
  readonly time: string;
}

/** Where attach and exec read from and write to. */
export interface AttachIo {
  readonly input: Readable;
  write(chunk: Pick<OutputChunk, "stream" | "data">): Promise<void>;
  readonly signal: AbortSignal;
}

/** A session that is ready to begin: refusals have been thrown by now, so that the connection may leave HTTP. */
export interface AttachSession {
  readonly tty: boolean;
  /** Resolves when the process is done, the client detached or went away. */
  run(io: AttachIo): Promise<void>;
}

export interface AttachOptions {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Replay the log first. */
  readonly logs: boolean;
  /** Go on with live output. */
  readonly stream: boolean;
  /** "" for ctrl-p,ctrl-q. */
  readonly detachKeys: string;
}

export type WaitCondition = "not-running" | "next-exit" | "removed";

export interface Containers {
  create(request: ContainerCreate): Promise<{ Id: string; Warnings: string[] }>;
  start(ref: string): Promise<void>;
  /** `timeout` in seconds: -1 waits for ever, undefined takes the container's own. Throws notModified when stopped. */
  stop(ref: string, options?: { timeout?: number; signal?: string }): Promise<void>;
  restart(ref: string, options?: { timeout?: number; signal?: string }): Promise<void>;
  kill(ref: string, signal?: string): Promise<void>;
  pause(ref: string): Promise<void>;
  unpause(ref: string): Promise<void>;
  rename(ref: string, name: string): Promise<void>;
  remove(ref: string, options: { force: boolean; volumes: boolean; link?: boolean }): Promise<void>;
  /** Throws at once for unknown containers; `exit` resolves when the condition is met. */
  wait(
    ref: string,
    condition: WaitCondition,
    signal?: AbortSignal,
  ): { exit: Promise<{ StatusCode: number; Error?: { Message: string } }> };
  update(ref: string, change: Partial<HostConfig>): Promise<{ Warnings: string[] }>;
  prune(filters: Filters): Promise<{ ContainersDeleted: string[] | null; SpaceReclaimed: number }>;

  /** The full id. */
  resolve(ref: string): string;
  /** Docker's inspect document. */
  inspect(ref: string, options?: { size?: boolean; version?: string }): Promise<Json>;
  list(options: { all: boolean; limit?: number; size: boolean; filters: Filters; version?: string }): Promise<Json[]>;
  /** What the executor watches, without the cost of a document. */
  state(ref: string): ContainerStatus;

  logs(
    ref: string,
    options: LogOptions,
  ): { tty: boolean; entries: AsyncIterable<LogEntry>; attributes: Readonly<Record<string, string>> };
  attach(ref: string, options: AttachOptions): AttachSession;
  resize(ref: string, width: number, height: number): Promise<void>;
  top(ref: string, psArgs: string): Promise<{ Titles: string[]; Processes: string[][] }>;
  /** One document when not streaming; the first of a stream has empty precpu figures. */
  stats(ref: string, options: { stream: boolean; oneShot: boolean; signal: AbortSignal }): AsyncIterable<Json>;

  execCreate(ref: string, config: ExecConfig): Promise<{ Id: string }>;
  execStart(
    id: string,
    options: { detach: boolean; tty: boolean; consoleSize?: number[]; detachKeys?: string },
  ): Promise<AttachSession>;
  execInspect(id: string): Json;
  execResize(id: string, width: number, height: number): Promise<void>;

  export(ref: string): Promise<Readable>;
  changes(ref: string): Promise<{ Kind: number; Path: string }[]>;
  archiveStat(ref: string, path: string): Promise<Json>;
  archiveGet(ref: string, path: string): Promise<{ stat: Json; body: Readable }>;
  archivePut(
    ref: string,
    path: string,
    tar: Readable,
    options: { noOverwriteDirNonDir: boolean; copyUidGid: boolean },
  ): Promise<void>;

  connect(ref: string, networkRef: string, settings: import("./shapes.ts").EndpointSettings): Promise<void>;
  disconnect(ref: string, networkRef: string, force: boolean): Promise<void>;
  /** Discovery of a task's container: see NetworkController.setActivity. */
  setActivity(ref: string, activity: "active" | "draining" | "inactive"): Promise<void>;
}

export interface ContainerStatus {
  readonly id: string;
  readonly name: string;
  readonly status: "created" | "running" | "paused" | "restarting" | "exited" | "removing" | "dead";
  readonly pid: number;
  readonly exitCode: number;
  readonly oomKilled: boolean;
  readonly error: string;
  /** Undefined where there is no health check. */
  readonly health: "starting" | "healthy" | "unhealthy" | undefined;
  readonly startedAt: string;
  readonly finishedAt: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface Images {
  list(options: { all: boolean; digests: boolean; filters: Filters; version?: string }): Promise<Json[]>;
  inspect(ref: string): Promise<Json>;
  history(ref: string): Promise<Json[]>;
  /** Progress documents; the last error is thrown. */
  pull(
    reference: string,
    options: { auth?: RegistryAuth; platform?: string; signal?: AbortSignal },
  ): AsyncIterable<Progress>;
  push(request: import("./images/push.ts").PushRequest): AsyncIterable<Json>;
  commit(request: import("./images/commit.ts").CommitRequest): Promise<{ Id: string }>;
  login(auth: RegistryAuth, signal?: AbortSignal): Promise<void>;
  load(archive: Readable, quiet: boolean): AsyncIterable<Json>;
  importTar(
    tar: Readable,
    options: { reference?: string; config?: ImageConfig; comment?: string; changes: string[]; platform?: string },
  ): AsyncIterable<Json>;
  save(references: string[], out: Writable): Promise<void>;
  tag(ref: string, repo: string, tag: string): Promise<void>;
  remove(ref: string, options: { force: boolean; prune: boolean }): Promise<Json[]>;
  prune(filters: Filters): Promise<Json>;
  /** True when it is here already. */
  has(ref: string): Promise<boolean>;
}

export interface Volumes {
  create(request: VolumeCreate): Promise<Json>;
  list(filters: Filters): Promise<{ Volumes: Json[]; Warnings: null }>;
  inspect(name: string): Promise<Json>;
  remove(name: string, force: boolean): Promise<void>;
  prune(filters: Filters, version?: string): Promise<{ VolumesDeleted: string[]; SpaceReclaimed: number }>;
}

export interface Networks {
  create(request: NetworkCreate): Promise<{ Id: string; Warning: string }>;
  list(filters: Filters): Promise<Json[]>;
  inspect(ref: string, options?: { verbose?: boolean; scope?: string }): Promise<Json>;
  remove(ref: string): Promise<void>;
  prune(filters: Filters): Promise<{ NetworksDeleted: string[] | null }>;
  /** Local or swarm-scoped, by name, id or id prefix; full name before id before prefix. */
  find(ref: string): NetworkSpec | undefined;
}

export interface System {
  info(): Promise<Json>;
  version(): Promise<Json>;
  diskUsage(types: readonly string[]): Promise<Json>;
}
