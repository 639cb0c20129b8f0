/** IPv6 of swarm networks: its subnet here, its addresses by `base/dual-stack.ts`. */
import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { Network } from "#proto/docker/swarmkit/objects_pb.js";
import { type IPAMConfig, IPAMConfig_AddressFamily, IPAMConfigSchema } from "#proto/docker/swarmkit/types_pb.js";
import { formatSubnet, parseCidr } from "../../../base/address.ts";
import { type DualStack, dualStackOf, toIpv6 } from "../../../base/dual-stack.ts";

export const isIpv6Config = ({ subnet }: Pick<IPAMConfig, "subnet">): boolean => subnet.includes(":");

/** Undefined for networks of IPv4 only. */
export function dualStack(network: Pick<Network, "spec" | "ipam">): DualStack | undefined {
  if (!network.spec?.ipv6Enabled) return undefined;
  const pools = network.ipam?.configs ?? [];
  return dualStackOf(pools.map(({ subnet, range }) => ({ subnet, ...(range && { ipRange: range }) })));
}

/** "ip/prefix" in IPv6 for an address of this network in IPv4; nothing where it has none. */
export function ipv6Twin(network: Network, ipv4: string): string[] {
  const dual = dualStack(network);
  const twin = dual && toIpv6(dual, ipv4);
  return twin === undefined || dual === undefined ? [] : [`${twin}/${dual.v6.prefix}`];
}

/**
 * The network's IPv6 subnet: the one asked for, or a unique local one (RFC 4193) of this swarm, which the network's VNI
 * makes unique in it. The gateway is the twin of the IPv4 one unless it was named.
 */
export function planIpv6(asked: IPAMConfig | undefined, ipv4: IPAMConfig, seed: string, vni: number): IPAMConfig {
  const subnet = parseCidr(asked?.subnet || uniqueLocal(seed, vni))?.subnet;
  if (!subnet) throw new Error(`invalid subnet ${asked?.subnet}`);
  const text = formatSubnet(subnet);
  const dual = dualStackOf([{ subnet: ipv4.subnet }, { subnet: text, ...(asked?.range && { ipRange: asked.range }) }]);
  return create(IPAMConfigSchema, {
    family: asked?.subnet ? asked.family : IPAMConfig_AddressFamily.IPV6,
    subnet: text,
    range: asked?.range ?? "",
    gateway: asked?.gateway || ((dual && toIpv6(dual, ipv4.gateway)) ?? ""),
    reserved: asked?.reserved ?? {},
  });
}

/** fd, 32 bits of the swarm, 24 of the network. */
function uniqueLocal(seed: string, vni: number): string {
  const hex = createHash("sha256").update(seed).digest("hex").slice(0, 8) + vni.toString(16).padStart(6, "0");
  return `fd${hex.slice(0, 2)}:${hex.slice(2, 6)}:${hex.slice(6, 10)}:${hex.slice(10)}::/64`;
}
