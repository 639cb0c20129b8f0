/**
 * The host's own namespace.
 *
 * A packet of a container on a bridge network: eth0 -> veth -> bridge. To a neighbour on the same network it
 * stays on the bridge. To elsewhere it is routed by the host: filter `forward` keeps networks apart, `postrouting`
 * gives it the host's address. What comes in is let through only as an answer or when it was published (DNAT).
 */
import { createHash } from "node:crypto";
import { parseCidr, randomMac } from "../address.ts";
import { parseBridge } from "../drivers/bridge.ts";
import { parseIpvlan, parseMacvlan } from "../drivers/macvlan.ts";
import { type NetworkState, sandboxKey } from "../state.ts";
import { bridgeFirewall, openPorts } from "./firewall.ts";
import { legOnHost } from "./leg.ts";
import type { PlannedTable } from "./table.ts";
import {
  aliasPrefix,
  bridgedIsNotRouted,
  type NamespacePlan,
  type PlannedAddr,
  type PlannedLink,
  sysctlName,
} from "./types.ts";
import { attachedTo, bridgesOf, type World } from "./world.ts";

/** Neighbour table thresholds as Docker raises them: overlays of thousands of containers outgrow the defaults. */
const neighbourLimits = {
  "net.ipv4.neigh.default.gc_thresh1": 8192,
  "net.ipv4.neigh.default.gc_thresh2": 49152,
  "net.ipv4.neigh.default.gc_thresh3": 65536,
};

export function planHost(
  world: World,
  tables: readonly PlannedTable[],
  sysctls: Record<string, string> = {},
): NamespacePlan {
  const bridges = bridgesOf(world);
  const links: PlannedLink[] = [];
  const addrs: PlannedAddr[] = [];
  const switches: Record<string, string> = { "net.ipv4.ip_forward": "1", ...bridgedIsNotRouted, ...sysctls };
  for (const network of bridges) {
    const options = parseBridge(network.spec);
    const name = options.bridge;
    links.push({
      kind: "bridge",
      name,
      mtu: options.mtu,
      alias: `${aliasPrefix}network ${network.spec.name}`,
      // Left to itself a bridge takes its MAC from its ports, and neighbours lose it whenever a port goes.
      ...(network.bridgeByUser ? { byUser: true } : { mac: stableMac(network.spec.id) }),
    });
    for (const pool of network.spec.ipam.config) {
      const subnet = parseCidr(pool.subnet)?.subnet;
      // The gateway may be somebody else on the same wire, or nobody.
      if (subnet && (options.modes[subnet.family] === "isolated" || (subnet.family === 4 && options.inhibitIpv4)))
        continue;
      if (subnet && pool.gateway) addrs.push({ link: name, address: pool.gateway, prefix: subnet.prefix });
    }
    // Published ports answer on 127.0.0.1 too: such packets may leave through the bridge after their DNAT.
    switches[`net.ipv4.conf.${sysctlName(name)}.route_localnet`] = "1";
    switches[`net.ipv6.conf.${sysctlName(name)}.disable_ipv6`] = network.spec.enableIPv6 ? "0" : "1";
    if (network.spec.enableIPv6) {
      switches["net.ipv6.conf.all.forwarding"] = "1";
      // Nobody has our addresses; until the kernel were sure of that it would ask for no neighbour, for up to two seconds.
      switches[`net.ipv6.conf.${sysctlName(name)}.dad_transmits`] = "0";
      switches[`net.ipv6.conf.${sysctlName(name)}.router_solicitation_delay`] = "0";
    }
    links.push(...ports(world, network, name, options.mtu, !options.icc));
  }
  links.push(...parents(world));
  const leg = legOnHost(world);
  return {
    key: "host",
    purpose: "the host: bridges, published ports, ways out",
    ownership: "shared",
    links: [...links, ...leg.links],
    addrs: [...addrs, ...leg.addrs],
    routes: leg.routes,
    rules: leg.rules,
    ...(leg.ownTable !== undefined && { ownTable: leg.ownTable }),
    neighs: [],
    fdb: [],
    sysctls: { ...switches, ...leg.sysctls },
    tables: [bridgeFirewall(bridges, openPorts(world)), ...tables],
    // Which packets pass between them, that firewall decides.
    passages: [
      ...bridges.map(({ spec }) => parseBridge(spec).bridge),
      // And by the leg comes only what is asked for.
      ...leg.links.map(({ name }) => name),
    ].sort(),
  };
}

/** Devices that we make below macvlan and ipvlan networks. Networks may share a VLAN. */
function parents(world: World): PlannedLink[] {
  const links = new Map<string, PlannedLink>();
  for (const { spec, bridgeByUser } of world.networks.values()) {
    if (spec.configOnly || (spec.driver !== "macvlan" && spec.driver !== "ipvlan") || bridgeByUser) continue;
    const { parent, mtu } = spec.driver === "macvlan" ? parseMacvlan(spec) : parseIpvlan(spec);
    const common = { name: parent.name, alias: `${aliasPrefix}parent of ${spec.name}` };
    if (parent.kind === "dummy") links.set(parent.name, { kind: "dummy", ...common, mtu: mtu ?? 1500 });
    if (parent.kind === "vlan" && !links.has(parent.name)) {
      links.set(parent.name, { kind: "vlan", ...common, mtu: 0, lower: parent.lower, id: parent.id });
    }
  }
  return [...links.values()];
}

const stableMac = (id: string): string =>
  randomMac((size) => createHash("sha256").update(id).digest().subarray(0, size));

/** The host's halves of the veth pairs on one bridge. */
function ports(world: World, network: NetworkState, bridge: string, mtu: number, isolated: boolean): PlannedLink[] {
  return attachedTo(world, network.spec.id)
    .filter(({ sandbox, endpoint }) => sandbox.path !== undefined && endpoint.outerName !== "")
    .map(({ sandbox, endpoint }) => ({
      kind: "veth",
      name: endpoint.outerName,
      mtu,
      master: bridge,
      isolated,
      alias: `${aliasPrefix}${endpoint.ifName} of ${sandbox.id.slice(0, 12)} on ${network.spec.name}`,
      inner: { namespace: sandboxKey(sandbox.id), name: endpoint.ifName, mac: endpoint.mac },
    }));
}

/** Raises the kernel's limits where they are lower; never lowers. */
export function neighbourSysctls(current: (key: string) => number | undefined): Record<string, string> {
  const wanted: Record<string, string> = {};
  for (const [key, value] of Object.entries(neighbourLimits)) {
    const now = current(key);
    if (now !== undefined && now < value) wanted[key] = String(value);
  }
  return wanted;
}
