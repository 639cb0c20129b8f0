/**
 * Filtering and masquerading of bridge networks: table `inet skein_bridge`.
 *
 * forward (priority filter): answers pass; packets within one bridge pass; internal networks end here;
 * what was DNATed (published ports) passes; the rest from one network to another, or from outside to an
 * unpublished port, is dropped. postrouting (srcnat): the way out gets the host's address.
 * Containers' packets for 127.0.0.0/8, which route_localnet would let in, are dropped before routing.
 */

import { formatSubnet, parseCidr } from "../address.ts";
import { parseBridge } from "../drivers/bridge.ts";
import type { NetworkState } from "../state.ts";
import type { PlannedTable } from "./table.ts";

const quoted = (name: string) => `"${name}"`;

/** A named set of device names; nft wants no empty `elements`. */
function ifnames(name: string, members: readonly string[]): string {
  const elements = members.length > 0 ? ` elements = { ${members.map(quoted).join(", ")} }` : "";
  return `  set ${name} { type ifname;${elements} }\n`;
}

export function bridgeFirewall(networks: readonly NetworkState[]): PlannedTable {
  const bridges = networks
    .map(({ spec }) => ({ spec, options: parseBridge(spec) }))
    .sort((a, b) => (a.options.bridge < b.options.bridge ? -1 : 1));
  const names = (keep: (bridge: (typeof bridges)[number]) => boolean) =>
    bridges.filter(keep).map((b) => b.options.bridge);
  const within = names((b) => b.options.icc).map((name) => `${quoted(name)} . ${quoted(name)}`);
  const masquerade: string[] = [];
  for (const { spec, options } of bridges) {
    if (!options.masquerade || spec.internal) continue;
    for (const pool of spec.ipam.config) {
      const subnet = parseCidr(pool.subnet)?.subnet;
      if (!subnet) continue;
      const match = `${subnet.family === 4 ? "ip" : "ip6"} saddr ${formatSubnet(subnet)} oifname != ${quoted(options.bridge)}`;
      const to = subnet.family === 4 && options.hostIpv4 ? `snat ip to ${options.hostIpv4}` : "masquerade";
      masquerade.push(`    ${match} ${to} comment ${quoted(spec.name.slice(0, 100))}\n`);
    }
  }
  const body = [
    ifnames(
      "bridges",
      names(() => true),
    ),
    ifnames(
      "internal",
      names((b) => b.spec.internal),
    ),
    `  set within { type ifname . ifname;${within.length > 0 ? ` elements = { ${within.join(", ")} }` : ""} }\n`,
    "  chain prerouting {\n",
    "    type filter hook prerouting priority raw; policy accept;\n",
    "    iifname @bridges ip daddr 127.0.0.0/8 drop\n",
    "  }\n",
    "  chain forward {\n",
    "    type filter hook forward priority filter; policy accept;\n",
    "    iifname != @bridges oifname != @bridges accept\n",
    "    ct state established,related accept\n",
    "    iifname . oifname @within accept\n",
    "    iifname @internal drop\n",
    "    oifname @internal drop\n",
    "    oifname @bridges ct status dnat accept\n",
    "    oifname @bridges drop\n",
    "  }\n",
    "  chain postrouting {\n",
    "    type nat hook postrouting priority srcnat; policy accept;\n",
    ...masquerade,
    "  }\n",
  ].join("");
  return { family: "inet", name: "skein_bridge", body };
}
