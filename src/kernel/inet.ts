/** Internet addresses between text and bytes. Text is canonical (RFC 5952 for IPv6). */
import { isIPv4, isIPv6 } from "node:net";
import { KernelError } from "./error.ts";

export function familyOf(address: string): 4 | 6 {
  if (isIPv4(address)) return 4;
  if (isIPv6(address)) return 6;
  throw new KernelError("EINVAL", "address", `"${address}" is no address`);
}

/** 4 or 16 bytes in network order. */
export function toBytes(address: string): Buffer {
  return familyOf(address) === 4 ? toBytes4(address) : toBytes6(address);
}

function toBytes4(address: string): Buffer {
  return Buffer.from(address.split(".").map(Number));
}

function toBytes6(address: string): Buffer {
  let text = address.split("%")[0] ?? "";
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (dotted) {
    const tail = toBytes4(dotted[2] ?? "");
    text = `${dotted[1]}${tail.readUInt16BE(0).toString(16)}:${tail.readUInt16BE(2).toString(16)}`;
  }
  const [head = "", tail] = text.split("::");
  const left = head ? head.split(":") : [];
  const right = tail ? tail.split(":") : [];
  const groups = tail === undefined ? left : [...left, ...Array(8 - left.length - right.length).fill("0"), ...right];
  const bytes = Buffer.alloc(16);
  groups.forEach((group, index) => {
    bytes.writeUInt16BE(Number.parseInt(group, 16), index * 2);
  });
  return bytes;
}

export function fromBytes(bytes: Buffer): string {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push(bytes.readUInt16BE(i));
  let start = -1;
  let length = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > length) {
      start = i;
      length = end - i;
    }
  }
  const hex = (part: number[]) => part.map((group) => group.toString(16)).join(":");
  if (start < 0) return hex(groups);
  return `${hex(groups.slice(0, start))}::${hex(groups.slice(start + length))}`;
}

export function macToBytes(mac: string): Buffer {
  const parts = mac.split(":");
  if (parts.length !== 6 || parts.some((part) => !/^[0-9a-fA-F]{1,2}$/.test(part))) {
    throw new KernelError("EINVAL", "address", `"${mac}" is no MAC address`);
  }
  return Buffer.from(parts.map((part) => Number.parseInt(part, 16)));
}

export function macFromBytes(bytes: Buffer): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** "10.0.0.0/24" apart; a bare address is a host's. */
export function parseCidr(cidr: string): { address: string; prefix: number; family: 4 | 6 } {
  const [address = "", prefix] = cidr.split("/");
  const family = familyOf(address);
  return { address, family, prefix: prefix === undefined ? (family === 4 ? 32 : 128) : Number(prefix) };
}

/** A sockaddr_in or sockaddr_in6. */
export function sockaddr(address: string, port: number): Buffer {
  const bytes = toBytes(address);
  const result = Buffer.alloc(bytes.length === 4 ? 16 : 28);
  result.writeUInt16LE(bytes.length === 4 ? 2 : 10, 0);
  result.writeUInt16BE(port, 2);
  bytes.copy(result, bytes.length === 4 ? 4 : 8);
  return result;
}
