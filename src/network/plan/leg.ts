/**
 * The host's own leg in the ingress network: a pair between the host (`veth-ingress`) and the network's switch, by which
 * the routing mesh sends to tasks without passing `ingress_sbox` (balancer/mesh-host.ts). What goes there is marked, and a
 * rule leads marked packets to a routing table of the leg's own: the host's main table may have other plans for the
 * subnet, or none.
 *
 * Nobody is to talk to the host by it. It has no address on the network and answers no ARP; its own questions are asked
 * from an address that means nothing to anybody, lest the tasks here take the leg's MAC for that of whoever has one of
 * the host's addresses on the network. Its MAC is the sandbox's with one bit more, told with the node's door.
 */
import { formatSubnet, parseCidr } from "../address.ts";
import { parseOverlay } from "../drivers/overlay.ts";
import { ingressSandboxId, type NetworkState, overlayKey } from "../state.ts";
import type { MeshRouting } from "../types.ts";
import { neighbourPatience } from "./sandbox.ts";
import { aliasPrefix, type NamespacePlan, type PlannedLink } from "./types.ts";
import type { World } from "./world.ts";

export interface Leg {
  readonly network: NetworkState;
  readonly routing: MeshRouting;
  readonly mac: string;
  /** CIDR of the ingress network. */
  readonly subnet: string;
}

/** Of the host's half. Programs that manage devices are mostly told to leave `veth*` alone. */
export const legName = "veth-ingress";
export const legOnSwitchName = "veth-host";
/** Link-local, and the same on every host. */
const asks = { address: "169.254.51.1", prefix: 32, scope: "link" } as const;

export const defaultRouting: MeshRouting = { mark: 0x50000000, mask: 0xf0000000, table: 5100 };
const ipv6Mtu = 1280;
/** Of the rule: before those of whoever routes by other marks, as this one is never on anybody else's packets. */
const priority = 51;

/** The leg's MAC: that of its node's ingress_sbox, 02:…, as 06:…: no other of ours begins so. */
export const legMac = (mac: string): string => `06${mac.slice(2)}`;

/** Undefined without a door to the mesh, and where the ingress network is more than one switch. */
export function legOf({ networks, sandboxes, legless, meshRouting: routing = defaultRouting }: World): Leg | undefined {
  const sandbox = sandboxes.get(ingressSandboxId);
  const door = sandbox?.endpoints.find(({ role }) => role === "lb");
  const network = door && networks.get(door.networkId);
  const pools = network?.spec.ipam.config.filter(({ subnet }) => !subnet.includes(":")) ?? [];
  const subnet = parseCidr(pools[0]?.subnet ?? "")?.subnet;
  if (legless || !sandbox?.path || !door || !network?.spec.ingress || !subnet || pools.length !== 1) return undefined;
  return routing ? { network, routing, mac: legMac(door.mac), subnet: formatSubnet(subnet) } : undefined;
}

/** The switch's half, which makes both. */
export function legOnSwitch(world: World, { spec }: NetworkState): PlannedLink[] {
  const leg = spec.ingress ? legOf(world) : undefined;
  if (!leg || leg.network.spec.id !== spec.id) return [];
  return [
    {
      kind: "veth",
      name: legOnSwitchName,
      mtu: parseOverlay(spec, world).mtu,
      master: "br0",
      isolated: false,
      alias: `${aliasPrefix}the host's leg in network ${spec.name}`,
      inner: { namespace: "host", name: legName, mac: leg.mac },
    },
  ];
}

/** The host's half. */
export function legOnHost(
  world: World,
): Pick<NamespacePlan, "links" | "addrs" | "routes" | "rules" | "sysctls" | "ownTable"> {
  const leg = legOf(world);
  const { mark, mask, table } = leg?.routing ?? (world.meshRouting || defaultRouting);
  if (!leg) return { links: [], addrs: [], routes: [], rules: [], sysctls: {}, ownTable: table };
  const { spec } = leg.network;
  const { mtu } = parseOverlay(spec, world);
  const of = `net.ipv4.conf.${legName}`;
  return {
    links: [
      {
        kind: "inner",
        name: legName,
        mac: leg.mac,
        mtu,
        outer: { namespace: overlayKey(spec.id), name: legOnSwitchName },
      },
    ],
    addrs: [{ link: legName, ...asks }],
    routes: [{ family: 4, dst: leg.subnet, link: legName, table }],
    rules: [{ family: 4, priority, mark, mask, table }],
    sysctls: {
      // Answers are looked up by their mark, so that also a strict filter sees that they come from where tasks are. Where
      // the host's own marks replace ours, any way to their source is enough.
      [`${of}.src_valid_mark`]: "1",
      [`${of}.rp_filter`]: "2",
      [`${of}.arp_ignore`]: "8",
      [`${of}.arp_announce`]: "2",
      // On smaller devices the kernel has no IPv6 to switch off.
      ...(mtu >= ipv6Mtu && { [`net.ipv6.conf.${legName}.disable_ipv6`]: "1" }),
      ...neighbourPatience(legName, ["ipv4"]),
    },
    ownTable: table,
  };
}
