/** Addresses that `docker run --ip` asks for: refused at once when nobody can ever have them, waited for when another has. */
import type { Network } from "#proto/docker/swarmkit/objects_pb.js";
import { toIpv4 } from "../../../base/dual-stack.ts";
import { contains, parseCidr, parseIp, type Subnet, sizeOf } from "./ipv4.ts";
import { dualStack } from "./ipv6.ts";

const bare = (address: string): string => address.split("/")[0] ?? "";

/** What is wrong with addresses asked for on a network, in Docker's words; `taken`: they are the network's own. */
export function askedProblem(
  network: Network,
  addresses: readonly string[],
): { readonly taken: boolean; readonly message: string } | undefined {
  const dual = dualStack(network);
  for (const address of addresses) {
    const ipv4 = address.includes(":") ? dual && toIpv4(dual, bare(address)) : bare(address);
    const ip = ipv4 === undefined ? undefined : parseIp(ipv4);
    const config = network.ipam?.configs.find(({ subnet }) => {
      const parsed = parseCidr(subnet);
      return ip !== undefined && parsed !== undefined && contains(parsed, ip);
    });
    const subnet = config && parseCidr(config.subnet);
    if (ip === undefined || !subnet) {
      const message = `Invalid address ${bare(address)}: It does not belong to any of this network's subnets`;
      return { taken: false, message };
    }
    const own = [config.gateway, ...Object.values(config.reserved)].map(parseIp);
    if (own.includes(ip) || isEdge(subnet, ip)) return { taken: true, message: "Address already in use" };
  }
  return undefined;
}

/** The subnet's own address or its broadcast address. */
const isEdge = ({ base, prefix }: Subnet, ip: number): boolean => ip === base || ip === base + sizeOf(prefix) - 1;
