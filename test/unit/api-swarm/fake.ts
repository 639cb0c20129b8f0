/** An in-memory swarm: what the routes see of a manager, without one. */
import { create } from "@bufbuild/protobuf";
import { type LogMessage, LogMessageSchema, LogStream } from "#proto/docker/swarmkit/logbroker_pb.js";
import {
  type Cluster,
  ClusterSchema,
  type Config,
  ConfigSchema,
  type Network,
  NetworkSchema,
  type Node,
  NodeSchema,
  type Secret,
  SecretSchema,
  type Service,
  ServiceSchema,
  type Task,
  TaskSchema,
} from "#proto/docker/swarmkit/objects_pb.js";
import { NodeSpec_Membership } from "#proto/docker/swarmkit/specs_pb.js";
import {
  NodeRole,
  NodeStatus_State,
  RaftMemberStatus_Reachability,
  TaskState,
} from "#proto/docker/swarmkit/types_pb.js";
import { conflict, invalid, notFound, unavailable } from "../../../src/base/errors.ts";
import { swarmId } from "../../../src/base/id.ts";
import type { ControlApi, InitRequest, JoinRequest, LocalNode, SwarmNode } from "../../../src/swarm/types.ts";

interface Stored {
  readonly id: string;
  meta?: { version?: { index: bigint } | undefined } | undefined;
}

export class FakeSwarm {
  #index = 10n;
  local: LocalNode = inactive;
  inits: InitRequest[] = [];
  joins: JoinRequest[] = [];
  rotations: unknown[] = [];
  cluster: Cluster | undefined;
  readonly nodes = new Map<string, Node>();
  readonly services = new Map<string, Service>();
  readonly tasks = new Map<string, Task>();
  readonly networks = new Map<string, Network>();
  readonly secrets = new Map<string, Secret>();
  readonly configs = new Map<string, Config>();
  logMessages: LogMessage[] = [];

  meta() {
    const at = { seconds: 1_780_000_000n, nanos: 120_000_000 };
    return { version: { index: ++this.#index }, createdAt: at, updatedAt: at };
  }

  #update<T extends Stored>(map: Map<string, T>, id: string, version: bigint, change: (object: T) => void): T {
    const object = map.get(id);
    if (!object) throw notFound(`${id} not found`);
    if (object.meta?.version?.index !== version) throw invalid("update out of sequence");
    change(object);
    object.meta.version.index = ++this.#index;
    return object;
  }

  start(request: InitRequest): string {
    const nodeId = swarmId();
    this.cluster = create(ClusterSchema, {
      id: swarmId(),
      meta: this.meta(),
      spec: request.spec,
      rootCa: {
        caCert: Buffer.from("not a certificate\n"),
        joinTokens: { worker: "SWMTKN-1-w", manager: "SWMTKN-1-m" },
      },
      defaultAddressPool: ["10.0.0.0/8"],
      subnetSize: 24,
      VXLANUDPPort: request.dataPathPort,
    });
    this.addNode({ id: nodeId, hostname: "host-a", manager: true });
    this.local = {
      state: "active",
      nodeId,
      clusterId: this.cluster.id,
      nodeAddr: "10.0.0.1",
      dataPathAddr: "",
      dataPathPort: 4789,
      isManager: true,
      error: "",
      remoteManagers: [{ nodeId, addr: request.advertiseAddr }],
    };
    for (const [name, driver] of [
      ["ingress", "overlay"],
      ["bridge", "bridge"],
      ["host", "host"],
    ] as const) {
      const id = swarmId();
      const labels: Record<string, string> = driver === "overlay" ? {} : { "com.docker.swarm.predefined": "true" };
      this.networks.set(
        id,
        create(NetworkSchema, {
          id,
          meta: this.meta(),
          spec: { annotations: { name, labels }, ingress: name === "ingress", driverConfig: { name: driver } },
          driverState: { name: driver },
          ipam: { driver: { name: "default" }, configs: [] },
        }),
      );
    }
    return nodeId;
  }

  addNode(node: { id?: string; hostname: string; manager?: boolean; state?: NodeStatus_State }): Node {
    const id = node.id ?? swarmId();
    const object = create(NodeSchema, {
      id,
      meta: this.meta(),
      spec: {
        annotations: {},
        membership: NodeSpec_Membership.ACCEPTED,
        desiredRole: node.manager ? NodeRole.MANAGER : NodeRole.WORKER,
      },
      role: node.manager ? NodeRole.MANAGER : NodeRole.WORKER,
      description: {
        hostname: node.hostname,
        platform: { architecture: "x86_64", os: "linux" },
        resources: { nanoCpus: 2_000_000_000n, memoryBytes: 4_000_000_000n },
        engine: { engineVersion: "28.0.0", plugins: [{ type: "Network", name: "overlay" }] },
      },
      status: { state: node.state ?? NodeStatus_State.READY, addr: "10.0.0.1" },
      managerStatus: node.manager
        ? { leader: true, reachability: RaftMemberStatus_Reachability.REACHABLE, addr: "10.0.0.1:2377" }
        : undefined,
    });
    this.nodes.set(id, object);
    return object;
  }

  /** One running task per slot, on the nodes in turn. */
  run(service: Service): void {
    const mode = service.spec?.mode;
    const nodes = [...this.nodes.values()];
    const count = mode?.case === "replicated" ? Number(mode.value.replicas) : nodes.length;
    for (const task of [...this.tasks.values()]) if (task.serviceId === service.id) this.tasks.delete(task.id);
    for (let slot = 1; slot <= count; slot++) {
      const id = swarmId();
      this.tasks.set(
        id,
        create(TaskSchema, {
          id,
          meta: this.meta(),
          spec: service.spec?.task,
          serviceId: service.id,
          slot: mode?.case === "replicated" ? BigInt(slot) : 0n,
          nodeId: nodes[slot % nodes.length]?.id ?? "",
          annotations: {},
          serviceAnnotations: service.spec?.annotations,
          status: {
            state: TaskState.RUNNING,
            timestamp: { seconds: 1_780_000_001n, nanos: 0 },
            message: "started",
            runtimeStatus: { case: "container", value: { containerId: "c".repeat(64), pid: 42 } },
          },
          desiredState: TaskState.RUNNING,
          specVersion: service.specVersion,
        }),
      );
    }
  }

  readonly control: ControlApi = {
    cluster: () => {
      if (!this.cluster) throw unavailable("This node is not a swarm manager.");
      return this.cluster;
    },
    updateCluster: async (version, spec, rotation) => {
      this.rotations.push(rotation);
      const cluster = this.control.cluster();
      if (cluster.meta?.version?.index !== version) throw invalid("update out of sequence");
      cluster.spec = spec;
      if (rotation.worker && cluster.rootCa?.joinTokens) cluster.rootCa.joinTokens.worker = "SWMTKN-1-rotated";
      cluster.meta.version.index++;
      return cluster;
    },
    unlockKey: async () => "SWMKEY-1-abc",
    isLeader: () => true,
    nodes: () => [...this.nodes.values()],
    node: (id) => this.nodes.get(id),
    updateNode: async (id, version, spec) =>
      this.#update(this.nodes, id, version, (node) => {
        node.spec = spec;
      }),
    removeNode: async (id) => void this.nodes.delete(id),
    services: () => [...this.services.values()],
    service: (id) => this.services.get(id),
    createService: async (spec) => {
      const name = spec.annotations?.name;
      if ([...this.services.values()].some((service) => service.spec?.annotations?.name === name)) {
        throw conflict("rpc error: code = AlreadyExists desc = name conflicts with an existing object: service");
      }
      const service = create(ServiceSchema, {
        id: swarmId(),
        meta: this.meta(),
        spec,
        specVersion: { index: 1n },
        endpoint: { spec: spec.endpoint, ports: spec.endpoint?.ports ?? [] },
      });
      this.services.set(service.id, service);
      this.run(service);
      return service;
    },
    updateService: async (id, version, spec, rollback) =>
      this.#update(this.services, id, version, (service) => {
        const previous = service.spec;
        service.spec = rollback && service.previousSpec ? service.previousSpec : spec;
        service.previousSpec = previous;
        this.run(service);
      }),
    removeService: async (id) => void this.services.delete(id),
    tasks: () => [...this.tasks.values()],
    task: (id) => this.tasks.get(id),
    removeTask: async (id) => void this.tasks.delete(id),
    networks: () => [...this.networks.values()],
    network: (id) => this.networks.get(id),
    createNetwork: async (spec) => {
      const id = swarmId();
      const network = create(NetworkSchema, {
        id,
        meta: this.meta(),
        spec,
        driverState: {
          name: spec.driverConfig?.name || "overlay",
          options: { "com.docker.network.driver.overlay.vxlanid_list": "4097" },
        },
        ipam: { driver: { name: "default" }, configs: [{ subnet: "10.0.1.0/24", gateway: "10.0.1.1" }] },
      });
      this.networks.set(id, network);
      return network;
    },
    removeNetwork: async (id) => void this.networks.delete(id),
    secrets: () => [...this.secrets.values()],
    secret: (id) => this.secrets.get(id),
    createSecret: async (spec) => {
      const secret = create(SecretSchema, { id: swarmId(), meta: this.meta(), spec });
      this.secrets.set(secret.id, secret);
      return secret;
    },
    updateSecret: async (id, version, spec) =>
      this.#update(this.secrets, id, version, (secret) => {
        secret.spec = spec;
      }),
    removeSecret: async (id) => void this.secrets.delete(id),
    configs: () => [...this.configs.values()],
    config: (id) => this.configs.get(id),
    createConfig: async (spec) => {
      const config = create(ConfigSchema, { id: swarmId(), meta: this.meta(), spec });
      this.configs.set(config.id, config);
      return config;
    },
    updateConfig: async (id, version, spec) =>
      this.#update(this.configs, id, version, (config) => {
        config.spec = spec;
      }),
    removeConfig: async (id) => void this.configs.delete(id),
    logs: (selector) => {
      const tasks = [...this.tasks.values()].filter(
        (task) => selector.serviceIds.includes(task.serviceId) || selector.taskIds.includes(task.id),
      );
      const made = tasks.map((task, n) =>
        create(LogMessageSchema, {
          context: { serviceId: task.serviceId, nodeId: task.nodeId, taskId: task.id },
          timestamp: { seconds: 1_780_000_002n, nanos: 5 },
          stream: n % 2 ? LogStream.STDERR : LogStream.STDOUT,
          data: Buffer.from(`line ${n}\n`),
        }),
      );
      return (async function* () {
        yield* made;
      })();
    },
    onChange: () => () => {},
  };

  readonly node: SwarmNode = {
    local: () => this.local,
    onChange: () => () => {},
    restore: async () => {},
    init: async (request) => {
      this.inits.push(request);
      return this.start(request);
    },
    join: async (request) => {
      this.joins.push(request);
    },
    leave: async (force) => {
      if (this.local.state === "inactive") throw unavailable("This node is not part of a swarm");
      if (!force)
        throw unavailable("You are attempting to leave the swarm on a node that is participating as a manager. ");
      this.local = inactive;
    },
    unlock: async () => {},
    control: () => {
      if (this.local.state !== "active") {
        throw unavailable(
          'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
        );
      }
      return this.control;
    },
    attachNetwork: async () => {
      throw unavailable("no");
    },
    detachNetwork: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
}

const inactive: LocalNode = {
  state: "inactive",
  nodeId: "",
  clusterId: "",
  nodeAddr: "",
  dataPathAddr: "",
  dataPathPort: 0,
  isManager: false,
  error: "",
  remoteManagers: [],
};
