/** Addresses as memberlist writes them: 4 raw bytes for IPv4, 16 for IPv6. */
import { isIPv4, isIPv6 } from "node:net";
import ipaddr from "ipaddr.js";

/** Text to bytes; throws RangeError when it is not an address. */
export function addressBytes(text: string): Buffer {
  if (!isIPv4(text) && !isIPv6(text)) throw new RangeError(`gossip: not an IP address: ${text}`);
  return Buffer.from(ipaddr.process(text).toByteArray());
}

/** Bytes to text, undefined for a wrong length. IPv4 in IPv6 becomes IPv4. */
export function addressText(bytes: Uint8Array): string | undefined {
  if (bytes.length !== 4 && bytes.length !== 16) return undefined;
  const parsed = ipaddr.fromByteArray([...bytes]);
  if (parsed.kind() === "ipv4") return parsed.toString();
  return ipaddr.process(parsed.toString()).toString();
}

/** Splits "host", "host:port" or "[v6]:port". */
export function hostPort(text: string, defaultPort: number): { host: string; port: number } {
  const bracketed = /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text);
  if (bracketed?.[1]) return { host: bracketed[1], port: Number(bracketed[2] ?? defaultPort) };
  const plain = /^([^:]+):(\d{1,5})$/.exec(text);
  if (plain?.[1]) return { host: plain[1], port: Number(plain[2]) };
  return { host: text, port: defaultPort };
}
