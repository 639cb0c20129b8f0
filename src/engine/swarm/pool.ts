/** Checks of `swarm init` on the cluster's address pools and its VXLAN port, with Docker's words. */
import ipaddr from "ipaddr.js";
import { invalid } from "../../base/errors.ts";

const DEFAULT_SUBNET_SIZE = 24;
const DEFAULT_DATA_PATH_PORT = 4789;

function parsePool(text: string): { start: number; end: number; prefix: number } {
  let parsed: ReturnType<typeof ipaddr.parseCIDR>;
  try {
    parsed = ipaddr.parseCIDR(text);
  } catch {
    throw invalid(`invalid base pool ${text}: invalid CIDR address: ${text}`);
  }
  const [address, prefix] = parsed;
  if (address.kind() !== "ipv4") throw invalid(`invalid base pool ${text}: only IPv4 pools are supported`);
  const value = address.toByteArray().reduce((sum, byte) => sum * 256 + byte, 0);
  const size = 2 ** (32 - prefix);
  const start = value - (value % size);
  return { start, end: start + size - 1, prefix };
}

/** Throws when a pool is malformed, smaller than its subnets, or overlaps another. `size` 0 is the default of 24. */
export function checkAddressPools(pools: readonly string[], size: number): void {
  if (pools.length === 0) return;
  const subnetSize = size || DEFAULT_SUBNET_SIZE;
  if (subnetSize > 29) throw invalid(`subnet size is out of range: ${subnetSize}`);
  const seen: { text: string; start: number; end: number }[] = [];
  for (const text of pools) {
    const { start, end, prefix } = parsePool(text);
    if (subnetSize < prefix) throw invalid(`invalid CIDR: "${text}". Subnet size is too small for pool: ${subnetSize}`);
    for (const other of seen) {
      if (start <= other.end && other.start <= end)
        throw invalid(`invalid CIDR: "${text}" overlaps with "${other.text}"`);
    }
    seen.push({ text, start, end });
  }
}

/** The port to use; 0 is the default. */
export function checkDataPathPort(port: number): number {
  if (port === 0) return DEFAULT_DATA_PATH_PORT;
  if (!Number.isInteger(port) || port < 1024 || port > 49151) {
    throw invalid(`Datapath port number is not in valid range (1024-49151) : ${port}`);
  }
  return port;
}
