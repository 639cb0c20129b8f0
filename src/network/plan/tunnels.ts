/**
 * Who may speak VXLAN to this host: table `inet skein-tunnels`. The kernel's device takes any frame with its network's
 * number, whoever sends it; here only the swarm's hosts are heard, on this host's data path address and the interface
 * that has it, so that a container cannot speak for a host. This keeps strangers on the same segment out, not forgers
 * of addresses there: against those only encryption helps.
 *
 * Tunnels are not tracked as connections: the source port differs in both directions, so that nothing could ever be said
 * of an answer, and each packet would pay for it.
 */
import type { ClusterNetworking } from "../types.ts";
import type { PlannedTable } from "./table.ts";

/** `hosts`: data path addresses told in peer records and addresses of gossip members, in any order. */
export function tunnelTable(cluster: ClusterNetworking, hosts: readonly string[]): PlannedTable {
  const known = [...new Set([...hosts, cluster.dataPathAddress])].sort();
  const set = (name: string, type: string, members: string[]) => {
    const elements = members.length > 0 ? ` elements = { ${members.join(", ")} }` : "";
    return `  set ${name} { type ${type};${elements} }\n`;
  };
  const own = cluster.dataPathAddress;
  const heard = own.includes(":") ? `ip6 daddr ${own} ip6 saddr @hosts6` : `ip daddr ${own} ip saddr @hosts4`;
  const ip = own.includes(":") ? "ip6" : "ip";
  const untracked = (hook: string, side: string) =>
    `  chain ${hook} {\n    type filter hook ${hook} priority raw; policy accept;\n` +
    `    ${ip} ${side} ${own} udp dport ${cluster.dataPathPort} notrack\n  }\n`;
  const body = [
    set(
      "hosts4",
      "ipv4_addr",
      known.filter((host) => !host.includes(":")),
    ),
    set(
      "hosts6",
      "ipv6_addr",
      known.filter((host) => host.includes(":")),
    ),
    untracked("prerouting", "daddr"),
    untracked("output", "saddr"),
    "  chain input {\n",
    "    type filter hook input priority filter; policy accept;\n",
    "    meta l4proto != udp accept\n",
    `    udp dport != ${cluster.dataPathPort} accept\n`,
    "    fib daddr . iif type != local drop\n",
    `    ${heard} accept\n`,
    "    drop\n",
    "  }\n",
  ].join("");
  return { family: "inet", name: "skein-tunnels", body };
}
