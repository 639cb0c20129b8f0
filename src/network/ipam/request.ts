/**
 * From what a user asked for to complete pools: validation with Docker's messages, the choice of a
 * subnet where none was given, of a gateway where none was given.
 */
import { forbidden, invalid, notFound } from "../../base/errors.ts";
import {
  contains,
  containsSubnet,
  formatIp,
  formatSubnet,
  lastOf,
  overlaps,
  parseCidr,
  parseIp,
  type Subnet,
  sizeOf,
  subnetOf,
} from "../address.ts";
import type { IpamPool } from "../types.ts";

/** A block of addresses from which networks get pieces of `size` bits. */
export interface AddressPoolBlock {
  readonly base: string;
  readonly size: number;
}

/** Docker's defaults for local networks, the first of them docker0's. */
export const defaultLocalPools: readonly AddressPoolBlock[] = [
  { base: "172.17.0.0/16", size: 16 },
  { base: "172.18.0.0/16", size: 16 },
  { base: "172.19.0.0/16", size: 16 },
  { base: "172.20.0.0/14", size: 16 },
  { base: "172.24.0.0/14", size: 16 },
  { base: "172.28.0.0/14", size: 16 },
  { base: "192.168.0.0/16", size: 20 },
];

/** A block of unique local IPv6 addresses (RFC 4193) for this host, from which networks get /64s. `seed`: 5 bytes. */
export function uniqueLocalBlock(seed: Uint8Array): AddressPoolBlock {
  const hex = Buffer.from(seed).toString("hex").padEnd(10, "0");
  return { base: `fd${hex.slice(0, 2)}:${hex.slice(2, 6)}:${hex.slice(6, 10)}::/48`, size: 64 };
}

/** A pool checked and parsed. */
export interface ParsedPool {
  readonly subnet: Subnet;
  readonly range: Subnet | undefined;
  readonly gateway: bigint | undefined;
  readonly aux: readonly bigint[];
}

/** Checks one pool of a request; throws Docker's messages. Host bits in the subnet are allowed, as users write them. */
export function parsePool(pool: IpamPool): ParsedPool {
  const parsed = parseCidr(pool.subnet);
  if (!parsed) throw invalid(`invalid network config:\ninvalid subnet ${pool.subnet}: invalid CIDR block notation`);
  const { subnet } = parsed;
  const family = subnet.family === 4 ? "IPv4" : "IPv6";
  const shown = formatSubnet(subnet);

  const addressIn = (what: string, text: string): bigint => {
    const ip = parseIp(text) ?? parseCidr(text)?.ip;
    if (!ip) throw invalid(`invalid network config:\ninvalid ${what} ${text}: invalid address`);
    if (ip.family !== subnet.family) {
      throw invalid(`invalid network config:\ninvalid ${what} ${text}: parent subnet is an ${family} block`);
    }
    if (!contains(subnet, ip)) {
      throw invalid(
        `invalid network config:\ninvalid ${what} ${text}: parent subnet ${shown} doesn't contain this address`,
      );
    }
    return ip.value;
  };

  let range: Subnet | undefined;
  if (pool.ipRange) {
    const asked = parseCidr(pool.ipRange);
    const bad = (why: string) => invalid(`invalid network config:\ninvalid ip-range ${pool.ipRange}: ${why}`);
    if (!asked) throw bad("invalid CIDR block notation");
    range = asked.subnet;
    if (range.family !== subnet.family) throw bad(`parent subnet is an ${family} block`);
    if (range.prefix < subnet.prefix) throw bad(`CIDR block is bigger than its parent subnet ${shown}`);
    if (!containsSubnet(subnet, range)) throw bad(`parent subnet ${shown} doesn't contain ip-range`);
  }
  const gateway = pool.gateway ? addressIn("gateway", pool.gateway) : undefined;
  const aux = Object.values(pool.auxAddresses ?? {}).map((text) => addressIn("auxiliary address", text));
  const seen = new Set(gateway === undefined ? [] : [gateway]);
  for (const value of aux) {
    if (seen.has(value)) throw forbidden("Address already in use");
    seen.add(value);
  }
  return { subnet, range, gateway, aux };
}

/** The first piece of `blocks` that meets none of `taken`; undefined when all are used. */
export function chooseSubnet(
  blocks: readonly AddressPoolBlock[],
  taken: readonly Subnet[],
  family: 4 | 6 = 4,
): Subnet | undefined {
  for (const block of blocks) {
    const parsed = parseCidr(block.base);
    if (!parsed || parsed.subnet.family !== family || block.size < parsed.subnet.prefix) continue;
    const end = lastOf(parsed.subnet);
    let piece = subnetOf({ family, value: parsed.subnet.base }, block.size);
    while (piece.base <= end) {
      const hit = taken.find((other) => overlaps(piece, other));
      if (!hit) return piece;
      // Go on behind whichever is larger: the piece itself or what it met.
      const next = (lastOf(hit) > lastOf(piece) ? lastOf(hit) : lastOf(piece)) + 1n;
      const aligned = subnetOf({ family, value: next }, block.size);
      piece = aligned.base < next ? { ...aligned, base: aligned.base + sizeOf(aligned) } : aligned;
    }
  }
  return undefined;
}

/** What else lies in the way when pools are chosen. */
export interface Surroundings {
  /** Subnets of networks that exist. */
  readonly networks: readonly Subnet[];
  /** Destinations of the host's routes; asked-for subnets may meet them, chosen ones avoid them. */
  readonly hostRoutes: readonly Subnet[];
  readonly blocks: readonly AddressPoolBlock[];
}

/**
 * Completes the pools of a local network: at least one per wanted family, each with a gateway
 * (the first address of the range or subnet) unless the driver needs none.
 */
export function completePools(
  asked: readonly IpamPool[],
  wants: { ipv4: boolean; ipv6: boolean; gateway: boolean },
  around: Surroundings,
): IpamPool[] {
  const done: IpamPool[] = [];
  const mine: Subnet[] = [];
  const add = (pool: IpamPool) => {
    const parsed = parsePool(pool);
    if ([...around.networks, ...mine].some((other) => overlaps(other, parsed.subnet))) {
      throw forbidden("Pool overlaps with other one on this address space");
    }
    mine.push(parsed.subnet);
    const gateway = parsed.gateway ?? (wants.gateway ? firstFree(parsed) : undefined);
    done.push({
      subnet: formatSubnet(parsed.subnet),
      ...(pool.ipRange ? { ipRange: pool.ipRange } : {}),
      ...(gateway === undefined ? {} : { gateway: formatIp({ family: parsed.subnet.family, value: gateway }) }),
      ...(pool.auxAddresses && Object.keys(pool.auxAddresses).length > 0 ? { auxAddresses: pool.auxAddresses } : {}),
    });
  };
  for (const pool of asked) {
    if (pool.subnet) add(pool);
    else if (pool.ipRange || pool.gateway || Object.keys(pool.auxAddresses ?? {}).length > 0) {
      throw invalid("invalid network config:\nan ip-range, gateway or auxiliary address needs its subnet");
    }
  }
  const has = (family: 4 | 6) => mine.some((subnet) => subnet.family === family);
  for (const family of [4, 6] as const) {
    if (!(family === 4 ? wants.ipv4 : wants.ipv6) || has(family)) continue;
    const chosen = chooseSubnet(around.blocks, [...around.networks, ...around.hostRoutes, ...mine], family);
    if (!chosen) {
      throw notFound(
        `could not find an available, non-overlapping IPv${family} address pool among the defaults to assign to the network`,
      );
    }
    add({ subnet: formatSubnet(chosen) });
  }
  return done;
}

function firstFree(pool: ParsedPool): bigint {
  const skip = new Set(pool.aux);
  // A range keeps its addresses for containers; Docker takes the gateway from the range's start all the same.
  const start = pool.range?.base ?? pool.subnet.base;
  let value = start === pool.subnet.base ? start + 1n : start;
  while (skip.has(value)) value++;
  if (value > lastOf(pool.subnet)) throw forbidden("no available addresses on this pool");
  return value;
}
