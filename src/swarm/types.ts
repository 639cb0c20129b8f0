/**
 * The door of the swarm room. Objects are SwarmKit's own messages (`#proto/docker/swarmkit/*`).
 * `Executor` is what the agent asks of its host; `SwarmNode` is what the engine and the API ask of the swarm.
 */
import type { LogMessage, LogSubscriptionOptions } from "#proto/docker/swarmkit/logbroker_pb.js";
import type { Cluster, Config, Network, Node, Secret, Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import type {
  ClusterSpec,
  ConfigSpec,
  NetworkSpec,
  NodeSpec,
  NodeSpec_Availability,
  SecretSpec,
  ServiceSpec,
} from "#proto/docker/swarmkit/specs_pb.js";
import type { EncryptionKey, NodeDescription, PortConfig } from "#proto/docker/swarmkit/types_pb.js";

/** Secrets and configs that were assigned to this node. */
export interface Dependencies {
  secret(id: string): Secret | undefined;
  config(id: string): Config | undefined;
}

/** What the agent asks of its host. Implemented by the engine. */
export interface Executor {
  describe(): Promise<NodeDescription>;
  /** The node object changed: load balancer addresses, labels, ingress network. */
  configure(node: Node): Promise<void>;
  /** Gossip and IPsec keys, each time the set changes. */
  setNetworkKeys(keys: EncryptionKey[]): Promise<void>;
  /** Hosts of the managers (no port), each time the set changes. */
  setManagers(hosts: string[]): void;
  /** Whether gossip has lost a host; undefined where it knows nothing of it. */
  isSilent?(host: string): boolean | undefined;
  /** Throws `TaskRejected` when this host cannot run such a task. */
  controller(task: Task, dependencies: Dependencies): Promise<TaskController>;
  /** What earlier tasks left on this host goes, but for these: a task may have been forgotten with the node's state. */
  keepOnly?(taskIds: ReadonlySet<string>): Promise<void>;
  /** This host is in no swarm any more; resolves when nothing of one is left on it. `swarm leave` waits for it. */
  left?(): Promise<void>;
}

/** One task on this host. Calls are serialised by the agent; every wait obeys the signal. */
export interface TaskController {
  /** The task changed in a way that does not need a new container. */
  update(task: Task): Promise<void>;
  /** Networks, volumes, image, container. */
  prepare(signal: AbortSignal): Promise<void>;
  /** Resolves when running, and healthy where there is a health check. */
  start(signal: AbortSignal): Promise<void>;
  /** Resolves on a clean exit, throws `TaskFailed` otherwise. */
  wait(signal: AbortSignal): Promise<void>;
  /** Withdraws from discovery, stops with the grace period. */
  shutdown(signal: AbortSignal): Promise<void>;
  /** Removes container and network use; called once no more is wanted of it. */
  remove(signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
  /** For TaskStatus.container and .port_status; undefined before there is a container. */
  status(): { containerId: string; pid: number; exitCode: number; ports: PortConfig[] } | undefined;
  logs(
    options: LogSubscriptionOptions,
    signal: AbortSignal,
  ): AsyncIterable<Pick<LogMessage, "timestamp" | "stream" | "data">>;
}

/** The task failed by itself; `exitCode` where a process said so. */
export class TaskFailed extends Error {
  readonly exitCode: number | undefined;
  constructor(message: string, exitCode?: number) {
    super(message);
    this.name = "TaskFailed";
    this.exitCode = exitCode;
  }
}

/** Cannot be run here at all. */
export class TaskRejected extends Error {
  override readonly name = "TaskRejected";
}

/** A temporary trouble: the agent tries again after a second. */
export class TaskRetry extends Error {
  override readonly name = "TaskRetry";
}

export type LocalNodeState = "inactive" | "pending" | "active" | "error" | "locked";

export interface InitRequest {
  /** "ip:port" or interface name with optional port; resolved by the engine before. */
  readonly listenAddr: string;
  readonly advertiseAddr: string;
  readonly dataPathAddr: string;
  readonly dataPathPort: number;
  readonly forceNewCluster: boolean;
  readonly autoLock: boolean;
  readonly availability: NodeSpec_Availability;
  readonly defaultAddressPool: string[];
  readonly subnetSize: number;
  readonly spec: ClusterSpec;
}

export interface JoinRequest {
  readonly listenAddr: string;
  readonly advertiseAddr: string;
  readonly dataPathAddr: string;
  readonly remoteAddrs: string[];
  readonly joinToken: string;
  readonly availability: NodeSpec_Availability;
}

export interface LocalNode {
  readonly state: LocalNodeState;
  readonly nodeId: string;
  readonly clusterId: string;
  /** Advertised host, no port. */
  readonly nodeAddr: string;
  readonly dataPathAddr: string;
  readonly dataPathPort: number;
  readonly isManager: boolean;
  readonly error: string;
  readonly remoteManagers: { nodeId: string; addr: string }[];
}

/** This host's part in a swarm. */
export interface SwarmNode extends AsyncDisposable {
  local(): LocalNode;
  onChange(listener: (local: LocalNode) => void): () => void;
  /** Goes on where the daemon stopped; does nothing when it was in no swarm. */
  restore(): Promise<void>;
  init(request: InitRequest): Promise<string>;
  /** Resolves when the node is registered; throws Docker's time-out message after 20 s and goes on trying. */
  join(request: JoinRequest): Promise<void>;
  leave(force: boolean): Promise<void>;
  unlock(key: string): Promise<void>;
  /** Throws unavailable with Docker's words ("This node is not a swarm manager. …") where there is none. */
  control(): ControlApi;
  /** Asks the managers for an address on an attachable network; resolves when the task is assigned here. */
  attachNetwork(request: {
    target: string;
    addresses: string[];
    containerId: string;
    signal?: AbortSignal;
  }): Promise<{ attachmentId: string; task: Task }>;
  detachNetwork(attachmentId: string): Promise<void>;
}

export type RemoveResult = Promise<void>;

/** What a manager can be asked; every answer comes from the replicated store. Followers forward to the leader. */
export interface ControlApi {
  cluster(): Cluster;
  updateCluster(
    version: bigint,
    spec: ClusterSpec,
    rotation: { worker: boolean; manager: boolean; unlockKey: boolean },
  ): Promise<Cluster>;
  unlockKey(): Promise<string>;
  isLeader(): boolean;

  nodes(): Node[];
  node(id: string): Node | undefined;
  updateNode(id: string, version: bigint, spec: NodeSpec): Promise<Node>;
  removeNode(id: string, force: boolean): RemoveResult;

  services(): Service[];
  service(id: string): Service | undefined;
  createService(spec: ServiceSpec): Promise<Service>;
  updateService(id: string, version: bigint, spec: ServiceSpec, rollback: boolean): Promise<Service>;
  removeService(id: string): RemoveResult;

  tasks(): Task[];
  task(id: string): Task | undefined;
  removeTask(id: string): RemoveResult;

  networks(): Network[];
  network(id: string): Network | undefined;
  createNetwork(spec: NetworkSpec): Promise<Network>;
  removeNetwork(id: string): RemoveResult;

  secrets(): Secret[];
  secret(id: string): Secret | undefined;
  createSecret(spec: SecretSpec): Promise<Secret>;
  updateSecret(id: string, version: bigint, spec: SecretSpec): Promise<Secret>;
  removeSecret(id: string): RemoveResult;

  configs(): Config[];
  config(id: string): Config | undefined;
  createConfig(spec: ConfigSpec): Promise<Config>;
  updateConfig(id: string, version: bigint, spec: ConfigSpec): Promise<Config>;
  removeConfig(id: string): RemoveResult;

  /** Logs of services and tasks from every node, until done or aborted. */
  logs(
    selector: { serviceIds: string[]; nodeIds: string[]; taskIds: string[] },
    options: LogSubscriptionOptions,
    signal: AbortSignal,
  ): AsyncIterable<LogMessage>;
  /** Changes of the store, for `docker events`. */
  onChange(
    listener: (change: {
      action: "create" | "update" | "remove";
      kind: string;
      object: StoreObject;
      old?: StoreObject;
    }) => void,
  ): () => void;
}

export type StoreObject = Cluster | Node | Service | Task | Network | Secret | Config;
