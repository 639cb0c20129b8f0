/** What this kernel can do, found by doing it in a namespace that nobody sees. */
import { existsSync } from "node:fs";
import { messageOf } from "../base/errors.ts";
import { NETLINK_XFRM, NetlinkSocket } from "./netlink/socket.ts";
import { scratchNetNs } from "./netns.ts";
import { openNft } from "./nft.ts";
import { openRtnl } from "./rtnl.ts";
import type { NetNs, NewLink } from "./types.ts";

const probes = {
  bridge: (ns) => tryLink(ns, { kind: "bridge", name: "probe" }),
  veth: (ns) => tryLink(ns, { kind: "veth", name: "probe", peer: { name: "probe1" } }),
  vxlan: (ns) =>
    tryLink(ns, { kind: "vxlan", name: "probe", vni: 1, port: 4789, local: "", learning: false, proxy: false }),
  macvlan: (ns) => withLower(ns, (lower) => tryLink(ns, { kind: "macvlan", name: "probe", lower, mode: "bridge" })),
  ipvlan: (ns) => withLower(ns, (lower) => tryLink(ns, { kind: "ipvlan", name: "probe", lower, mode: "l2" })),
  dummy: (ns) => tryLink(ns, { kind: "dummy", name: "probe" }),
  vlan: (ns) => withLower(ns, (lower) => tryLink(ns, { kind: "vlan", name: "probe", lower, id: 1 })),
  nftables: (ns) => tryNft(ns, "table inet probe { chain c { type nat hook prerouting priority -100; }\n}"),
  /** On which the routing mesh keeps the client's address: the netdev egress hook (Linux 5.16), conntrack zones. */
  nftEgress: (ns) =>
    withLower(ns, () => {
      tryNft(ns, 'table netdev probe { chain c { type filter hook egress device "lower" priority 0; }\n}');
      tryNft(
        ns,
        [
          "table ip probe {",
          "chain a { type filter hook prerouting priority -300; ct original zone set ether saddr map { 2:0:0:0:0:1 : 1 }; }",
          "chain b { type route hook output priority -150; meta mark set ct mark; }",
          "chain c { type filter hook forward priority 0; tcp option maxseg size set rt mtu; }",
          "}",
        ].join("\n"),
      );
    }),
  /** Transport encryption of overlay networks. */
  xfrm: (ns) => {
    ns.run(() => new NetlinkSocket(NETLINK_XFRM))[Symbol.dispose]();
  },
  ipv6: (ns) => {
    using rtnl = openRtnl(ns);
    rtnl.addAddr(1, "fd00::1", 128, { nodad: true });
  },
  ipVs: () => {
    if (!existsSync("/proc/net/ip_vs")) throw new Error("/proc/net/ip_vs is missing");
  },
  bridgeNetfilter: () => {
    if (!existsSync("/proc/sys/net/bridge")) throw new Error("/proc/sys/net/bridge is missing");
  },
} satisfies Record<string, (ns: NetNs) => void>;

export type Feature = keyof typeof probes;

const known = new Map<Feature, string | undefined>();

/** Why a feature is missing; undefined when it is there. Probed at the first question, about 10 ms each. */
export function missingFeature(feature: Feature): string | undefined {
  if (!known.has(feature)) known.set(feature, probe(feature));
  return known.get(feature);
}

export function hasFeature(feature: Feature): boolean {
  return missingFeature(feature) === undefined;
}

function probe(feature: Feature): string | undefined {
  // A namespace of its own: whatever the probe makes goes with it, without waiting for deletions.
  using ns = scratchNetNs();
  try {
    probes[feature](ns);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

function tryLink(ns: NetNs, link: NewLink): void {
  using rtnl = openRtnl(ns);
  rtnl.addLink(link);
}

function withLower(ns: NetNs, fn: (lower: number) => void): void {
  using rtnl = openRtnl(ns);
  fn(rtnl.addLink({ kind: "veth", name: "lower", up: true, peer: { name: "lower1", up: true } }).index);
}

function tryNft(ns: NetNs, script: string): void {
  using nft = openNft(ns);
  nft.run(script);
}
