/**
 * The routing mesh, first station: the host that a client asks. Table `ip skein-ingress`.
 *
 * 1. client -> any address of this host, published port P. nat `prerouting` (local programs: `output`): the
 *    destination becomes ingress_sbox's address on docker_gwbridge, port P kept, the client's address kept.
 *    A port may be published at some addresses or subnets only (`bound`); at 127.0.0.1 it is for local programs,
 *    whatever packets from outside claim.
 * 2. host -> docker_gwbridge -> ingress_sbox (mesh-sandbox.ts). Clients whose address means nothing beyond this
 *    host (loopback, containers on docker_gwbridge itself) are masqueraded.
 * 3. Answers come back the same way and are translated back by connection tracking.
 *
 * `guard`: loopback clients need `route_localnet` on docker_gwbridge (`meshHostSysctls`), which would open this
 * host's 127.0.0.0/8 to the containers there.
 */
import type { PlannedTable } from "../plan/table.ts";
import { baseChain, body, DSTNAT, intervalSet, namedSet, quoted, RAW, SRCNAT } from "./text.ts";
import type { MeshHost } from "./types.ts";

export function meshHostTable(state: MeshHost): PlannedTable {
  const bridge = quoted(state.bridge);
  const publish = [
    `fib daddr type local meta l4proto . th dport @ports dnat to ${state.sandbox}`,
    `fib daddr type local ip daddr . meta l4proto . th dport @bound dnat to ${state.sandbox}`,
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
      baseChain("guard", "filter", "prerouting", RAW, [`iifname ${bridge} ip daddr 127.0.0.0/8 drop`]),
      // Before routing nobody has asked yet whether a packet for 127.0.0.1 may come from outside.
      baseChain("prerouting", "nat", "prerouting", DSTNAT, ["ip daddr 127.0.0.0/8 return", ...publish]),
      baseChain("output", "nat", "output", DSTNAT, publish),
      baseChain("postrouting", "nat", "postrouting", SRCNAT, [
        `oifname ${bridge} ip saddr { 127.0.0.0/8, ${state.bridgeSubnet} } ct status dnat masquerade`,
      ]),
    ),
  };
}

export function meshHostSysctls(state: Pick<MeshHost, "bridge">): Record<string, string> {
  return {
    "net.ipv4.ip_forward": "1",
    [`net.ipv4.conf.${state.bridge.replaceAll(".", "/")}.route_localnet`]: "1",
  };
}
