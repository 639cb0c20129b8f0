/** Puts together what people can see. It reads state, gossip and kernel; it changes none of them. */
import { plainIp } from "../address.ts";
import { doorOf, ingressOf, meshHost, reachOf } from "../balance.ts";
import type { Cluster } from "../cluster.ts";
import type { Core } from "../core.ts";
import type { Datapath } from "../datapath.ts";
import { parseOverlay } from "../drivers/overlay.ts";
import type { Names } from "../names.ts";
import { overlayPin } from "../overlays.ts";
import type { Paths } from "../paths.ts";
import { gatewayOf, wayOut } from "../plan/world.ts";
import { describe } from "../reconcile/diff.ts";
import type { Comparison } from "../reconcile/reconciler.ts";
import type { Repairs } from "../repairs.ts";
import { type NetworkState, overlayKey } from "../state.ts";
import { gossipView } from "./gossip.ts";
import { compareAddresses, linkLooks, localEndpoints, remoteEndpoints } from "./overlay.ts";
import { containerPortLooks, meshLooks, type Participants, serviceLooks } from "./services.ts";
import { trace } from "./trace.ts";
import type {
  GossipView,
  NamespaceDifferences,
  NetworkHost,
  NetworkLook,
  NetworkView,
  NodeState,
  PortLook,
  RepairsView,
  ServiceLook,
  Trace,
} from "./types.ts";

export interface ViewParts {
  readonly core: Core;
  readonly cluster: Cluster;
  readonly datapath: Datapath;
  readonly paths: Paths;
  readonly repairs: Repairs;
  readonly names: Names;
}

export class View implements NetworkView {
  readonly #parts: ViewParts;

  constructor(parts: ViewParts) {
    this.#parts = parts;
  }

  readonly differences = async (): Promise<NamespaceDifferences[]> => {
    const { core } = this.#parts;
    const found: NamespaceDifferences[] = [];
    for (const namespace of core.namespaces.keys()) {
      const compared = await core.compare(namespace);
      if (compared && compared.steps.length > 0) found.push({ namespace, differences: compared.steps.map(describe) });
    }
    return found;
  };

  readonly repairs = (): RepairsView => {
    const { repairs } = this.#parts;
    return { total: repairs.total, byKind: repairs.counts(), recent: repairs.recent() };
  };

  readonly gossip = (): GossipView | undefined => {
    const { core, cluster } = this.#parts;
    if (!core.cluster) return undefined;
    return gossipView(core.cluster, cluster.gossip, cluster.keyIds(), (node) => cluster.doors().has(node));
  };

  readonly networks = async (): Promise<NetworkLook[]> => {
    const looks: NetworkLook[] = [];
    for (const network of [...this.#parts.core.networks.values()]) looks.push(await this.#network(network));
    return looks;
  };

  readonly services = (): ServiceLook[] => serviceLooks(this.#participants());

  readonly ports = (): PortLook[] => {
    const { core, datapath } = this.#parts;
    const { world } = core;
    const ingress = ingressOf(world)?.spec.id;
    const participants = this.#participants().find(({ networkId }) => networkId === ingress);
    const mesh = participants
      ? meshLooks(datapath.mesh, participants, doorOf(world), meshHost(world, datapath.mesh)?.leg)
      : [];
    const containers = containerPortLooks(core.world, (sandbox) => reachOf(core.world, sandbox));
    return [...mesh, ...containers].sort((a, b) => a.port - b.port || (a.protocol < b.protocol ? -1 : 1));
  };

  readonly trace = async (sandboxId: string, from: string, to: string): Promise<Trace | undefined> => {
    const { core, names } = this.#parts;
    const sandbox = core.sandboxes.get(sandboxId);
    if (!sandbox) return undefined;
    const out = wayOut(core.world, sandbox)?.endpoint;
    const through = out && core.networks.get(out.networkId);
    return trace(to, {
      sandbox,
      from,
      networks: await this.networks(),
      services: this.services(),
      resolve: (name) => names.lookup(sandboxId, name),
      wayOut: out && through && { gateway: gatewayOf(through, 4), ifName: out.ifName, network: through.spec.name },
    });
  };

  /** Of the swarm's networks that are on this node. */
  #participants(): Participants[] {
    const { core, cluster } = this.#parts;
    return [...core.networks.values()]
      .filter(({ spec }) => spec.driver === "overlay")
      .map(({ spec: { id, name, ingress } }) => {
        const counting = cluster.participants(id);
        const suspended = cluster
          .told(id)
          .flatMap(({ participant, peer }) =>
            participant && peer && cluster.isSuspended(participant.owner) ? [participant] : [],
          );
        return { networkId: id, name, ingress, counting, suspended };
      });
  }

  async #network(network: NetworkState): Promise<NetworkLook> {
    const { spec } = network;
    const base = {
      id: spec.id,
      name: spec.name,
      driver: spec.driver,
      scope: spec.scope,
      ingress: spec.ingress,
      internal: spec.internal,
      here: localEndpoints(this.#parts.core.world, spec.id),
    };
    if (spec.driver === "overlay" && !spec.configOnly) return { ...base, ...(await this.#overlay(network)) };
    const subnets = spec.ipam.config.map(({ subnet, gateway }) => ({ subnet, gateway: plainIp(gateway ?? "") }));
    return { ...base, subnets, elsewhere: [], hosts: [], links: [], differences: [], repairs: [] };
  }

  async #overlay(network: NetworkState) {
    const { core, cluster, repairs } = this.#parts;
    const { spec } = network;
    const key = overlayKey(spec.id);
    const options = parseOverlay(spec, core.world);
    const compared: Comparison | undefined = await core.compare(key);
    const elsewhere = remoteEndpoints(cluster.told(spec.id), network, core.world, compared?.plan, compared?.actual, {
      stateOf: this.#stateOf(),
      isSuspended: (node) => cluster.isSuspended(node),
    });
    return {
      subnets: spec.ipam.config.map((pool, index) => ({
        subnet: pool.subnet,
        gateway: plainIp(pool.gateway ?? ""),
        ...(!pool.subnet.includes(":") && { vni: options.subnets[index]?.vni ?? 0 }),
      })),
      mtu: options.mtu,
      namespace: core.namespaces.pathOf(overlayPin(spec.id)),
      ...(network.lbAddress && { balancer: plainIp(network.lbAddress) }),
      elsewhere,
      hosts: this.#hosts(spec.id, elsewhere),
      links: compared ? linkLooks(compared.plan, compared.actual) : [],
      differences: compared?.steps.map(describe) ?? [],
      repairs: repairs.recent().filter(({ namespace }) => namespace === key),
    };
  }

  #stateOf(): (node: string) => NodeState {
    const states = new Map(this.#parts.cluster.gossip?.members().map(({ name, state }) => [name, state]));
    return (node) => states.get(node) ?? "unknown";
  }

  /** Members of the network's gossip, and hosts that only records speak of. */
  #hosts(networkId: string, elsewhere: NetworkLook["elsewhere"]): NetworkHost[] {
    const { core, cluster, paths } = this.#parts;
    const { gossip } = cluster;
    const stateOf = this.#stateOf();
    const measured = new Map(paths.list().map(({ host, mtu }) => [host, mtu]));
    const count = new Map<string, number>();
    for (const { host } of elsewhere) count.set(host, (count.get(host) ?? 0) + 1);
    const own = core.cluster?.dataPathAddress ?? "";
    count.set(own, localEndpoints(core.world, networkId).length);
    // Gossip tells a node's address for gossip; the records it announces, where its data path is.
    const pathOf = new Map(elsewhere.map(({ announcedBy, host }) => [announcedBy.node, host]));
    const members = gossip?.peers(networkId) ?? [];
    const hosts = members.map(({ name, address }): NetworkHost => {
      const self = name === gossip?.name;
      const at = self ? own : (pathOf.get(name) ?? address);
      const mtu = measured.get(at);
      return {
        address: at,
        node: name,
        state: stateOf(name),
        self,
        skein: self || cluster.doors().has(name),
        synced: self || (gossip?.synced(name, networkId) ?? false),
        endpoints: count.get(at) ?? 0,
        ...(mtu !== undefined && { pathMtu: mtu, expectedMtu: core.deviceMtu }),
      };
    });
    const known = new Set(hosts.map(({ address }) => address));
    const others = [...count.keys()].filter((host) => host !== "" && !known.has(host));
    const silent = others.map(
      (address): NetworkHost => ({
        address,
        node: "",
        state: "unknown",
        self: address === own,
        skein: address === own,
        synced: false,
        endpoints: count.get(address) ?? 0,
      }),
    );
    return [...hosts, ...silent].sort((a, b) => compareAddresses(a.address, b.address));
  }
}
