/**
 * IPv6 on overlay networks: an endpoint's IPv6 address is its IPv4 address said again in the network's IPv6 subnet,
 * 10.0.1.5 of 10.0.1.0/24 is fd00:1::5 of fd00:1::/64. So there is one pool and one word of gossip for both, Docker's
 * records stay as they are, and every node can tell the one from the other.
 */
import { contains, formatIp, type Ip, lastOf, parseCidr, parseIp, plainIp, type Subnet } from "./address.ts";

/** A network's IPv4 subnet and where its addresses lie in IPv6. */
export interface DualStack {
  readonly v4: Subnet;
  readonly v6: Subnet;
  /** The part of `v6` in which endpoints lie: all of it, or the range that was asked for. */
  readonly within: Subnet;
}

export interface DualStackPool {
  readonly subnet: string;
  readonly ipRange?: string;
}

/** Undefined for networks of one family, and where the IPv6 subnet has no room for all of the IPv4 one. */
export function dualStackOf(pools: readonly DualStackPool[]): DualStack | undefined {
  let v4: Subnet | undefined;
  let v6: Subnet | undefined;
  let within: Subnet | undefined;
  for (const pool of pools) {
    const subnet = parseCidr(pool.subnet)?.subnet;
    if (subnet?.family === 4) v4 ??= subnet;
    if (subnet?.family !== 6 || v6) continue;
    v6 = subnet;
    within = (pool.ipRange && parseCidr(pool.ipRange)?.subnet) || subnet;
  }
  if (!v4 || !v6 || !within || 128 - within.prefix < 32 - v4.prefix) return undefined;
  return { v4, v6, within };
}

/** The IPv6 address (plain) that belongs to an IPv4 address, plain or CIDR; undefined for one outside of the subnet. */
export function toIpv6({ v4, within }: DualStack, address: string): string | undefined {
  const ip = parseIp(plainIp(address));
  return ip && contains(v4, ip) ? formatIp({ family: 6, value: within.base + (ip.value - v4.base) }) : undefined;
}

/** The IPv4 address (plain) that belongs to an IPv6 address, plain or CIDR; undefined where none does. */
export function toIpv4({ v4, within }: DualStack, address: string): string | undefined {
  const ip = parseIp(plainIp(address));
  if (ip?.family !== 6) return undefined;
  const twin: Ip = { family: 4, value: v4.base + (ip.value - within.base) };
  return ip.value >= within.base && twin.value <= lastOf(v4) ? formatIp(twin) : undefined;
}
