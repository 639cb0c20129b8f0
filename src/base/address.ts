/** Arithmetic on IP addresses and subnets. Addresses are integers, so ranges are comparisons. */
import { isIPv4, isIPv6 } from "node:net";
import ipaddr from "ipaddr.js";

export type Family = 4 | 6;

export interface Ip {
  readonly family: Family;
  readonly value: bigint;
}

/** A subnet; `base` has no host bits. */
export interface Subnet {
  readonly family: Family;
  readonly base: bigint;
  readonly prefix: number;
}

const width = (family: Family): number => (family === 4 ? 32 : 128);

/** Parses a plain address; undefined for anything else (CIDR, zone, garbage). */
export function parseIp(text: string): Ip | undefined {
  if (isIPv4(text)) {
    let value = 0n;
    for (const part of text.split(".")) value = (value << 8n) | BigInt(part);
    return { family: 4, value };
  }
  if (isIPv6(text) && !text.includes("%")) {
    let value = 0n;
    for (const byte of ipaddr.parse(text).toByteArray()) value = (value << 8n) | BigInt(byte);
    return { family: 6, value };
  }
  return undefined;
}

export function formatIp(ip: Ip): string {
  if (ip.family === 4) {
    const n = Number(ip.value);
    return `${n >>> 24}.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}`;
  }
  const bytes: number[] = [];
  for (let shift = 120n; shift >= 0n; shift -= 8n) bytes.push(Number((ip.value >> shift) & 255n));
  return ipaddr.fromByteArray(bytes).toString();
}

/** Parses "address/prefix" into the address and the subnet it lies in. */
export function parseCidr(text: string): { ip: Ip; subnet: Subnet } | undefined {
  const slash = text.indexOf("/");
  if (slash < 0) return undefined;
  const ip = parseIp(text.slice(0, slash));
  const tail = text.slice(slash + 1);
  if (!ip || !/^\d{1,3}$/.test(tail)) return undefined;
  const prefix = Number(tail);
  if (prefix > width(ip.family)) return undefined;
  return { ip, subnet: subnetOf(ip, prefix) };
}

/** The subnet of `prefix` bits around an address. */
export function subnetOf(ip: Ip, prefix: number): Subnet {
  const hostBits = BigInt(width(ip.family) - prefix);
  return { family: ip.family, base: (ip.value >> hostBits) << hostBits, prefix };
}

export function formatSubnet(subnet: Subnet): string {
  return `${formatIp({ family: subnet.family, value: subnet.base })}/${subnet.prefix}`;
}

/** Number of addresses in a subnet. */
export function sizeOf(subnet: Subnet): bigint {
  return 1n << BigInt(width(subnet.family) - subnet.prefix);
}

export function lastOf(subnet: Subnet): bigint {
  return subnet.base + sizeOf(subnet) - 1n;
}

export function contains(subnet: Subnet, ip: Ip): boolean {
  return subnet.family === ip.family && ip.value >= subnet.base && ip.value <= lastOf(subnet);
}

export function containsSubnet(outer: Subnet, inner: Subnet): boolean {
  return outer.family === inner.family && inner.base >= outer.base && lastOf(inner) <= lastOf(outer);
}

export function overlaps(a: Subnet, b: Subnet): boolean {
  return a.family === b.family && a.base <= lastOf(b) && b.base <= lastOf(a);
}

/** "10.0.1.3/24" or "10.0.1.3" without its prefix. */
export function plainIp(text: string): string {
  const slash = text.indexOf("/");
  return slash < 0 ? text : text.slice(0, slash);
}

/** Docker's MAC for an IPv4 address: 02:42 and its four bytes. */
export function macOf(ipv4: Ip): string {
  const n = Number(ipv4.value);
  return formatMac([0x02, 0x42, n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255]);
}

/** 02:42 and four random bytes. */
export function randomMac(random: (size: number) => Uint8Array): string {
  return formatMac([0x02, 0x42, ...random(4)]);
}

export function isMac(text: string): boolean {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text);
}

function formatMac(bytes: number[]): string {
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
