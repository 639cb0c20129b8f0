/**
 * The lab's switch and cables.
 *
 * A packet between two hosts: eth0 of one host -> its veth peer (a port of the bridge `skein-<lab>` in this
 * machine's namespace) -> the other port -> eth0 of the other host. This machine has the bridge's own address,
 * so it reaches every host; what hosts send outside is masqueraded by the lab's own nft table. Where this machine's
 * firewall forwards nothing by default, as ufw's and Docker's do, and br_netfilter asks it about bridged frames too, two
 * rules of the lab's let both pass.
 */
import { SkeinError } from "../base/errors.ts";
import { closeRule, forwardPolicies, passageChanges, passageRule } from "../kernel/forward-policy.ts";
import { createNetNs, destroyNetNs, openNetNs } from "../kernel/netns.ts";
import { openNft } from "../kernel/nft.ts";
import { openRtnl } from "../kernel/rtnl.ts";
import { writeSysctl } from "../kernel/sysctl.ts";
import type { Nft, Rtnl } from "../kernel/types.ts";
import { forwardingKey, holdForwarding, releaseForwarding } from "./forwarding.ts";
import { type HostSpec, type LabSpec, overlaps } from "./spec.ts";

const table = (spec: LabSpec) => `skein-${spec.name}`;

/** Refuses a subnet that this machine already uses for something else. */
function checkSubnet(rtnl: Rtnl, spec: LabSpec): void {
  const names = new Map(rtnl.links().map((link) => [link.index, link.name]));
  for (const route of rtnl.routes()) {
    if (route.family !== 4 || route.dst === "default" || route.table !== 254) continue;
    if (names.get(route.link) === spec.bridge) continue;
    const dst = route.dst.includes("/") ? route.dst : `${route.dst}/32`;
    if (overlaps(dst, spec.subnet)) {
      throw new SkeinError("conflict", `subnet ${spec.subnet} overlaps ${dst} on ${names.get(route.link)}`, {
        hint: "choose another: --subnet 10.99.0.0/24 (npm start -- --subnet 10.99.0.0/24)",
      });
    }
  }
}

/** Makes the switch and the way out. */
export function createSwitch(spec: LabSpec): void {
  using rtnl = openRtnl();
  checkSubnet(rtnl, spec);
  const link = rtnl.link(spec.bridge) ?? rtnl.addLink({ kind: "bridge", name: spec.bridge, mtu: 1500 });
  if (!rtnl.addrs().some((addr) => addr.link === link.index && addr.address === spec.gateway)) {
    rtnl.addAddr(link.index, spec.gateway, spec.prefix);
  }
  rtnl.setLink(link.index, { up: true });
  holdForwarding();
  using nft = openNft();
  nft.run(`
table ip ${table(spec)}
delete table ip ${table(spec)}
table ip ${table(spec)} {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${spec.subnet} oifname != "${spec.bridge}" masquerade
  }
}
`);
  letPass(nft, spec, [spec.bridge]);
}

/** Brings the lab's rules in iptables' own tables to these devices. */
function letPass(nft: Nft, spec: LabSpec, devices: readonly string[]): void {
  const { add, remove } = passageChanges(forwardPolicies(nft, table(spec)), devices);
  for (const passage of remove) nft.run(closeRule(passage));
  for (const passage of add) nft.run(passageRule(passage, table(spec)));
}

export async function removeSwitch(spec: LabSpec): Promise<void> {
  using rtnl = openRtnl();
  const link = rtnl.link(spec.bridge);
  if (link) await rtnl.delLink(link.index);
  using nft = openNft();
  nft.run(`table ip ${table(spec)}\ndelete table ip ${table(spec)}`);
  letPass(nft, spec, []);
  releaseForwarding(spec.name);
}

/** Makes a host's namespace and plugs it in. */
export function plugIn(spec: LabSpec, host: HostSpec): void {
  using ns = createNetNs(host.netnsPath);
  using rtnl = openRtnl();
  const bridge = rtnl.link(spec.bridge);
  if (!bridge)
    throw new SkeinError("internal", `the switch ${spec.bridge} is gone`, { hint: "run npm stop, then npm start" });
  rtnl.addLink({
    kind: "veth",
    name: host.port,
    mtu: 1500,
    master: bridge.index,
    up: true,
    peer: { name: "eth0", mtu: 1500, ns },
  });
  using inside = openRtnl(ns);
  const eth0 = inside.link("eth0");
  if (!eth0) throw new SkeinError("internal", `no eth0 in ${host.netns}`);
  inside.addAddr(eth0.index, host.address, spec.prefix);
  inside.setLink(eth0.index, { up: true });
  inside.setRoute({ dst: "default", gateway: spec.gateway, link: eth0.index });
  writeSysctl(forwardingKey, "1", ns);
}

/** Pulls or plugs a host's cable. */
export function setCable(host: HostSpec, plugged: boolean): void {
  using rtnl = openRtnl();
  const port = rtnl.link(host.port);
  if (!port) throw new SkeinError("notFound", `host ${host.name} has no cable: is the lab up?`);
  rtnl.setLink(port.index, { up: plugged });
}

export function isPlugged(host: HostSpec): boolean {
  using rtnl = openRtnl();
  return rtnl.link(host.port)?.up ?? false;
}

/** Removes a host's namespace and its cable. */
export async function plugOut(host: HostSpec): Promise<void> {
  using rtnl = openRtnl();
  const port = rtnl.link(host.port);
  if (port) await rtnl.delLink(port.index);
  destroyNetNs(host.netnsPath);
}

export function hasNamespace(host: HostSpec): boolean {
  try {
    openNetNs(host.netnsPath)[Symbol.dispose]();
    return true;
  } catch {
    return false;
  }
}
