/**
 * The routing mesh, first station: the host that a client asks. Table `ip skein-ingress`.
 *
 * 1. client -> any address of this host, published port P. nat `prerouting` (local programs: `output`) finds where it
 *    goes, once per connection (`published`), P and the client's address kept. A port may be published at some addresses
 *    or subnets only (`bound`); at 127.0.0.1 it is for local programs, whatever packets from outside claim.
 *
 * By the host's own leg in the ingress network (plan/leg.ts), the short way:
 * 2. The destination becomes one of the service's tasks at random, by its ingress address: all that ingress_sbox would do
 *    to such a connection. It gets the leg's mark, and every packet of it towards the task, too (`arriving`, `sending`):
 *    by the mark a routing rule leads to the leg. Local programs' packets are routed after their translation, so they
 *    need the mark before it.
 * 3. Out of the leg, over the ingress network to the task, here or on another host (mesh-task.ts). Packets there are
 *    smaller than elsewhere: `leaving` tells both ends of TCP connections. What has the mark and is about to leave by
 *    another device has missed its rule (somebody removed it): it would reach a stranger with the task's address.
 * 4. The answer comes by the leg, and nothing else does (`answers`): whoever is on the ingress network cannot begin
 *    anything here. It is marked as well, so that the filter of return paths looks for its source by the leg's rule;
 *    unless the host's own policy has marked it, which then decides alone.
 *
 * By ingress_sbox (mesh-sandbox.ts), Docker's way:
 * 2. The destination becomes ingress_sbox's address on docker_gwbridge: for clients whose address means nothing beyond
 *    this host, or something else there (`near`: loopback, containers, who has an address like the ingress network's),
 *    for ports with tasks on real Docker nodes, who could not answer to a client's own address, and where there is no leg.
 * 3. host -> docker_gwbridge -> ingress_sbox. Loopback clients, containers on docker_gwbridge itself and addresses of the
 *    ingress network are masqueraded.
 * 4. Answers come back the same way and are translated back by connection tracking.
 *
 * `guard`: loopback clients need `route_localnet` on docker_gwbridge (`meshHostSysctls`), which would open this
 * host's 127.0.0.0/8 to the containers there.
 */
import type { PlannedTable } from "../plan/table.ts";
import {
  baseChain,
  body,
  CLAMP_MSS,
  chain,
  DSTNAT,
  dnatToOneOf,
  hex,
  intervalSet,
  MANGLE,
  namedMap,
  namedSet,
  portChain,
  quoted,
  RAW,
  SRCNAT,
  toPortChain,
} from "./text.ts";
import type { MeshHost, MeshLeg } from "./types.ts";

/** After the host's own marks (-150), before translation (-100). */
const MARKING = -140;

export function meshHostTable(state: MeshHost): PlannedTable {
  const bridge = quoted(state.bridge);
  const { leg } = state;
  const toSandbox = `dnat to ${state.sandbox}`;
  const found = leg ? "goto published" : toSandbox;
  const publish = [
    `fib daddr type local meta l4proto . th dport @ports ${found}`,
    `fib daddr type local ip daddr . meta l4proto . th dport @bound ${found}`,
  ];
  const ports: string[] = [];
  const bound: string[] = [];
  for (const { protocol, publishedPort, bound: subnets } of state.ports) {
    if (!subnets) ports.push(`${protocol} . ${publishedPort}`);
    for (const subnet of subnets ?? []) bound.push(`${subnet} . ${protocol} . ${publishedPort}`);
  }
  return {
    family: "ip",
    name: "skein-ingress",
    body: body(
      namedSet("ports", "inet_proto . inet_service", ports),
      intervalSet("bound", "ipv4_addr . inet_proto . inet_service", bound),
      ...(leg ? shortWay(leg, toSandbox) : []),
      baseChain("guard", "filter", "prerouting", RAW, [`iifname ${bridge} ip daddr 127.0.0.0/8 drop`]),
      // Before routing nobody has asked yet whether a packet for 127.0.0.1 may come from outside.
      baseChain("prerouting", "nat", "prerouting", DSTNAT, ["ip daddr 127.0.0.0/8 return", ...publish]),
      baseChain("output", "nat", "output", DSTNAT, publish),
      baseChain(
        "postrouting",
        "nat",
        "postrouting",
        SRCNAT,
        ["127.0.0.0/8", state.bridgeSubnet, state.ingressSubnet].map(
          (subnet) => `oifname ${bridge} ip saddr ${subnet} ct status dnat masquerade`,
        ),
      ),
    ),
  };
}

function shortWay(leg: MeshLeg, toSandbox: string): string[][] {
  const device = quoted(leg.device);
  const others = hex(~leg.mask >>> 0);
  const marked = `ct mark and ${hex(leg.mask)} == ${hex(leg.mark)}`;
  const mark = `meta mark set meta mark and ${others} or ${hex(leg.mark)}`;
  return [
    intervalSet("near", "ipv4_addr", leg.near),
    namedMap("tasks", "inet_proto . inet_service : verdict", leg.ports.map(toPortChain)),
    ...leg.ports.map((port) =>
      chain(portChain(port), [`ct mark set ct mark and ${others} or ${hex(leg.mark)}`, mark, dnatToOneOf(port.tasks)]),
    ),
    chain("published", [`ip saddr @near ${toSandbox}`, "meta l4proto . th dport vmap @tasks", toSandbox]),
    chain("answer", [
      `meta mark and ${others} == 0 meta mark set ${hex(leg.mark)} accept`,
      `meta mark set meta mark and ${others}`,
    ]),
    chain("answers", [`ct direction reply ${marked} goto answer`, "drop"]),
    baseChain("arriving", "filter", "prerouting", MARKING, [`iifname ${device} goto answers`, `${marked} ${mark}`]),
    baseChain("sending", "filter", "output", MARKING, [`${marked} ct direction original ${mark}`]),
    baseChain("leaving", "filter", "postrouting", MANGLE, [
      `oifname ${device} ${CLAMP_MSS}`,
      `oifname != ${device} ${marked} ct direction original drop`,
    ]),
  ];
}

export function meshHostSysctls(state: Pick<MeshHost, "bridge">): Record<string, string> {
  return {
    "net.ipv4.ip_forward": "1",
    [`net.ipv4.conf.${state.bridge.replaceAll(".", "/")}.route_localnet`]: "1",
  };
}
