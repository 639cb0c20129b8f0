/** The address pools of all networks whose addresses are decided on this host. */
import { SkeinError } from "../../base/errors.ts";
import { type Family, formatIp, parseIp } from "../address.ts";
import type { NetworkSpec } from "../types.ts";
import { AddressPool, exhausted } from "./pool.ts";
import { parsePool } from "./request.ts";

export class Pools {
  readonly #pools = new Map<string, AddressPool[]>();

  add(spec: NetworkSpec): void {
    const pools = spec.ipam.config.map((config) => {
      const { subnet, range, gateway, aux } = parsePool(config);
      return new AddressPool({ subnet, range, reserved: gateway === undefined ? aux : [...aux, gateway] });
    });
    this.#pools.set(spec.id, pools);
  }

  remove(networkId: string): void {
    this.#pools.delete(networkId);
  }

  has(networkId: string, family: Family): boolean {
    return (this.#pools.get(networkId) ?? []).some((pool) => pool.subnet.family === family);
  }

  /** An address with its prefix length, as CIDR. `wanted` is plain; pools are tried in order. */
  allocate(network: NetworkSpec, family: Family, owner: string, now: number, wanted?: string): string {
    const pools = (this.#pools.get(network.id) ?? []).filter((pool) => pool.subnet.family === family);
    const ip = wanted ? parseIp(wanted) : undefined;
    if (wanted && ip?.family !== family) throw new SkeinError("invalid", `invalid IPv${family} address: ${wanted}`);
    let refusal: unknown = exhausted(`${network.name} (${network.id})`);
    for (const pool of pools) {
      try {
        return `${formatIp(pool.allocate(owner, now, ip))}/${pool.subnet.prefix}`;
      } catch (error) {
        // An address outside of this subnet may lie in the next; one in use is in use.
        if (ip) refusal = error;
        if (error instanceof SkeinError && error.code === "forbidden") throw error;
      }
    }
    throw refusal;
  }

  release(networkId: string, cidr: string, now: number): void {
    const ip = parseIp(cidr.split("/")[0] ?? "");
    if (ip) for (const pool of this.#pools.get(networkId) ?? []) pool.release(ip, now);
  }
}
