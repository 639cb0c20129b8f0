/**
 * What resolver and balancer contribute to plans, computed from discovery once per network and change, however many
 * sandboxes show it.
 */
import { toIpv6 } from "../base/dual-stack.ts";
import { messageOf } from "../base/errors.ts";
import { openConntrack } from "../kernel/conntrack.ts";
import { hasFeature } from "../kernel/feature.ts";
import { abortTcp } from "../kernel/sockdiag.ts";
import { hostState, ingressOf, meshEntries, meshHost, meshPorts, meshSandbox, meshTask } from "./balance.ts";
import { meshHostSysctls, meshHostTable } from "./balancer/mesh-host.ts";
import { meshSandboxTable } from "./balancer/mesh-sandbox.ts";
import { planMeshTask } from "./balancer/mesh-task.ts";
import { portsTable } from "./balancer/ports.ts";
import type { MeshPort } from "./balancer/types.ts";
import type { Cluster } from "./cluster.ts";
import type { Core } from "./core.ts";
import { forgetUntranslated } from "./datagrams.ts";
import { dualStack } from "./drivers/overlay.ts";
import { MeshReservations } from "./mesh-ports.ts";
import type { Names } from "./names.ts";
import { defaultRouting, legOf } from "./plan/leg.ts";
import type { SandboxExtras } from "./plan/sandbox.ts";
import { type PlannedTable, tableId } from "./plan/table.ts";
import { tunnelTable } from "./plan/tunnels.ts";
import type { NamespaceKey } from "./plan/types.ts";
import { attachedTo, type World } from "./plan/world.ts";
import type { HostPorts } from "./ports.ts";
import type { Proxies } from "./proxies.ts";
import { resolverTable } from "./resolver/table.ts";
import { type NetworkState, type SandboxState, sandboxKey } from "./state.ts";
import type { PublishedPort } from "./types.ts";
import { VipTables } from "./vips.ts";

const IPPROTO_TCP = 6;
/** How long the daemon of a node that left is given to come back. */
const returnMs = 5_000;

export class Datapath {
  readonly #core: Core;
  readonly #cluster: Cluster;
  readonly #names: Names;
  readonly #vips: VipTables;
  #mesh: readonly MeshPort[] | undefined;
  /** Addresses that took part at the last look, by network: those that are gone leave connections behind. */
  readonly #known = new Map<string, ReadonlyMap<string, string>>();
  readonly #waiting = new Set<() => void>();
  /** UDP ports of the mesh at the last look. */
  #datagrams: ReadonlySet<number> = new Set();
  readonly #reservations: MeshReservations;
  readonly #proxies: Proxies;

  constructor(core: Core, cluster: Cluster, names: Names, ports: HostPorts, proxies: Proxies) {
    this.#proxies = proxies;
    this.#core = core;
    this.#cluster = cluster;
    this.#names = names;
    this.#vips = new VipTables(core, cluster);
    this.#reservations = new MeshReservations(ports, core.log);
  }

  /** The participants of a network changed. */
  changed(network: NetworkState): void {
    const { id, ingress } = network.spec;
    this.#vips.changed(id);
    if (!ingress) return;
    this.#mesh = undefined;
    this.reserve();
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
    tables.push(...this.#vips.tablesOf(sandbox));
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

  /** One of them by its place on this host. */
  meshPort({ protocol, hostPort }: Pick<PublishedPort, "protocol" | "hostPort">): MeshPort | undefined {
    return this.#meshPorts().find((port) => port.protocol === protocol && port.publishedPort === hostPort);
  }

  #meshPorts(): readonly MeshPort[] {
    const ingress = ingressOf(this.#core.world);
    if (!ingress) return [];
    this.#mesh ??= meshPorts(this.#cluster.participants(ingress.spec.id), this.#cluster.doors(), this.returns);
    return this.#mesh;
  }

  /** Namespaces whose tables show who serves what on this network. */
  affected(network: NetworkState): NamespaceKey[] {
    const keys: NamespaceKey[] = attachedTo(this.#core.world, network.spec.id).map(({ sandbox }) =>
      sandboxKey(sandbox.id),
    );
    return network.spec.ingress ? ["host", ...keys] : keys;
  }

  /** Keeps the mesh's ports from other programs, and carries what cannot be translated. Again when addresses came or went. */
  reserve(): void {
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

  /** The mesh's tables are in the kernel. */
  forgetEarly(): void {
    const ports = this.#meshPorts().filter(({ protocol }) => protocol === "udp");
    const now = new Set(ports.map(({ publishedPort }) => publishedPort));
    const added = new Set([...now].filter((port) => !this.#datagrams.has(port)));
    this.#datagrams = now;
    forgetUntranslated(this.#core, added);
  }

  #flush(networkId: string, addresses: readonly string[]): void {
    const core = this.#core;
    if (addresses.length === 0) return;
    const spec = core.networks.get(networkId)?.spec;
    const dual = spec && dualStack(spec);
    const twins = dual ? addresses.flatMap((address) => toIpv6(dual, address) ?? []) : [];
    this.#flushLeg(networkId, addresses);
    for (const { sandbox } of attachedTo(core.world, networkId)) {
      const ns = core.namespaces.find(sandboxKey(sandbox.id))?.ns;
      if (!ns || sandbox.kind === "lb") continue;
      try {
        using conntrack = openConntrack(ns);
        const flows = [
          ...conntrack.take({ family: 4, replySrc: addresses }),
          ...(twins.length > 0 ? conntrack.take({ family: 6, replySrc: twins }) : []),
        ];
        // One that was not answered is dealt to another task when it is tried again.
        const streams = flows.filter(({ protocol, answered }) => protocol === IPPROTO_TCP && answered);
        const ended = abortTcp(ns, streams);
        if (ended > 0) core.log.info("connections to tasks that are gone were ended", { sandbox: sandbox.id, ended });
      } catch (error) {
        core.log.warn("cannot forget connections", { sandbox: sandbox.id, error: messageOf(error) });
      }
    }
  }

  /** Connections that went by the host's own leg: those of the host's own to the same addresses elsewhere are not ours. */
  #flushLeg(networkId: string, replySrc: readonly string[]): void {
    const { world } = this.#core;
    if (legOf(world)?.network.spec.id === networkId) this.#flushMarked(world, { replySrc });
  }

  #flushMarked({ meshRouting }: World, of: { replySrc?: readonly string[] }): void {
    const { mark: value, mask } = meshRouting || defaultRouting;
    try {
      using conntrack = openConntrack();
      conntrack.flush({ family: 4, ...of, mark: { value, mask } });
    } catch (error) {
      this.#core.log.warn("cannot forget connections", { sandbox: "host", error: messageOf(error) });
    }
  }

  close(): void {
    for (const cancel of this.#waiting) cancel();
    this.#waiting.clear();
  }

  forget(networkId: string): void {
    this.#vips.forget(networkId);
    this.#known.delete(networkId);
    const { world } = this.#core;
    // The leg went with it, and what was on its way there would now go anywhere.
    if (!legOf(world)) this.#flushMarked(world, {});
    this.#mesh = undefined;
    this.reserve();
  }
}
