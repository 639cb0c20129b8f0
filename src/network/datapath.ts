/**
 * What resolver and balancer contribute to plans, computed from discovery once per network and change, however many
 * sandboxes show it.
 */
import { messageOf } from "../base/errors.ts";
import { openConntrack } from "../kernel/conntrack.ts";
import { hasFeature } from "../kernel/feature.ts";
import { abortTcp } from "../kernel/sockdiag.ts";
import {
  callableNetworks,
  hostState,
  ingressOf,
  meshEntries,
  meshHost,
  meshPorts,
  meshSandbox,
  meshTask,
  vipsOf,
} from "./balance.ts";
import { meshHostSysctls, meshHostTable } from "./balancer/mesh-host.ts";
import { meshSandboxTable } from "./balancer/mesh-sandbox.ts";
import { planMeshTask } from "./balancer/mesh-task.ts";
import { portsTable } from "./balancer/ports.ts";
import type { MeshPort, VipService } from "./balancer/types.ts";
import { updateVip, vipTable } from "./balancer/vip.ts";
import type { Cluster } from "./cluster.ts";
import type { Core } from "./core.ts";
import { MeshReservations } from "./mesh-ports.ts";
import type { Names } from "./names.ts";
import type { SandboxExtras } from "./plan/sandbox.ts";
import { type PlannedTable, tableId } from "./plan/table.ts";
import { tunnelTable } from "./plan/tunnels.ts";
import type { NamespaceKey } from "./plan/types.ts";
import { attachedTo } from "./plan/world.ts";
import type { HostPorts } from "./ports.ts";
import type { Proxies } from "./proxies.ts";
import { resolverTable } from "./resolver/table.ts";
import { type NetworkState, type SandboxState, sandboxKey } from "./state.ts";

interface Vips {
  readonly services: readonly VipService[];
  readonly table: PlannedTable;
  /** Scripts that lead here from earlier states, by their bodies. */
  readonly paths: Map<string, string>;
}

const IPPROTO_TCP = 6;
/**
 * For so long after its last task a service still refuses: connections that were open would otherwise wait for an
 * answer to their last packet as long as TCP is willing to.
 */
const lateMs = 10 * 60_000;
/** How long the daemon of a node that left is given to come back. */
const returnMs = 5_000;

interface Late {
  readonly service: VipService;
  readonly until: number;
}

export class Datapath {
  readonly #core: Core;
  readonly #cluster: Cluster;
  readonly #names: Names;
  /** By network; dropped when the network's participants change. */
  readonly #services = new Map<string, readonly VipService[]>();
  /** Services by network and VIP that were there lately. */
  readonly #late = new Map<string, Map<string, Late>>();
  /** By the networks of a container, joined: the table that all such containers have. */
  readonly #vips = new Map<string, Vips>();
  /** What a loaded body was made of, to find the way from it to the next: the last few of each combination. */
  readonly #earlier = new Map<string, Vips[]>();
  #mesh: readonly MeshPort[] | undefined;
  /** Addresses that took part at the last look, by network: those that are gone leave connections behind. */
  readonly #known = new Map<string, ReadonlyMap<string, string>>();
  readonly #waiting = new Set<() => void>();
  readonly #reservations: MeshReservations;
  readonly #proxies: Proxies;

  constructor(core: Core, cluster: Cluster, names: Names, ports: HostPorts, proxies: Proxies) {
    this.#proxies = proxies;
    this.#core = core;
    this.#cluster = cluster;
    this.#names = names;
    this.#reservations = new MeshReservations(ports, core.log);
  }

  /** The participants of a network changed. */
  changed(network: NetworkState): void {
    const { id, ingress } = network.spec;
    this.#services.delete(id);
    for (const [key, vips] of this.#vips) {
      if (!key.split(" ").includes(id)) continue;
      this.#vips.delete(key);
      this.#earlier.set(key, [vips, ...(this.#earlier.get(key) ?? [])].slice(0, 4));
    }
    if (!ingress) return;
    this.#mesh = undefined;
    this.#reserve();
  }

  sandboxExtras(sandbox: SandboxState): SandboxExtras {
    const core = this.#core;
    const tables: PlannedTable[] = [];
    const resolver = this.#names.resolver(sandbox.id);
    if (resolver) tables.push(resolverTable(resolver.ports));
    if (sandbox.kind === "ingress") {
      const state = meshSandbox(core.world, this.#meshPorts());
      return { tables: state && state.ports.length > 0 ? [...tables, meshSandboxTable(state)] : tables };
    }
    const vips = this.#vipTable(sandbox);
    if (vips) tables.push(vips);
    const entries = meshEntries(core.world, this.#cluster.doors());
    const task = meshTask(core.world, sandbox, entries, this.returns, (port) => this.#proxies.port(sandbox.id, port));
    if (!task) return { tables };
    const mesh = planMeshTask(task);
    return { ...mesh, tables: [...tables, ...mesh.tables] };
  }

  hostTables(): PlannedTable[] {
    const { world } = this.#core;
    const tables: PlannedTable[] = [];
    const host = hostState(world);
    if (host.ports.length > 0) tables.push(portsTable(host));
    const mesh = meshHost(world, this.#meshPorts());
    if (mesh) tables.push(meshHostTable(mesh));
    const tunnels = this.#tunnels();
    if (tunnels) tables.push(tunnels);
    return tables;
  }

  /** The filter of VXLAN packets; undefined where there are no tunnels. */
  #tunnels(): PlannedTable | undefined {
    const core = this.#core;
    const { cluster } = core;
    const overlays = [...core.networks.values()].filter(({ spec }) => spec.driver === "overlay");
    if (!cluster || overlays.length === 0) return undefined;
    return tunnelTable(cluster, [
      ...overlays.flatMap(({ spec }) => this.#cluster.remotePeers(spec.id).map((peer) => peer.vtep)),
      ...this.#cluster.members(),
    ]);
  }

  /** Whether hosts came or went since the filter was loaded. */
  tunnelsChanged(): boolean {
    const table = this.#tunnels();
    return table !== undefined && this.#core.namespaces.host.loaded.get(tableId(table))?.body !== table.body;
  }

  hostSysctls(): Record<string, string> {
    const mesh = meshHost(this.#core.world, this.#meshPorts());
    return mesh ? meshHostSysctls(mesh) : {};
  }

  /** This kernel can send a task's answers back through the node that the client asked. */
  get returns(): boolean {
    return hasFeature("nftEgress");
  }

  /** The published ports of the routing mesh, as they are in the plans. */
  get mesh(): readonly MeshPort[] {
    return this.#meshPorts();
  }

  #meshPorts(): readonly MeshPort[] {
    const ingress = ingressOf(this.#core.world);
    if (!ingress) return [];
    this.#mesh ??= meshPorts(this.#cluster.participants(ingress.spec.id), this.#cluster.doors(), this.returns);
    return this.#mesh;
  }

  #vipTable(sandbox: SandboxState): PlannedTable | undefined {
    const networks = callableNetworks(this.#core.world, sandbox);
    if (networks.length === 0) return undefined;
    const key = networks.join(" ");
    let vips = this.#vips.get(key);
    if (!vips) {
      const services = networks.flatMap((networkId) => this.#servicesOf(networkId));
      vips = { services, table: vipTable(services), paths: new Map() };
      this.#vips.set(key, vips);
    }
    if (vips.services.length === 0) return undefined;
    const loaded = this.#core.namespaces.find(sandboxKey(sandbox.id))?.loaded.get(tableId(vips.table))?.body;
    if (loaded === undefined || loaded === vips.table.body) return vips.table;
    let script = vips.paths.get(loaded);
    if (script === undefined) {
      const before = this.#earlier.get(key)?.find(({ table }) => table.body === loaded);
      if (!before) return vips.table;
      script = pathBetween(before.services, vips.services);
      vips.paths.set(loaded, script);
    }
    return { ...vips.table, patch: { from: loaded, script } };
  }

  #servicesOf(networkId: string): readonly VipService[] {
    const known = this.#services.get(networkId);
    if (known) return known;
    const now = this.#core.clock.now();
    const services = vipsOf(networkId, this.#cluster.participants(networkId));
    const late = this.#late.get(networkId) ?? new Map<string, Late>();
    for (const service of services)
      late.set(service.vip, { service: { ...service, backends: [] }, until: now + lateMs });
    // An address that somebody else has now is no late service's any more.
    for (const address of this.#cluster.taken(networkId)) late.delete(address);
    for (const [vip, { until }] of late) if (until <= now) late.delete(vip);
    this.#late.set(networkId, late);
    const here = new Set(services.map((service) => service.vip));
    const all = [...services, ...[...late.values()].flatMap(({ service }) => (here.has(service.vip) ? [] : [service]))];
    this.#services.set(networkId, all);
    return all;
  }

  /** Namespaces whose tables show who serves what on this network. */
  affected(network: NetworkState): NamespaceKey[] {
    const keys: NamespaceKey[] = attachedTo(this.#core.world, network.spec.id).map(({ sandbox }) =>
      sandboxKey(sandbox.id),
    );
    return network.spec.ingress ? ["host", ...keys] : keys;
  }

  /** Keeps the mesh's ports from other programs, and carries what cannot be translated. */
  #reserve(): void {
    this.#reservations.follow(this.#meshPorts(), this.#core.namespaces.host.rtnl.addrs());
  }

  /**
   * Connections to tasks that are gone are forgotten: their next packet meets another task, which resets it, rather
   * than silence; those of this host's own containers end at once. A suspected node's tasks are not gone; those of a node that left may only have a daemon that is being
   * restarted, which comes back under another name.
   */
  forgetDead(network: NetworkState): void {
    const { id } = network.spec;
    const now = this.#cluster.addresses(id);
    const gone = [...(this.#known.get(id) ?? [])].filter(([address]) => !now.has(address));
    this.#known.set(id, now);
    const dead = gone.filter(([, owner]) => this.#cluster.isMember(owner)).map(([address]) => address);
    const lost = gone.filter(([, owner]) => !this.#cluster.isMember(owner)).map(([address]) => address);
    this.#flush(id, dead);
    if (lost.length === 0) return;
    const cancel = this.#core.clock.after(returnMs, () => {
      this.#waiting.delete(cancel);
      const back = this.#cluster.addresses(id);
      this.#flush(
        id,
        lost.filter((address) => !back.has(address)),
      );
    });
    this.#waiting.add(cancel);
  }

  #flush(networkId: string, addresses: readonly string[]): void {
    const core = this.#core;
    if (addresses.length === 0) return;
    for (const { sandbox } of attachedTo(core.world, networkId)) {
      const ns = core.namespaces.find(sandboxKey(sandbox.id))?.ns;
      if (!ns || sandbox.kind === "lb") continue;
      try {
        using conntrack = openConntrack(ns);
        const flows = conntrack.take({ family: 4, replySrc: addresses });
        // One that was not answered is dealt to another task when it is tried again.
        const streams = flows.filter(({ protocol, answered }) => protocol === IPPROTO_TCP && answered);
        const ended = abortTcp(ns, streams);
        if (ended > 0) core.log.info("connections to tasks that are gone were ended", { sandbox: sandbox.id, ended });
      } catch (error) {
        core.log.warn("cannot forget connections", { sandbox: sandbox.id, error: messageOf(error) });
      }
    }
  }

  close(): void {
    for (const cancel of this.#waiting) cancel();
    this.#waiting.clear();
  }

  forget(networkId: string): void {
    this.#services.delete(networkId);
    this.#late.delete(networkId);
    this.#known.delete(networkId);
    for (const map of [this.#vips, this.#earlier]) {
      for (const key of map.keys()) if (key.split(" ").includes(networkId)) map.delete(key);
    }
    this.#mesh = undefined;
    this.#reserve();
  }
}

/** The changes that lead from one set of services to another. */
function pathBetween(before: readonly VipService[], after: readonly VipService[]): string {
  const old = new Map(before.map((service) => [service.id, service]));
  const script: string[] = [];
  const kept = new Set(after.map((service) => service.id));
  for (const service of before) if (!kept.has(service.id)) script.push(updateVip(service, undefined));
  for (const service of after) {
    const was = old.get(service.id);
    if (JSON.stringify(was) !== JSON.stringify(service)) script.push(updateVip(was, service));
  }
  return script.join("");
}
