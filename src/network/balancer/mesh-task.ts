/**
 * The routing mesh, third station: a task's namespace. Tables `ip skein-mesh` and `netdev skein-mesh`, one routing
 * rule, one route, one neighbour.
 *
 * In: a packet for the task's ingress address, port P, from the ingress network.
 *   a. `marking`: if its source is not of the ingress network, the entry node kept the client's address. The frame's
 *      source MAC says which node that was, and by which of its two ways (ingress_sbox, the host's own leg); the
 *      connection gets that way's mark.
 *      And its own conntrack zone, for that direction only (`zoning`): a client may use one port for two
 *      entry nodes, which here would be one connection. Answers have no zone, so connection tracking gives the
 *      second another source port.
 *      The packet gets the mark, too: a stream's socket takes it over (`tcp_fwmark_accept`) and knows the way back,
 *      where `output` would have to find it anew for each packet.
 *   b. `prerouting`: port P becomes the target port. The address stays, except for datagrams of marked connections
 *      (`outside`): theirs becomes that of the default route. A datagram server bound to no address answers from
 *      the address that the kernel finds by the route to the client, and only an answer from the address that was
 *      asked is recognised as one. Streams answer from where they were accepted.
 * Out: the answer of a marked connection.
 *   c. `output`: the packet gets the connection's mark, unless its socket has it already; by the rule and the route it
 *      leaves by the ingress device instead of the default route, towards a neighbour that does not exist.
 *      `clamping`: TCP would go by the default route's packet size, which is larger than an overlay's.
 *   d. Connection tracking restores ingress address and port P.
 *   e. netdev `egress`, the last thing before the wire: the mark's node becomes the frame's destination MAC.
 *      One rule whatever the number of nodes; the overlay carries the frame by its MAC.
 *
 * `input` and `sending` close the ingress address for all but the published targets, as Docker does: the ingress
 * network connects every published task of the swarm. `headed` ports (proxy.ts) are open to our nodes' doors only, by
 * address and MAC.
 */
import type { SandboxExtras } from "../plan/sandbox.ts";
import type { PlannedTable } from "../plan/table.ts";
import { baseChain, body, CLAMP_MSS, DSTNAT, hex, MANGLE, namedMap, namedSet, quoted, RAW } from "./text.ts";
import type { MeshEntry, MeshTask } from "./types.ts";

const MARK = 0x50000000;
/** One bit is left for which of a node's two ways it was. */
const MARK_MASK = 0xd0000000;
const LEG = 0x20000000;
const ADDRESS_MASK = 0x0fffffff;
/** Of the routing table and of the rule that leads to it. */
const TABLE = 5100;
/** The neighbour that does not exist. */
const NOWHERE = { address: "169.254.51.0", mac: "02:00:00:00:51:00" };

/** One of the ways by which a client's packets come from a node, told by their frames' source MAC. */
interface Way {
  readonly mac: string;
  readonly mark: number;
  readonly zone: number;
}

function waysOf(entry: MeshEntry): Way[] {
  const mark = markOf(entry);
  const zone = zoneOf(entry);
  const way = { mac: entry.mac, mark, zone };
  // A sender of datagrams that changes over from one way to the other is two connections, as with two nodes.
  return entry.leg === undefined
    ? [way]
    : [way, { mac: entry.leg, mark: (mark | LEG) >>> 0, zone: zone ^ 0x8000 || 1 }];
}

/** A node's mark: its sandbox's address on the ingress network, which no two nodes share. */
export function markOf({ address }: Pick<MeshEntry, "address">): number {
  const number = address.split(".").reduce((value, part) => ((value << 8) | Number(part)) >>> 0, 0);
  return (MARK | (number & ADDRESS_MASK)) >>> 0;
}

/** Of the same uniqueness within 32767 addresses; 0 is the zone of everything else. */
function zoneOf({ address }: Pick<MeshEntry, "address">): number {
  const [, , high, low] = address.split(".").map(Number);
  return ((high ?? 0) << 8) | (low ?? 0) || 1;
}

/** What the mesh wants to have in a task's namespace. */
export function planMeshTask(state: MeshTask): SandboxExtras {
  if (!state.egressHook) return { tables: [portsTable(state, false)] };
  const device = state.ingressDevice;
  return {
    tables: [portsTable(state, true), egressTable(state)],
    sysctls: {
      // Clients' packets come by a device that their answers would not leave by.
      "net.ipv4.conf.all.rp_filter": "0",
      [`net.ipv4.conf.${device.replaceAll(".", "/")}.rp_filter`]: "0",
      "net.ipv4.tcp_fwmark_accept": "1",
    },
    rules: [{ family: 4, priority: TABLE, mark: MARK, mask: MARK_MASK, table: TABLE }],
    routes: [{ family: 4, dst: "default", gateway: NOWHERE.address, link: device, table: TABLE, onlink: true }],
    neighs: [{ link: device, ...NOWHERE }],
  };
}

function portsTable(state: MeshTask, returning: boolean): PlannedTable {
  const device = quoted(state.ingressDevice);
  const arriving = `iifname ${device} ip daddr ${state.ingressAddress}`;
  const datagrams = state.ports.filter(({ protocol }) => protocol === "udp");
  const targetsAt = (address: string, ports = state.ports) =>
    ports.map(
      ({ protocol, publishedPort, targetPort }) => `${protocol} . ${publishedPort} : ${address} . ${targetPort}`,
    );
  const type = "inet_proto . inet_service : ipv4_addr . inet_service";
  const targets = new Set(state.ports.map(({ protocol, targetPort }) => `${protocol} . ${targetPort}`));
  const outside = `${arriving} ip saddr != ${state.ingressSubnet}`;
  const ways = state.entries.flatMap(waysOf);
  const entries = ways.map(({ mac, mark }) => `${mac} : ${hex(mark)}`);
  const zones = ways.map(({ mac, zone }) => `${mac} : ${zone}`);
  const marked = `ct mark and ${hex(MARK_MASK)} == ${hex(MARK)}`;
  return {
    family: "ip",
    name: "skein-mesh",
    body: body(
      namedMap("ports", type, targetsAt(state.ingressAddress)),
      ...(returning
        ? [
            namedMap("outside", type, targetsAt(state.defaultSource, datagrams)),
            namedMap("entries", "ether_addr : mark", entries),
            baseChain("zoning", "filter", "prerouting", RAW, [
              // An anonymous map: nft has no name for the type of a zone.
              ...(zones.length > 0 ? [`${outside} ct original zone set ether saddr map { ${zones.join(", ")} }`] : []),
            ]),
            baseChain("marking", "filter", "prerouting", MANGLE, [
              `${outside} ct state new ct mark set ether saddr map @entries meta mark set ct mark`,
            ]),
          ]
        : []),
      namedSet("targets", "inet_proto . inet_service", [...targets]),
      baseChain("prerouting", "nat", "prerouting", DSTNAT, [
        ...(returning ? [`${outside} dnat to meta l4proto . th dport map @outside`] : []),
        `${arriving} dnat to meta l4proto . th dport map @ports`,
      ]),
      baseChain("input", "filter", "input", 0, [
        `iifname ${device} ct state established,related accept`,
        `iifname ${device} meta l4proto . th dport @targets accept`,
        ...headed(state),
        `iifname ${device} meta l4proto { tcp, udp, sctp } drop`,
      ]),
      baseChain("sending", "filter", "output", 0, [
        `oifname ${device} ip saddr ${state.ingressAddress} ct state new meta l4proto { tcp, udp, sctp } drop`,
      ]),
      ...(returning
        ? [
            baseChain("output", "route", "output", MANGLE, [`${marked} meta mark set ct mark`]),
            baseChain("clamping", "filter", "postrouting", MANGLE, [`oifname ${device} ${marked} ${CLAMP_MSS}`]),
          ]
        : []),
    ),
  };
}

/** Our nodes' doors may say who their clients are; a door is known by address and MAC. */
function headed({ ingressDevice, headed, entries }: MeshTask): string[] {
  if (headed.length === 0 || entries.length === 0) return [];
  const doors = entries.map(({ address, mac }) => `${address} . ${mac}`).join(", ");
  return [
    `iifname ${quoted(ingressDevice)} ip saddr . ether saddr { ${doors} } tcp dport { ${headed.join(", ")} } accept`,
  ];
}

function egressTable(state: MeshTask): PlannedTable {
  const entries = state.entries.flatMap(waysOf).map(({ mac, mark }) => `${hex(mark)} : ${mac}`);
  return {
    family: "netdev",
    name: "skein-mesh",
    body: body(
      namedMap("entries", "mark : ether_addr", entries),
      baseChain("egress", "filter", `egress device ${quoted(state.ingressDevice)}`, 0, [
        "ether daddr set meta mark map @entries",
      ]),
    ),
  };
}
