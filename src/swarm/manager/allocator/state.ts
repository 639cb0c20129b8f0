/**
 * What is given out: addresses, subnets, VNIs, published ports. It is a pure function of the store (`AllocatorState.of`),
 * kept up to date change by change; taking what one already has changes nothing, so a commit's own echo is harmless.
 */
import type { Network, Node, Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { PortConfig_Protocol, PortConfig_PublishMode, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import { toIpv4 } from "../../../base/dual-stack.ts";
import type { Reader } from "../../store/memory.ts";
import type { Change } from "../../store/store.ts";
import { isAllocated, isNodeLocal, VNI_OPTION } from "./drivers.ts";
import { contains, overlaps, parseCidr, parseIp, type Subnet, sizeOf } from "./ipv4.ts";
import { dualStack } from "./ipv6.ts";
import { AddressPool } from "./pool.ts";

const FIRST_VNI = 4096;
const LAST_VNI = 2 ** 24 - 1;
const FIRST_PORT = 30_000;
const LAST_PORT = 32_767;

interface Claim {
  readonly networkId: string;
  readonly address: string;
  readonly owner: string;
}

export const vipOwner = (serviceId: string) => `service ${serviceId}`;
export const taskOwner = (taskId: string) => `task ${taskId}`;
export const nodeOwner = (nodeId: string) => `node ${nodeId}`;

/** A task that ended and is wanted to: it holds nothing any more. */
export function isDead(task: Task): boolean {
  return task.desiredState > TaskState.RUNNING && (task.status?.state ?? TaskState.NEW) > TaskState.RUNNING;
}

function claimsOf(change: Pick<Change, "kind" | "object">): Claim[] {
  switch (change.kind) {
    case "service": {
      const service = change.object as Service;
      const owner = vipOwner(service.id);
      return (service.endpoint?.virtualIps ?? []).map(({ networkId, addr }) => ({ networkId, address: addr, owner }));
    }
    case "task": {
      const task = change.object as Task;
      return isDead(task) ? [] : attachmentClaims(task.networks, taskOwner(task.id));
    }
    case "node": {
      const node = change.object as Node;
      return attachmentClaims(node.attachments, nodeOwner(node.id));
    }
    default:
      return [];
  }
}

function attachmentClaims(attachments: Task["networks"], owner: string): Claim[] {
  return attachments.flatMap(({ network, addresses }) =>
    network ? addresses.map((address) => ({ networkId: network.id, address, owner })) : [],
  );
}

const portKey = (protocol: PortConfig_Protocol, port: number) => `${PortConfig_Protocol[protocol]}/${port}`;

function portsOf(service: Service): string[] {
  return (service.endpoint?.ports ?? [])
    .filter(({ publishMode, publishedPort }) => publishMode === PortConfig_PublishMode.INGRESS && publishedPort > 0)
    .map(({ protocol, publishedPort }) => portKey(protocol, publishedPort));
}

function vnisOf(network: Pick<Network, "driverState">): number[] {
  const list = network.driverState?.options[VNI_OPTION] ?? "";
  return list
    .split(",")
    .map(Number)
    .filter((vni) => vni > 0);
}

export class AllocatorState {
  readonly #pools = new Map<string, AddressPool[]>();
  /** Tasks by network that have an address and no place yet. */
  readonly #unplaced = new Map<string, Set<string>>();
  readonly #vnis = new Map<number, string>();
  readonly #ports = new Map<string, string>();
  #nextVni = FIRST_VNI;
  #nextPort = FIRST_PORT;
  #lastSubnet: Subnet | undefined;
  /** How to give back what the plan of the moment took. */
  #taken: (() => void)[] | undefined;

  /**
   * The state that belongs to this store. Addresses given back lately rest in it, too: those of tasks that are dead, by
   * the store, which a new leader knows as well, and those that the `former` state knew of.
   */
  static of(store: Reader, clock: Clock, former?: AllocatorState): AllocatorState {
    const state = new AllocatorState();
    const [now, wall] = [clock.steady(), clock.now()];
    for (const kind of ["network", "service", "task", "node"] as const) {
      for (const object of store.all(kind)) {
        state.apply({ action: "create", kind, object, old: undefined } as Change, now);
      }
    }
    for (const task of store.all("task")) {
      if (!isDead(task)) continue;
      // By another manager's clock, or by ours before it was set.
      const freedAt = now - Math.max(0, wall - Number(task.meta?.updatedAt?.seconds ?? 0n) * 1000);
      for (const { networkId, address } of attachmentClaims(task.networks, taskOwner(task.id))) {
        for (const pool of state.#pools.get(networkId) ?? []) pool.rest(address, freedAt);
      }
    }
    for (const [networkId, pools] of former ? former.#pools : []) {
      for (const [index, pool] of pools.entries()) state.#pools.get(networkId)?.[index]?.remember(pool);
    }
    return state;
  }

  /** Follows a change; true when something was given back. */
  apply(change: Change, now: number): boolean {
    if (change.kind === "network") return this.#applyNetwork(change.object, change.action === "remove");
    const before = change.old ? claimsOf({ kind: change.kind, object: change.old } as Change) : [];
    const after = change.action === "remove" ? [] : claimsOf(change);
    let freed = false;
    for (const { networkId, address, owner } of before) {
      if (after.some((claim) => claim.networkId === networkId && claim.address === address)) continue;
      for (const pool of this.#pools.get(networkId) ?? []) pool.release(address, owner, now);
      freed = true;
    }
    for (const { networkId, address, owner } of after) this.claim(networkId, address, owner);
    if (change.kind === "task" && this.#applyPlace(change.object, after)) freed = true;
    if (change.kind === "service") {
      const kept = change.action === "remove" ? [] : portsOf(change.object);
      for (const port of change.old ? portsOf(change.old) : []) {
        if (kept.includes(port) || this.#ports.get(port) !== change.object.id) continue;
        this.#ports.delete(port);
        freed = true;
      }
      for (const port of kept) if (!this.#ports.has(port)) this.#ports.set(port, change.object.id);
    }
    return freed;
  }

  /** One object's plan: what it took before it throws is given back, or each new attempt would take some more. */
  attempt<T>(plan: () => T): T {
    const taken: (() => void)[] = [];
    this.#taken = taken;
    try {
      return plan();
    } catch (error) {
      for (const giveBack of taken) giveBack();
      throw error;
    } finally {
      this.#taken = undefined;
    }
  }

  /** True when a task has found its place, or none any more: it no longer keeps an address back. */
  #applyPlace(task: Task, claims: readonly Claim[]): boolean {
    const waits = claims.length > 0 && (task.status?.state ?? TaskState.NEW) < TaskState.ASSIGNED;
    if (waits) for (const { networkId } of claims) this.awaitPlace(networkId, task.id);
    let settled = false;
    if (!waits) for (const tasks of this.#unplaced.values()) if (tasks.delete(task.id)) settled = true;
    return settled;
  }

  /** A task has an address on this network and no place yet. */
  awaitPlace(networkId: string, taskId: string): void {
    const tasks = this.#unplaced.get(networkId) ?? new Set();
    if (!tasks.has(taskId)) this.#taken?.push(() => tasks.delete(taskId));
    this.#unplaced.set(networkId, tasks.add(taskId));
  }

  unplaced(networkId: string): number {
    return this.#unplaced.get(networkId)?.size ?? 0;
  }

  /** Addresses left in a network. */
  free(networkId: string): number {
    return (this.#pools.get(networkId) ?? []).reduce((sum, pool) => sum + pool.free, 0);
  }

  /** True when the node has its load balancer's address on this network. */
  isBalanced(networkId: string, nodeId: string): boolean {
    return (this.#pools.get(networkId) ?? []).some((pool) => pool.isOwner(nodeOwner(nodeId)));
  }

  #applyNetwork(network: Network, removed: boolean): boolean {
    if (removed) {
      this.#pools.delete(network.id);
      this.#unplaced.delete(network.id);
      for (const [vni, id] of this.#vnis) if (id === network.id) this.#vnis.delete(vni);
      return true;
    }
    if (!isAllocated(network) || isNodeLocal(network.spec) || this.#pools.has(network.id)) return false;
    const pools: AddressPool[] = [];
    for (const { subnet, gateway, range } of network.ipam?.configs ?? []) {
      const parsed = parseCidr(subnet);
      // IPv6 needs no pool: its addresses follow from those of IPv4.
      if (!parsed) continue;
      const reserved = reservedIn(network, parsed);
      pools.push(new AddressPool(parsed, parseIp(gateway) ?? parsed.base + 1, parseCidr(range) ?? parsed, reserved));
      this.#lastSubnet = parsed;
    }
    this.#pools.set(network.id, pools);
    for (const vni of vnisOf(network)) {
      this.#vnis.set(vni, network.id);
      this.#nextVni = vni + 1;
    }
    return false;
  }

  /** The subnet of a network that overlaps this one, if there is any. */
  overlapping(subnet: Subnet): string | undefined {
    for (const [id, pools] of this.#pools) if (pools.some((pool) => overlaps(pool.subnet, subnet))) return id;
    return undefined;
  }

  /** A free subnet of this size from the default pools: the one after the last, wrapping. */
  freeSubnet(pools: Subnet[], size: number, alsoTaken: Subnet[]): Subnet | undefined {
    const taken = [...[...this.#pools.values()].flat().map((pool) => pool.subnet), ...alsoTaken];
    const from = this.#lastSubnet;
    const order = pools.flatMap((pool) => (from && contains(pool, from.base) ? [{ pool, after: from.base }] : []));
    for (const { pool, after } of [...order, ...pools.map((pool) => ({ pool, after: -1 }))]) {
      const found = firstFree(pool, size, after, taken);
      if (found) return found;
    }
    return undefined;
  }

  vniOwner(vni: number): string | undefined {
    return this.#vnis.get(vni);
  }

  freeVni(alsoTaken: number[]): number | undefined {
    for (let step = 0, vni = this.#nextVni; step < 1 << 20; step++, vni++) {
      if (vni > LAST_VNI) vni = FIRST_VNI;
      if (!this.#vnis.has(vni) && !alsoTaken.includes(vni)) return vni;
    }
    return undefined;
  }

  /** Takes an address for its owner; false when it is outside the network or somebody else's. */
  claim(networkId: string, address: string, owner: string): boolean {
    return (this.#pools.get(networkId) ?? []).some((pool) => pool.claim(address, owner));
  }

  /** The same of an address that was asked for, in a plan. */
  claimAsked(networkId: string, address: string, owner: string, now: number): boolean {
    const pool = this.#pools.get(networkId)?.find((candidate) => candidate.claim(address, owner));
    if (pool) this.#taken?.push(() => pool.release(address, owner, now));
    return pool !== undefined;
  }

  allocate(networkId: string, owner: string, now: number): string | undefined {
    for (const pool of this.#pools.get(networkId) ?? []) {
      const address = pool.allocate(owner, now);
      if (address === undefined) continue;
      this.#taken?.push(() => pool.release(address, owner, now));
      return address;
    }
    return undefined;
  }

  /** "ip/prefix" of a plain address in this network. */
  inNetwork(networkId: string, ip: string): string | undefined {
    const value = parseIp(ip.split("/")[0] ?? "");
    const pool = value === undefined ? undefined : this.#pools.get(networkId)?.find((p) => contains(p.subnet, value));
    return pool && `${ip.split("/")[0]}/${pool.subnet.prefix}`;
  }

  portOwner(protocol: PortConfig_Protocol, port: number): string | undefined {
    return this.#ports.get(portKey(protocol, port));
  }

  claimPort(protocol: PortConfig_Protocol, port: number, serviceId: string): boolean {
    const owner = this.portOwner(protocol, port);
    if (owner === undefined) this.#takePort(portKey(protocol, port), serviceId);
    return owner === undefined || owner === serviceId;
  }

  allocatePort(protocol: PortConfig_Protocol, serviceId: string): number | undefined {
    for (let step = 0; step <= LAST_PORT - FIRST_PORT; step++) {
      const port = this.#nextPort;
      this.#nextPort = port === LAST_PORT ? FIRST_PORT : port + 1;
      if (this.portOwner(protocol, port) === undefined) {
        this.#takePort(portKey(protocol, port), serviceId);
        return port;
      }
    }
    return undefined;
  }

  #takePort(key: string, serviceId: string): void {
    this.#ports.set(key, serviceId);
    this.#taken?.push(() => this.#ports.delete(key));
  }

  /** Everything given out, in a form that can be compared. */
  dump(): unknown {
    const pools = [...this.#pools].map(([id, list]) => [id, list.map((pool) => [...pool.owners()])]);
    return { pools: pools.sort(), vnis: [...this.#vnis].sort(), ports: [...this.#ports].sort() };
  }
}

/** Addresses of this subnet that are the user's own, and those whose twin in IPv6 is, or is its gateway. */
function reservedIn(network: Network, subnet: Subnet): number[] {
  const dual = dualStack(network);
  return (network.ipam?.configs ?? [])
    .flatMap(({ gateway, reserved }) => [...Object.values(reserved), ...(gateway.includes(":") ? [gateway] : [])])
    .map((address) => (address.includes(":") ? dual && toIpv4(dual, address) : address))
    .map((address) => (address === undefined ? undefined : parseIp(address)))
    .filter((ip): ip is number => ip !== undefined && contains(subnet, ip));
}

function firstFree(pool: Subnet, size: number, after: number, taken: Subnet[]): Subnet | undefined {
  if (size < pool.prefix) return undefined;
  const end = pool.base + sizeOf(pool.prefix);
  for (let base = Math.max(pool.base, after < 0 ? 0 : after + sizeOf(size)); base < end; base += sizeOf(size)) {
    const candidate = { base: base - (base % sizeOf(size)), prefix: size };
    const hit = taken.find((subnet) => overlaps(subnet, candidate));
    if (!hit) return candidate;
    // Jump over what is in the way, so that a large foreign subnet costs one step.
    base = Math.max(base, hit.base + sizeOf(hit.prefix) - sizeOf(size));
  }
  return undefined;
}
