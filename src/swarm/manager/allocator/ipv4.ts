/** IPv4 addresses and subnets as numbers. */
export interface Subnet {
  /** Network address as a number, host bits zero. */
  readonly base: number;
  readonly prefix: number;
}

export function parseIp(text: string): number | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^\d{1,3}$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}

export function formatIp(ip: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(ip / 2 ** shift) % 256).join(".");
}

/** Number of addresses of a subnet. */
export const sizeOf = (prefix: number) => 2 ** (32 - prefix);

/** Parses "a.b.c.d/n"; host bits are dropped. */
export function parseCidr(text: string): Subnet | undefined {
  const [address, bits, ...rest] = text.split("/");
  const ip = parseIp(address ?? "");
  const prefix = Number(bits);
  if (ip === undefined || rest.length > 0 || !bits?.match(/^\d{1,2}$/) || prefix > 32) return undefined;
  return { base: ip - (ip % sizeOf(prefix)), prefix };
}

export const formatCidr = ({ base, prefix }: Subnet) => `${formatIp(base)}/${prefix}`;
export const contains = (subnet: Subnet, ip: number) => ip >= subnet.base && ip < subnet.base + sizeOf(subnet.prefix);

export function overlaps(a: Subnet, b: Subnet): boolean {
  return a.base < b.base + sizeOf(b.prefix) && b.base < a.base + sizeOf(a.prefix);
}
