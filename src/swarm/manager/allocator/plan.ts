/** What the allocator writes for one object. Pure but for taking what it gives out from the state. */
import { create, equals } from "@bufbuild/protobuf";
import {
  type Endpoint,
  EndpointSchema,
  type Network,
  type NetworkAttachment,
  NetworkAttachmentSchema,
  type Node,
  type Service,
  type Task,
} from "#proto/docker/swarmkit/objects_pb.js";
import { EndpointSpec_ResolutionMode } from "#proto/docker/swarmkit/specs_pb.js";
import {
  DriverSchema,
  type IPAMConfig,
  IPAMConfig_AddressFamily,
  IPAMConfigSchema,
  IPAMOptionsSchema,
  type NetworkAttachmentConfig,
  type PortConfig,
  PortConfig_PublishMode,
  TaskState,
} from "#proto/docker/swarmkit/types_pb.js";
import { toIpv4 } from "../../../base/dual-stack.ts";
import type { Reader } from "../../store/memory.ts";
import { isLost } from "../tasks.ts";
import { driverName, isAllocated, isIngress, isNodeLocal, VNI_OPTION } from "./drivers.ts";
import { formatCidr, formatIp, overlaps, parseCidr, parseIp, type Subnet } from "./ipv4.ts";
import { dualStack, ipv6Twin, isIpv6Config, planIpv6 } from "./ipv6.ts";
import { type AllocatorState, nodeOwner, taskOwner, vipOwner } from "./state.ts";

/** Why something cannot be allocated now; the text is for the user. */
export class CannotAllocate extends Error {
  override readonly name = "CannotAllocate";
}

export interface Pools {
  readonly subnets: Subnet[];
  readonly size: number;
  /** What this swarm's own IPv6 subnets are made from. */
  readonly seed: string;
}

/** Driver state and address management of a new network. */
export function planNetwork(network: Network, state: AllocatorState, pools: Pools): Network {
  const driver = driverName(network.spec);
  const spec = network.spec;
  if (isNodeLocal(spec)) {
    return {
      ...network,
      driverState: create(DriverSchema, { name: driver }),
      ipam: create(IPAMOptionsSchema, { driver: {} }),
    };
  }
  const all = spec?.ipam?.configs ?? [];
  const ipv4 = all.filter((config) => !isIpv6Config(config));
  const asked: IPAMConfig[] = ipv4.length > 0 ? ipv4 : [create(IPAMConfigSchema)];
  const taken: Subnet[] = [];
  const configs = asked.map((config) => {
    const subnet = config.subnet ? parseCidr(config.subnet) : state.freeSubnet(pools.subnets, pools.size, taken);
    if (!subnet)
      throw new CannotAllocate(
        config.subnet ? `invalid subnet ${config.subnet}` : "no free subnet is left in the default address pools",
      );
    const owner = state.overlapping(subnet);
    if ((owner !== undefined && owner !== network.id) || taken.some((other) => overlaps(other, subnet))) {
      throw new CannotAllocate("Pool overlaps with other one on this address space");
    }
    taken.push(subnet);
    return create(IPAMConfigSchema, {
      family: config.subnet ? config.family : IPAMConfig_AddressFamily.IPV4,
      subnet: formatCidr(subnet),
      range: config.range,
      gateway: config.gateway || formatIp(subnet.base + 1),
      reserved: config.reserved,
    });
  });
  const options = { ...spec?.driverConfig?.options };
  // One for each IPv4 subnet, as Docker's driver counts them: IPv6 travels with them.
  const vnis = planVnis(network, state, options[VNI_OPTION], configs.length);
  options[VNI_OPTION] = vnis.join(",");
  const [first] = configs;
  if (spec?.ipv6Enabled && first) configs.push(planIpv6(all.find(isIpv6Config), first, pools.seed, vnis[0] ?? 0));
  return {
    ...network,
    driverState: create(DriverSchema, { name: driver, options }),
    ipam: create(IPAMOptionsSchema, {
      driver: { name: spec?.ipam?.driver?.name || "default", options: spec?.ipam?.driver?.options ?? {} },
      configs,
    }),
  };
}

function planVnis(network: Network, state: AllocatorState, asked: string | undefined, count: number): number[] {
  const vnis: number[] = [];
  if (asked) {
    vnis.push(...asked.split(",").map(Number));
    for (const vni of vnis) {
      if (!Number.isInteger(vni) || vni < 1 || vni >= 2 ** 24) throw new CannotAllocate(`invalid VXLAN id ${asked}`);
      const owner = state.vniOwner(vni);
      if (owner !== undefined && owner !== network.id)
        throw new CannotAllocate(`VXLAN id ${vni} is in use by network ${owner}`);
    }
  }
  while (vnis.length < count) {
    const vni = state.freeVni(vnis);
    if (vni === undefined) throw new CannotAllocate("no free VXLAN id is left");
    vnis.push(vni);
  }
  return vnis;
}

const isIngressPort = ({ publishMode }: PortConfig) => publishMode === PortConfig_PublishMode.INGRESS;

/** Networks of a service's tasks in order: ingress first when a port is published there. */
export function networksOf(service: Service, store: Reader): { network: Network; config?: NetworkAttachmentConfig }[] {
  const configs = service.spec?.task?.networks.length ? service.spec.task.networks : (service.spec?.networks ?? []);
  const result: { network: Network; config?: NetworkAttachmentConfig }[] = [];
  if (service.spec?.endpoint?.ports.some(isIngressPort)) {
    const network = store.all("network").find(isIngress);
    if (!network) throw new CannotAllocate("ingress network not present");
    result.push({ network });
  }
  for (const config of configs) {
    const network = store.get("network", config.target);
    if (!network) throw new CannotAllocate(`network ${config.target} not found`);
    result.push({ network, config });
  }
  for (const { network } of result) {
    if (!isAllocated(network))
      throw new CannotAllocate(`network ${network.spec?.annotations?.name} is not allocated yet`);
  }
  return result;
}

/** The endpoint a service should have, keeping what it has; undefined when it is as it should be. */
export function planService(service: Service, store: Reader, state: AllocatorState, now: number): Service | undefined {
  return state.attempt(() => withEndpoint(service, store, state, now));
}

function withEndpoint(service: Service, store: Reader, state: AllocatorState, now: number): Service | undefined {
  const spec = service.spec?.endpoint;
  const old = service.endpoint;
  const ports = planPorts(service, state);
  const owner = vipOwner(service.id);
  const withVips = (spec?.mode ?? EndpointSpec_ResolutionMode.VIP) === EndpointSpec_ResolutionMode.VIP;
  const virtualIps = (withVips ? networksOf(service, store) : [])
    .filter(({ network }) => !isNodeLocal(network.spec))
    .map(({ network }) => {
      const kept = old?.virtualIps.find(({ networkId }) => networkId === network.id);
      if (kept) return { networkId: network.id, addr: kept.addr };
      return { networkId: network.id, addr: allocate(state, network, owner, now) };
    });
  const endpoint = create(EndpointSchema, { ...(spec ? { spec } : {}), ports, virtualIps });
  return old && equals(EndpointSchema, old, endpoint) ? undefined : { ...service, endpoint };
}

/** `spare`: addresses that are to be left for others. */
function allocate(state: AllocatorState, network: Network, owner: string, now: number, spare = 0): string {
  const address = spare < state.free(network.id) ? state.allocate(network.id, owner, now) : undefined;
  if (address === undefined) {
    throw new CannotAllocate(`no available IP address in network ${network.spec?.annotations?.name}`);
  }
  return address;
}

function planPorts(service: Service, state: AllocatorState): PortConfig[] {
  const unused = [...(service.endpoint?.ports ?? [])];
  return (service.spec?.endpoint?.ports ?? []).map((port) => {
    if (!isIngressPort(port)) return port;
    let publishedPort = port.publishedPort;
    if (publishedPort === 0) {
      const at = unused.findIndex(
        (other) =>
          isIngressPort(other) &&
          other.publishedPort > 0 &&
          other.protocol === port.protocol &&
          other.targetPort === port.targetPort &&
          other.name === port.name,
      );
      publishedPort = (at >= 0 ? unused.splice(at, 1)[0]?.publishedPort : undefined) ?? 0;
      publishedPort ||= state.allocatePort(port.protocol, service.id) ?? 0;
      if (publishedPort === 0) throw new CannotAllocate("no dynamic port is left");
    }
    if (!state.claimPort(port.protocol, publishedPort, service.id)) {
      const other = state.portOwner(port.protocol, publishedPort);
      throw new CannotAllocate(`port ${publishedPort} is already in use by service ${other}`);
    }
    return { ...port, publishedPort };
  });
}

/** A new task with its addresses, ready for the scheduler. */
export function planTask(task: Task, store: Reader, state: AllocatorState, now: number): Task {
  const service = task.serviceId ? store.get("service", task.serviceId) : undefined;
  if (task.serviceId && !service) throw new CannotAllocate(`service ${task.serviceId} not found`);
  if (service && !service.endpoint) throw new CannotAllocate("the service is not allocated yet");
  const wanted: { network: Network; config?: NetworkAttachmentConfig }[] = service
    ? networksOf(service, store)
    : (task.spec?.networks ?? []).map((config) => {
        const network = store.get("network", config.target);
        if (!network || !isAllocated(network)) throw new CannotAllocate(`network ${config.target} is not allocated`);
        return { network, config };
      });
  const networks = state.attempt(() =>
    wanted.map(({ network, config }) =>
      attach(task, network, config, state, now, () => spareFor(network, store, state)),
    ),
  );
  const status = task.status && {
    ...task.status,
    state: TaskState.PENDING,
    message: "pending task scheduling",
    err: "",
  };
  const endpoint: Endpoint | undefined = service?.endpoint;
  return { ...task, status, networks, endpoint };
}

/**
 * Addresses to be left for the load balancers of nodes, without which no task runs there: each task that is not placed
 * yet, and the one that asks, may come to a node that has none on this network.
 */
function spareFor(network: Network, store: Reader, state: AllocatorState): number {
  const tasks = state.unplaced(network.id) + 1;
  if (state.free(network.id) > 2 * tasks) return 0;
  const without = store.all("node").filter((node) => !isLost(node) && !state.isBalanced(network.id, node.id)).length;
  return Math.min(tasks, without);
}

function attach(
  task: Task,
  network: Network,
  config: NetworkAttachmentConfig | undefined,
  state: AllocatorState,
  now: number,
  spare: () => number,
): NetworkAttachment {
  const owner = taskOwner(task.id);
  const common = { aliases: config?.aliases ?? [], driverAttachmentOpts: config?.driverAttachmentOpts ?? {} };
  if (isNodeLocal(network.spec)) return create(NetworkAttachmentSchema, { network, ...common });
  const asked = task.spec?.runtime.case === "attachment" ? askedAddress(network, config?.addresses ?? []) : undefined;
  if (asked !== undefined) {
    const address = state.inNetwork(network.id, asked);
    if (address === undefined || !state.claimAsked(network.id, address, owner, now)) {
      throw new CannotAllocate(
        address === undefined
          ? `address ${asked} is not in network ${network.spec?.annotations?.name}`
          : `Address already in use: ${asked}`,
      );
    }
    return create(NetworkAttachmentSchema, { network, addresses: [address, ...ipv6Twin(network, address)], ...common });
  }
  const address = allocate(state, network, owner, now, spare());
  state.awaitPlace(network.id, task.id);
  return create(NetworkAttachmentSchema, { network, addresses: [address, ...ipv6Twin(network, address)], ...common });
}

/** The IPv4 address that was asked for, be it by its twin in IPv6. */
function askedAddress(network: Network, addresses: readonly string[]): string | undefined {
  const ipv4 = addresses.find((address) => parseIp(address.split("/")[0] ?? "") !== undefined);
  const ipv6 = addresses.find((address) => address.includes(":"));
  if (ipv6 === undefined) return ipv4;
  const dual = dualStack(network);
  const twin = dual && toIpv4(dual, ipv6);
  const name = network.spec?.annotations?.name;
  if (twin === undefined) throw new CannotAllocate(`address ${ipv6} is not in network ${name}`);
  if (ipv4 !== undefined && ipv4.split("/")[0] !== twin) {
    throw new CannotAllocate(
      `on network ${name} ${ipv6} goes with ${twin}, not with ${ipv4}: both addresses of an endpoint have the same host part`,
    );
  }
  return twin;
}

/** The load balancer addresses a node should have: one on ingress and on each overlay network of its tasks. */
export function planNode(node: Node, store: Reader, state: AllocatorState, now: number): Node | undefined {
  const wanted = new Map<string, Network>();
  for (const network of store.all("network"))
    if (isIngress(network) && isAllocated(network)) wanted.set(network.id, network);
  for (const task of store.tasksOfNode(node.id)) {
    const taskState = task.status?.state ?? TaskState.NEW;
    if (taskState < TaskState.ASSIGNED || taskState > TaskState.RUNNING) continue;
    for (const { network } of task.networks) {
      if (!network || isNodeLocal(network.spec) || !store.get("network", network.id)) continue;
      wanted.set(network.id, network);
    }
  }
  const kept = node.attachments.filter(({ network }) => network && wanted.delete(network.id));
  if (wanted.size === 0 && kept.length === node.attachments.length) return undefined;
  const added = state.attempt(() =>
    [...wanted.values()].map((network) =>
      create(NetworkAttachmentSchema, { network, addresses: [allocate(state, network, nodeOwner(node.id), now)] }),
    ),
  );
  return { ...node, attachments: [...kept, ...added] };
}
