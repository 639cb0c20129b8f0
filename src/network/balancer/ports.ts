/**
 * Published ports of containers on bridge networks: table `inet skein-ports` in the host's namespace.
 *
 * 1. client -> an address of this host, published port. nat `prerouting` (local programs: `output`): is the port
 *    published at this very address, else at every address? The destination becomes the container's.
 * 2. Forwarded to the container's bridge; filtering is the bridge networks' own table, which lets pass what was
 *    translated here. The client's address is kept, except where the answer would not come back:
 *    clients on the host's loopback, and containers of the same bridge.
 *
 * A port published at 127.0.0.1 is for local programs only: packets from outside for 127.0.0.0/8 are never
 * translated, wherever they claim to go. `[::1]` cannot be translated at all (Linux routes it nowhere else): there
 * the port refuses, and clients of "localhost" go on to 127.0.0.1.
 *
 * Where br_netfilter is loaded, a container that asks for its own published port is answered only if its bridge port
 * has hairpin mode: the frame goes back through the port it came by, without leaving the bridge.
 *
 * Loopback clients need `route_localnet` on the bridge, and that needs the bridge's own guard of 127.0.0.0/8.
 */
import { familyOf } from "../../kernel/inet.ts";
import type { PlannedTable } from "../plan/table.ts";
import { baseChain, body, chain, DSTNAT, namedMap, quoted, SRCNAT } from "./text.ts";
import type { HostBridge, HostPort, HostState } from "./types.ts";

const EVERYWHERE = new Set(["", "0.0.0.0", "::"]);

export function portsTable(state: HostState): PlannedTable {
  const port = "inet_proto . inet_service";
  const of = (family: 4 | 6, bound: boolean) =>
    state.ports
      .filter((one) => familyOf(one.address) === family && !EVERYWHERE.has(one.hostIp) === bound)
      .map((one) => elementOf(one, bound));
  return {
    family: "inet",
    name: "skein-ports",
    body: body(
      namedMap("bound4", `ipv4_addr . ${port} : ipv4_addr . inet_service`, of(4, true)),
      namedMap("any4", `${port} : ipv4_addr . inet_service`, of(4, false)),
      namedMap("bound6", `ipv6_addr . ${port} : ipv6_addr . inet_service`, of(6, true)),
      namedMap("any6", `${port} : ipv6_addr . inet_service`, of(6, false)),
      chain("publish", [
        "dnat ip to ip daddr . meta l4proto . th dport map @bound4",
        "meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4",
        "dnat ip6 to ip6 daddr . meta l4proto . th dport map @bound6",
        "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6",
      ]),
      baseChain("prerouting", "nat", "prerouting", DSTNAT, [
        "ip daddr 127.0.0.0/8 return",
        "fib daddr type local jump publish",
      ]),
      baseChain("output", "nat", "output", DSTNAT, ["ip6 daddr ::1 return", "fib daddr type local jump publish"]),
      baseChain("postrouting", "nat", "postrouting", SRCNAT, state.bridges.flatMap(returnPaths)),
    ),
  };
}

function elementOf({ protocol, hostIp, hostPort, address, containerPort }: HostPort, bound: boolean): string {
  if (hostIp !== "" && familyOf(hostIp) !== familyOf(address)) {
    throw new Error(`port ${hostPort} of ${hostIp} cannot be translated to ${address}`);
  }
  return `${bound ? `${hostIp} . ` : ""}${protocol} . ${hostPort} : ${address} . ${containerPort}`;
}

function returnPaths(bridge: HostBridge): string[] {
  const out = `oifname ${quoted(bridge.name)}`;
  const same = bridge.subnets.map((subnet) => {
    const family = subnet.includes(":") ? "ip6" : "ip";
    return `${out} ${family} saddr ${subnet} ct status dnat masquerade`;
  });
  return [`${out} ip saddr 127.0.0.0/8 ct status dnat masquerade`, ...same];
}
