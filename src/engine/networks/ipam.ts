/** The addresses of a `network create` for the swarm, checked with Docker's words before the managers see them. */
import { contains, containsSubnet, formatSubnet, parseCidr, parseIp, type Subnet } from "../../base/address.ts";
import { invalid } from "../../base/errors.ts";

export interface AskedPool {
  readonly Subnet: string;
  readonly IPRange: string;
  readonly Gateway: string;
  readonly AuxiliaryAddresses?: Readonly<Record<string, string>> | undefined;
  readonly AuxAddress?: Readonly<Record<string, string>> | undefined;
}

/** Throws one error that names all that is wrong. Host bits of a subnet are allowed, as users write them. */
export function checkIpam(pools: readonly AskedPool[], ipv6: boolean): void {
  const wrong = pools.flatMap((pool) => faults(pool, ipv6));
  if (wrong.length === 0) return;
  throw invalid(
    `invalid network config:\n${wrong.length === 1 ? wrong[0] : wrong.map((text) => `* ${text}`).join("\n")}`,
  );
}

function faults(pool: AskedPool, ipv6: boolean): string[] {
  const aux = Object.entries(pool.AuxiliaryAddresses ?? pool.AuxAddress ?? {});
  if (pool.Subnet === "") {
    if (!pool.IPRange && !pool.Gateway && aux.length === 0) return [];
    return ["an ip-range, gateway or auxiliary address needs its subnet"];
  }
  const subnet = parseCidr(pool.Subnet)?.subnet;
  if (!subnet) return [`invalid subnet ${pool.Subnet}: invalid CIDR block notation`];
  if (subnet.family === 6 && !ipv6) return [`invalid subnet ${pool.Subnet}: IPv6 is not enabled (--ipv6)`];
  const addresses: [string, string, string][] = aux.map(([name, address]) => ["auxiliary address", name, address]);
  if (pool.Gateway) addresses.unshift(["gateway", pool.Gateway, pool.Gateway]);
  return [
    ...(pool.IPRange ? rangeFaults(pool.IPRange, subnet) : []),
    ...addresses.flatMap(([what, shown, address]) => {
      const why = addressFault(address, subnet);
      return why === undefined ? [] : [`invalid ${what} ${shown}: ${why}`];
    }),
  ];
}

const family = ({ family }: Subnet): string => `parent subnet is an IPv${family} block`;

function rangeFaults(text: string, subnet: Subnet): string[] {
  const range = parseCidr(text)?.subnet;
  const bad = (why: string) => [`invalid ip-range ${text}: ${why}`];
  if (!range) return bad("invalid CIDR block notation");
  if (range.family !== subnet.family) return bad(family(subnet));
  if (range.prefix < subnet.prefix) return bad(`CIDR block is bigger than its parent subnet ${formatSubnet(subnet)}`);
  return containsSubnet(subnet, range) ? [] : bad(`parent subnet ${formatSubnet(subnet)} doesn't contain ip-range`);
}

function addressFault(text: string, subnet: Subnet): string | undefined {
  const address = parseIp(text) ?? parseCidr(text)?.ip;
  if (!address) return "invalid address";
  if (address.family !== subnet.family) return family(subnet);
  return contains(subnet, address) ? undefined : `parent subnet ${formatSubnet(subnet)} doesn't contain this address`;
}
