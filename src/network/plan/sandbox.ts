/**
 * The namespace of a container, of a network's balancer (`lb_<id>`) or of the routing mesh (`ingress_sbox`).
 *
 * One device per network, `eth0` first, the way out last; the default route leads through a bridge
 * network, or docker_gwbridge where there are only overlays; internal networks give none.
 */
import { parseCidr } from "../address.ts";
import { parseBridge } from "../drivers/bridge.ts";
import { parseIpvlan, parseMacvlan } from "../drivers/macvlan.ts";
import { parseOverlay } from "../drivers/overlay.ts";
import { type EndpointState, type NetworkState, overlayKey, type SandboxState, sandboxKey } from "../state.ts";
import type { PlannedTable } from "./table.ts";
import {
  type NamespacePlan,
  type PlannedAddr,
  type PlannedLink,
  type PlannedNeigh,
  type PlannedRoute,
  type PlannedRule,
  sysctlName,
} from "./types.ts";
import { gatewayOf, type World, wayOut } from "./world.ts";

/** What the resolver and the balancer want to have in a sandbox. */
export interface SandboxExtras {
  readonly tables: readonly PlannedTable[];
  readonly routes?: readonly PlannedRoute[];
  readonly rules?: readonly PlannedRule[];
  readonly neighs?: readonly PlannedNeigh[];
  readonly sysctls?: Readonly<Record<string, string>>;
}

export function planSandbox(world: World, sandbox: SandboxState, extras: SandboxExtras): NamespacePlan {
  const links: PlannedLink[] = [{ kind: "loopback", name: "lo" }];
  const addrs: PlannedAddr[] = [];
  const routes: PlannedRoute[] = [];
  const patience: Record<string, string> = {};
  let ipv6 = false;
  for (const endpoint of sandbox.endpoints) {
    const network = world.networks.get(endpoint.networkId);
    if (!network || endpoint.ifName === "") continue;
    ipv6 ||= network.spec.enableIPv6;
    links.push(linkOf(network, endpoint, world));
    if (network.spec.driver === "overlay") {
      Object.assign(
        patience,
        neighbourPatience(endpoint.ifName, network.spec.enableIPv6 ? ["ipv4", "ipv6"] : ["ipv4"]),
      );
    }
    for (const cidr of [endpoint.ipv4, endpoint.ipv6]) {
      const [address = "", prefix] = cidr.split("/");
      if (address) addrs.push({ link: endpoint.ifName, address, prefix: Number(prefix) });
    }
    routes.push(...otherSubnets(network, endpoint));
  }
  routes.push(...defaultRoutes(world, sandbox));
  return {
    key: sandboxKey(sandbox.id),
    purpose: purposeOf(sandbox),
    ownership: sandbox.kind === "container" ? "shared" : "ours",
    links,
    addrs,
    routes: [...routes, ...(extras.routes ?? [])],
    rules: extras.rules ?? [],
    neighs: extras.neighs ?? [],
    fdb: [],
    sysctls: {
      // A new namespace copies these from the initial one, whatever that happens to say.
      "net.ipv4.ip_forward": "1",
      "net.ipv6.conf.default.disable_ipv6": ipv6 ? "0" : "1",
      "net.ipv6.conf.all.disable_ipv6": ipv6 ? "0" : "1",
      ...(sandbox.kind === "container"
        ? { "net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647" }
        : {}),
      ...patience,
      ...extras.sysctls,
      ...sandbox.request.sysctls,
    },
    tables: extras.tables,
  };
}

/**
 * On an overlay nobody is asked but this host's own table, and who is not in it yet will be in a moment: a question is
 * said again after 100 ms instead of a second, for three seconds in all as ever.
 */
export function neighbourPatience(link: string, families: readonly ("ipv4" | "ipv6")[]): Record<string, string> {
  const found: Record<string, string> = {};
  for (const family of families) {
    const prefix = `net.${family}.neigh.${sysctlName(link)}`;
    found[`${prefix}.retrans_time_ms`] = "100";
    found[`${prefix}.mcast_solicit`] = "30";
  }
  return found;
}

function purposeOf(sandbox: SandboxState): string {
  switch (sandbox.kind) {
    case "container":
      return `container ${sandbox.id.slice(0, 12)}`;
    case "lb":
      return `load balancer ${sandbox.id} of this host`;
    case "ingress":
      return "routing mesh: from published ports to tasks on any host";
  }
}

function linkOf(network: NetworkState, endpoint: EndpointState, world: World): PlannedLink {
  const { spec } = network;
  const name = endpoint.ifName;
  const { mac } = endpoint;
  switch (spec.driver) {
    case "bridge":
      return {
        kind: "inner",
        name,
        mac,
        mtu: parseBridge(spec).mtu,
        outer: { namespace: "host", name: endpoint.outerName },
      };
    case "overlay":
      return {
        kind: "inner",
        name,
        mac,
        mtu: parseOverlay(spec, world).mtu,
        outer: { namespace: overlayKey(spec.id), name: endpoint.outerName },
      };
    case "macvlan": {
      const options = parseMacvlan(spec);
      return { kind: "macvlan", name, mac, mtu: options.mtu ?? 0, lower: options.parent.name, mode: options.mode };
    }
    case "ipvlan": {
      const options = parseIpvlan(spec);
      return { kind: "ipvlan", name, mtu: options.mtu ?? 0, lower: options.parent.name, mode: options.mode };
    }
    case "host":
    case "null":
      throw new Error(`an endpoint on ${spec.name} has no device`);
  }
}

/** The other subnets of a network with several lie behind its own bridge. */
function otherSubnets(network: NetworkState, endpoint: EndpointState): PlannedRoute[] {
  const own = parseCidr(endpoint.ipv4)?.subnet;
  if (!own || network.spec.driver !== "overlay") return [];
  const gateway = network.spec.ipam.config.find((pool) => parseCidr(pool.subnet)?.subnet.base === own.base)?.gateway;
  if (!gateway) return [];
  return network.spec.ipam.config
    .filter((pool) => !pool.subnet.includes(":") && parseCidr(pool.subnet)?.subnet.base !== own.base)
    .map((pool) => ({ family: 4, dst: pool.subnet, gateway: gateway.split("/")[0] ?? "", link: endpoint.ifName }));
}

function defaultRoutes(world: World, sandbox: SandboxState): PlannedRoute[] {
  const out = wayOut(world, sandbox);
  const network = out && world.networks.get(out.endpoint.networkId);
  if (!out || !network) return [];
  const link = out.endpoint.ifName;
  if (network.spec.driver === "ipvlan" && parseIpvlan(network.spec).mode !== "l2") {
    return [{ family: 4, dst: "default", link }];
  }
  const routes: PlannedRoute[] = [];
  for (const family of [4, 6] as const) {
    const gateway = gatewayOf(network, family);
    if (gateway && (family === 4 ? out.endpoint.ipv4 : out.endpoint.ipv6)) {
      routes.push({ family, dst: "default", gateway, link });
    }
  }
  return routes;
}
