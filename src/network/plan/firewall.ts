/**
 * Filtering and masquerading of bridge networks: table `inet skein_bridge`.
 *
 * forward (priority filter): answers pass; packets within one bridge pass; internal networks end here;
 * what was DNATed (published ports) passes; the rest from one network to another, or from outside to an
 * unpublished port, is dropped. postrouting (srcnat): the way out gets the host's address.
 * Containers' packets for 127.0.0.0/8, which route_localnet would let in, are dropped before routing.
 *
 * Networks in a gateway mode other than "nat" are entered at the container's own address as well: "routed" ones, and
 * those of trusted devices, at published ports; "nat-unprotected" ones at every port.
 */

import { formatSubnet, parseCidr, plainIp } from "../address.ts";
import { parseBridge } from "../drivers/bridge.ts";
import type { NetworkState } from "../state.ts";
import type { PlannedTable } from "./table.ts";
import { type World, wayOut } from "./world.ts";

const quoted = (name: string) => `"${name}"`;

/** A named set of device names; nft wants no empty `elements`. */
function ifnames(name: string, members: readonly string[]): string {
  const elements = members.length > 0 ? ` elements = { ${members.map(quoted).join(", ")} }` : "";
  return `  set ${name} { type ifname;${elements} }\n`;
}

/** A published port at the container's own address: "172.17.0.2 . tcp . 80", by family. */
export interface OpenPorts {
  readonly 4: readonly string[];
  readonly 6: readonly string[];
}

export function openPorts(world: World): OpenPorts {
  const open = { 4: new Set<string>(), 6: new Set<string>() };
  for (const sandbox of world.sandboxes.values()) {
    const out = sandbox.ports.length > 0 ? wayOut(world, sandbox)?.endpoint : undefined;
    for (const { protocol, containerPort } of out ? sandbox.ports : []) {
      if (out?.ipv4) open[4].add(`${plainIp(out.ipv4)} . ${protocol} . ${containerPort}`);
      if (out?.ipv6) open[6].add(`${plainIp(out.ipv6)} . ${protocol} . ${containerPort}`);
    }
  }
  return { 4: [...open[4]].sort(), 6: [...open[6]].sort() };
}

const families = [
  { family: 4, type: "ipv4_addr", word: "ip", icmp: "icmp", nfproto: "ipv4" },
  { family: 6, type: "ipv6_addr", word: "ip6", icmp: "ipv6-icmp", nfproto: "ipv6" },
] as const;

type Bridge = { readonly spec: NetworkState["spec"]; readonly options: ReturnType<typeof parseBridge> };

/** What comes in without translation: set and rules; nothing where no network wants it. */
function direct(bridges: readonly Bridge[], open: OpenPorts): { sets: string; rules: string } {
  const list = (names: readonly string[]) => `{ ${names.map(quoted).join(", ")} }`;
  let sets = "";
  let rules = "";
  for (const { family, type, word, icmp, nfproto } of families) {
    const of = (mode: string) => bridges.filter((b) => b.options.modes[family] === mode).map((b) => b.options.bridge);
    const unprotected = of("nat-unprotected");
    const routed = of("routed");
    const trusting = bridges.filter((b) => b.options.trusted.length > 0);
    if (unprotected.length > 0) rules += `    meta nfproto ${nfproto} oifname ${list(unprotected)} accept\n`;
    if (routed.length === 0 && trusting.length === 0) continue;
    const elements = open[family].length > 0 ? ` elements = { ${open[family].join(", ")} }` : "";
    sets += `  set open${family} { type ${type} . inet_proto . inet_service;${elements} }\n`;
    const published = `${word} daddr . meta l4proto . th dport @open${family} accept`;
    if (routed.length > 0) {
      rules += `    oifname ${list(routed)} ${published}\n    oifname ${list(routed)} meta l4proto ${icmp} accept\n`;
    }
    for (const { options } of trusting) {
      rules += `    iifname ${list(options.trusted)} oifname ${quoted(options.bridge)} ${published}\n`;
    }
  }
  return { sets, rules };
}

export function bridgeFirewall(networks: readonly NetworkState[], open: OpenPorts = { 4: [], 6: [] }): PlannedTable {
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
      if (options.modes[subnet.family] === "routed" || options.modes[subnet.family] === "isolated") continue;
      const source = subnet.family === 4 ? options.hostIpv4 : options.hostIpv6;
      const to = source ? `snat ${subnet.family === 4 ? "ip" : "ip6"} to ${source}` : "masquerade";
      masquerade.push(`    ${match} ${to} comment ${quoted(spec.name.slice(0, 100))}\n`);
    }
  }
  const entries = direct(bridges, open);
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
    entries.sets,
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
    entries.rules,
    "    oifname @bridges drop\n",
    "  }\n",
    "  chain postrouting {\n",
    "    type nat hook postrouting priority srcnat; policy accept;\n",
    ...masquerade,
    "  }\n",
  ].join("");
  return { family: "inet", name: "skein_bridge", body };
}
