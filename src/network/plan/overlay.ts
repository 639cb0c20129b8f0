/**
 * The namespace `1-<network>` of an overlay network on this host: a switch with a port to the other hosts.
 *
 * A frame to a container elsewhere: eth0 -> veth<n> -> br0 -> vxlan0, whose forwarding table names the other host
 * by the destination MAC; UDP to that host in the host's own namespace, where the device was made. Questions for
 * MACs never leave: vxlan0 answers them, of ARP and of IPv6, from its neighbour table. Both tables hold what the peers told by gossip and
 * nothing that was learned, so an address without a record is unreachable rather than flooded.
 */

import { toIpv6 } from "../../base/dual-stack.ts";
import { contains, parseCidr } from "../address.ts";
import { type OverlayOptions, parseOverlay } from "../drivers/overlay.ts";
import { type NetworkState, overlayKey, sandboxKey } from "../state.ts";
import { legOnSwitch } from "./leg.ts";
import { aliasPrefix, bridgedIsNotRouted, type NamespacePlan, type PlannedAddr, type PlannedLink } from "./types.ts";
import { attachedTo, type World } from "./world.ts";

/** Where an endpoint of another host is, from its PeerRecord. */
export interface RemotePeer {
  readonly endpointId: string;
  /** Plain address. */
  readonly address: string;
  readonly prefix: number;
  readonly mac: string;
  /** The other host's data path address. */
  readonly vtep: string;
  /** Of a door to the routing mesh: the MAC of its host's own leg in the network. */
  readonly leg?: string;
}

export function planOverlay(world: World, network: NetworkState, remote: readonly RemotePeer[]): NamespacePlan {
  const { spec } = network;
  const options = parseOverlay(spec, world);
  const { mtu } = options;
  const links: PlannedLink[] = [{ kind: "loopback", name: "lo" }];
  const addrs: PlannedAddr[] = [];
  options.subnets.forEach(({ subnet, gateway, vni }, index) => {
    links.push({ kind: "bridge", name: `br${index}`, mtu, alias: `${aliasPrefix}network ${spec.name}` });
    if (gateway) addrs.push({ link: `br${index}`, address: gateway, prefix: subnet.prefix });
    if (index === 0 && options.dual && options.gateway6) {
      addrs.push({ link: "br0", address: options.gateway6, prefix: options.dual.v6.prefix });
    }
    if (!world.cluster) return;
    links.push({
      kind: "vxlan",
      name: `vxlan${index}`,
      mtu,
      vni,
      port: world.cluster.dataPathPort,
      local: world.cluster.dataPathAddress,
      master: `br${index}`,
    });
  });
  for (const { sandbox, endpoint } of attachedTo(world, spec.id)) {
    if (endpoint.outerName === "" || sandbox.path === undefined) continue;
    links.push({
      kind: "veth",
      name: endpoint.outerName,
      mtu,
      master: `br${Math.max(0, subnetIndex(options, endpoint.ipv4))}`,
      isolated: false,
      alias: `${aliasPrefix}${endpoint.ifName} of ${sandbox.id.slice(0, 12)}`,
      inner: { namespace: sandboxKey(sandbox.id), name: endpoint.ifName, mac: endpoint.mac },
    });
  }
  links.push(...legOnSwitch(world, network));
  const reachable = world.cluster ? usable(options, remote, world.cluster.dataPathAddress) : [];
  return {
    key: overlayKey(spec.id),
    purpose: `the switch of overlay network ${spec.name} on this host`,
    ownership: "ours",
    links,
    addrs,
    routes: [],
    rules: [],
    neighs: reachable.flatMap(({ peer, index }) => {
      const twin = index === 0 && options.dual ? toIpv6(options.dual, peer.address) : undefined;
      const addresses = twin === undefined ? [peer.address] : [peer.address, twin];
      return addresses.map((address) => ({ link: `vxlan${index}`, address, mac: peer.mac }));
    }),
    fdb: reachable.flatMap(({ peer, index }) => {
      const macs = peer.leg === undefined ? [peer.mac] : [peer.mac, peer.leg];
      return macs.map((mac) => ({ link: `vxlan${index}`, mac, dst: peer.vtep }));
    }),
    sysctls: {
      "net.ipv4.ip_forward": "1",
      ...bridgedIsNotRouted,
      "net.ipv6.conf.default.disable_ipv6": spec.enableIPv6 ? "0" : "1",
      "net.ipv6.conf.all.disable_ipv6": spec.enableIPv6 ? "0" : "1",
    },
    tables: [],
  };
}

/** Which of the network's subnets an address (plain or CIDR) lies in; -1 for none. */
export function subnetIndex(options: OverlayOptions, address: string): number {
  const ip = parseCidr(address.includes("/") ? address : `${address}/32`)?.ip;
  return ip ? options.subnets.findIndex(({ subnet }) => contains(subnet, ip)) : -1;
}

/**
 * The records that can be programmed: of other hosts, inside a subnet and with its mask. Where two claim one
 * address, or one MAC, the later word counts: the earlier one is a leftover that its owner has not withdrawn.
 */
function usable(options: OverlayOptions, remote: readonly RemotePeer[], own: string) {
  const byAddress = new Map<string, { peer: RemotePeer; index: number }>();
  for (const peer of remote) {
    if (peer.vtep === own) continue;
    const index = subnetIndex(options, peer.address);
    if (index < 0 || options.subnets[index]?.subnet.prefix !== peer.prefix) continue;
    byAddress.delete(peer.address);
    byAddress.set(peer.address, { peer, index });
  }
  const byMac = new Map([...byAddress.values()].map((entry) => [`${entry.index} ${entry.peer.mac}`, entry]));
  return [...byAddress.values()].filter((entry) => byMac.get(`${entry.index} ${entry.peer.mac}`) === entry);
}
