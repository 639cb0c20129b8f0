/**
 * The addresses of one subnet: who has which, and which rest.
 *
 * A released address is not handed out again for `restMs`: peers keep neighbour and connection state about it.
 * When nothing else is left the address that rested longest goes first; an exhausted pool says so at once.
 */
import { conflict, forbidden, invalid, SkeinError } from "../../base/errors.ts";
import { contains, formatIp, type Ip, lastOf, type Subnet, sizeOf } from "../address.ts";

const defaultRestMs = 60_000;

export interface PoolOptions {
  readonly subnet: Subnet;
  /** Only addresses in here are chosen; others of the subnet can be asked for. */
  readonly range?: Subnet | undefined;
  /** Never handed out: gateway and auxiliary addresses. */
  readonly reserved: readonly bigint[];
  readonly restMs?: number;
}

export class AddressPool {
  readonly subnet: Subnet;
  readonly #first: bigint;
  readonly #last: bigint;
  readonly #restMs: number;
  readonly #reserved: Set<bigint>;
  readonly #leases = new Map<bigint, string>();
  /** Address to the time (ms) until which it rests; oldest first because insertion order is time order. */
  readonly #resting = new Map<bigint, number>();

  constructor(options: PoolOptions) {
    const { subnet } = options;
    const range = options.range ?? subnet;
    this.subnet = subnet;
    this.#restMs = options.restMs ?? defaultRestMs;
    this.#reserved = new Set(options.reserved);
    // Network and broadcast address exist in subnets of more than two addresses; IPv6 has only the anycast one.
    if (sizeOf(subnet) > 2n) {
      this.#reserved.add(subnet.base);
      if (subnet.family === 4) this.#reserved.add(lastOf(subnet));
    }
    this.#first = range.base;
    this.#last = lastOf(range);
  }

  /** Leases an address to `owner`: the one asked for, or the lowest that is free and rested. */
  allocate(owner: string, now: number, wanted?: Ip): Ip {
    if (wanted) return this.#take(wanted, owner);
    for (const [address, until] of this.#resting) {
      if (until > now) break;
      this.#resting.delete(address);
    }
    for (let value = this.#first; value <= this.#last; value++) {
      if (!this.#busy(value) && !this.#resting.has(value)) return this.#lease(value, owner);
    }
    for (const value of this.#resting.keys()) {
      if (value >= this.#first && value <= this.#last && !this.#busy(value)) return this.#lease(value, owner);
    }
    throw new SkeinError("conflict", "no available addresses on this pool");
  }

  /** Gives an address back; it rests from now on. Unknown addresses are no error. */
  release(address: Ip, now: number): void {
    if (!this.#leases.delete(address.value)) return;
    this.#resting.delete(address.value);
    if (this.#restMs > 0) this.#resting.set(address.value, now + this.#restMs);
  }

  /** Who holds an address. */
  ownerOf(address: Ip): string | undefined {
    return this.#leases.get(address.value);
  }

  get used(): number {
    return this.#leases.size;
  }

  #take(wanted: Ip, owner: string): Ip {
    if (!contains(this.subnet, wanted)) throw invalid("Requested address is out of range");
    if (this.#busy(wanted.value)) {
      if (this.#leases.get(wanted.value) === owner) return wanted;
      throw forbidden("Address already in use");
    }
    return this.#lease(wanted.value, owner);
  }

  #busy(value: bigint): boolean {
    return this.#reserved.has(value) || this.#leases.has(value);
  }

  #lease(value: bigint, owner: string): Ip {
    this.#resting.delete(value);
    this.#leases.set(value, owner);
    return { family: this.subnet.family, value };
  }
}

/** Docker's message for a network whose pools are all used up. */
export function exhausted(network: string): SkeinError {
  return conflict(`no available IPv4 addresses on this network's address pools: ${network}`);
}

/** For messages. */
export const textOf = (ip: Ip): string => formatIp(ip);
