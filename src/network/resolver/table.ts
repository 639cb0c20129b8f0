/**
 * The sandbox's own table for DNS. A container's question to 127.0.0.11 port 53: `output` sends it to the
 * port on which the resolver really listens (53 itself stays free for a name server in the container); the answer
 * finds its way back by connection tracking, or by `postrouting` when its entry has gone in between.
 */
import { type PlannedTable, replaceScript } from "../plan/table.ts";
import type { ResolverPorts } from "./types.ts";

export const RESOLVER_ADDRESS = "127.0.0.11";

/** `dstnat` and `srcnat` by number: nft 1.0.6 knows the names only at some hooks. */
export function resolverTable({ udp, tcp }: ResolverPorts): PlannedTable {
  const to = (port: number) => `${RESOLVER_ADDRESS}:${port}`;
  const body = [
    "  chain output {",
    "    type nat hook output priority -100; policy accept;",
    `    ip daddr ${RESOLVER_ADDRESS} udp dport 53 dnat to ${to(udp)}`,
    `    ip daddr ${RESOLVER_ADDRESS} tcp dport 53 dnat to ${to(tcp)}`,
    "  }",
    "  chain postrouting {",
    "    type nat hook postrouting priority 100; policy accept;",
    `    ip saddr ${RESOLVER_ADDRESS} udp sport ${udp} snat to ${to(53)}`,
    `    ip saddr ${RESOLVER_ADDRESS} tcp sport ${tcp} snat to ${to(53)}`,
    "  }",
  ].join("\n");
  return { family: "ip", name: "skein-dns", body };
}

/** The same as a script that puts it in place, whatever was there. */
export function nftTable(ports: ResolverPorts): string {
  return replaceScript(resolverTable(ports));
}
