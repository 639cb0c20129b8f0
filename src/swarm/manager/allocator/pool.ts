/**
 * The addresses of one subnet. Given out one after another; a freed address rests before it is given again, so that
 * nothing in the network still believes in its former owner.
 */
import { contains, formatIp, parseIp, type Subnet, sizeOf } from "./ipv4.ts";

/** Longer than the kernel remembers whose address it was: 45 seconds and five of doubt. Docker's nodes have only that. */
const REST_MS = 60_000;

export class AddressPool {
  readonly subnet: Subnet;
  readonly #first: number;
  readonly #last: number;
  readonly #owners = new Map<number, string>();
  readonly #freedAt = new Map<number, number>();
  readonly #held = new Map<string, number>();
  #cursor: number;
  /** Addresses that may be given out and are not. */
  #free: number;

  /** `range` limits what is given out by itself; the gateway and what is `reserved` are taken from the beginning. */
  constructor(subnet: Subnet, gateway: number, range: Subnet = subnet, reserved: readonly number[] = []) {
    this.subnet = subnet;
    const lastOfSubnet = subnet.base + sizeOf(subnet.prefix) - 1;
    this.#first = Math.max(range.base, subnet.base + 1);
    this.#last = Math.min(range.base + sizeOf(range.prefix) - 1, lastOfSubnet - 1);
    this.#cursor = this.#first;
    this.#free = Math.max(0, this.#last - this.#first + 1);
    this.#take(gateway, "gateway");
    for (const ip of reserved) if (!this.#owners.has(ip)) this.#take(ip, "reserved");
  }

  get free(): number {
    return this.#free;
  }

  isOwner(owner: string): boolean {
    return this.#held.has(owner);
  }

  #take(ip: number, owner: string): void {
    this.#owners.set(ip, owner);
    this.#freedAt.delete(ip);
    this.#held.set(owner, (this.#held.get(owner) ?? 0) + 1);
    if (ip >= this.#first && ip <= this.#last) this.#free--;
  }

  /** Marks "ip/prefix" as owned; true when it was free or owned so already. */
  claim(cidr: string, owner: string): boolean {
    const ip = this.#parse(cidr);
    if (ip === undefined) return false;
    const current = this.#owners.get(ip);
    if (current !== undefined) return current === owner;
    this.#take(ip, owner);
    if (ip >= this.#cursor && ip <= this.#last) this.#cursor = ip + 1;
    return true;
  }

  /** Gives an address back, if this owner has it. */
  release(cidr: string, owner: string, now: number): void {
    const ip = this.#parse(cidr);
    if (ip === undefined || this.#owners.get(ip) !== owner) return;
    this.#owners.delete(ip);
    this.#freedAt.set(ip, now);
    const left = (this.#held.get(owner) ?? 1) - 1;
    if (left > 0) this.#held.set(owner, left);
    else this.#held.delete(owner);
    if (ip >= this.#first && ip <= this.#last) this.#free++;
  }

  /** An address that was given back at that time, as others remember it. Nothing where it has an owner. */
  rest(cidr: string, freedAt: number): void {
    const ip = this.#parse(cidr);
    if (ip !== undefined) this.#rest(ip, freedAt);
  }

  #rest(ip: number, freedAt: number): void {
    if (this.#owners.has(ip)) return;
    this.#freedAt.set(ip, Math.max(freedAt, this.#freedAt.get(ip) ?? 0));
    if (ip >= this.#cursor && ip <= this.#last) this.#cursor = ip + 1;
  }

  /** Takes over what another pool of the same subnet remembers of addresses that were given back. */
  remember(former: AddressPool): void {
    for (const [ip, freedAt] of former.#freedAt) this.#rest(ip, freedAt);
  }

  /** The next address as "ip/prefix"; undefined when none is left. */
  allocate(owner: string, now: number): string | undefined {
    const ip = this.#next(now);
    if (ip === undefined) return undefined;
    this.#take(ip, owner);
    this.#cursor = ip + 1;
    return `${formatIp(ip)}/${this.subnet.prefix}`;
  }

  /** Who owns what, by address; for checks. */
  owners(): Map<string, string> {
    return new Map([...this.#owners].sort(([a], [b]) => a - b).map(([ip, owner]) => [formatIp(ip), owner]));
  }

  #next(now: number): number | undefined {
    const count = this.#last - this.#first + 1;
    if (this.#free <= 0) return undefined;
    let oldest: number | undefined;
    for (let step = 0; step < count; step++) {
      const offset = this.#cursor > this.#last ? 0 : this.#cursor - this.#first;
      const ip = this.#first + ((offset + step) % count);
      if (this.#owners.has(ip)) continue;
      const freed = this.#freedAt.get(ip);
      if (freed === undefined || now - freed >= REST_MS) return ip;
      if (oldest === undefined || freed < (this.#freedAt.get(oldest) ?? 0)) oldest = ip;
    }
    return oldest;
  }

  #parse(cidr: string): number | undefined {
    const ip = parseIp(cidr.split("/")[0] ?? "");
    return ip !== undefined && contains(this.subnet, ip) ? ip : undefined;
  }
}
