/**
 * Broadcasts waiting to be gossiped. Each is sent a limited number of times; those sent least go first,
 * among them the largest that still fits, then the newest.
 */
export interface Broadcast {
  /** A newer broadcast of the same key replaces this one; undefined is never replaced. */
  readonly key: string | undefined;
  readonly message: Uint8Array;
  /** Called when sent often enough, or replaced. */
  readonly done?: () => void;
}

interface Item extends Broadcast {
  readonly serial: number;
  transmits: number;
  gone: boolean;
}

/** `multiplier` x ceil(log10(nodes + 1)). */
export function retransmitLimit(multiplier: number, nodes: number): number {
  return multiplier * Math.ceil(Math.log10(nodes + 1));
}

export class TransmitQueue {
  /** By number of transmissions; a tier is sorted when it is read. */
  #tiers: { items: Item[]; sorted: boolean }[] = [];
  #byKey = new Map<string, Item>();
  #serial = 0;
  #size = 0;
  readonly #limit: () => number;
  readonly #capacity: number;

  /** `limit` says how often a broadcast is sent; beyond `capacity` those sent most often are dropped. */
  constructor(limit: () => number, capacity = 20_000) {
    this.#limit = limit;
    this.#capacity = capacity;
  }

  get size(): number {
    return this.#size;
  }

  push(broadcast: Broadcast): void {
    const item: Item = { ...broadcast, serial: this.#serial++, transmits: 0, gone: false };
    if (item.key !== undefined) {
      const older = this.#byKey.get(item.key);
      if (older) this.#remove(older);
      this.#byKey.set(item.key, item);
    }
    this.#put(item);
    this.#size++;
    if (this.#size > this.#capacity) this.#dropOne();
  }

  /** As many messages as fit in `room` bytes at `overhead` bytes each. */
  take(overhead: number, room: number): Uint8Array[] {
    const taken: Item[] = [];
    const limit = this.#limit();
    let left = room;
    for (const tier of this.#tiers) {
      if (left <= overhead) break;
      if (!tier || tier.items.length === 0) continue;
      if (!tier.sorted) {
        tier.items.sort((a, b) => b.message.length - a.message.length || b.serial - a.serial);
        tier.sorted = true;
      }
      const kept: Item[] = [];
      for (const [index, item] of tier.items.entries()) {
        if (left <= overhead) {
          kept.push(...tier.items.slice(index));
          break;
        }
        if (item.gone) continue;
        if (item.message.length + overhead <= left) {
          left -= item.message.length + overhead;
          taken.push(item);
        } else {
          kept.push(item);
        }
      }
      tier.items = kept;
    }
    for (const item of taken) {
      item.transmits++;
      if (item.transmits >= limit) this.#remove(item);
      else this.#put(item);
    }
    return taken.map((item) => item.message);
  }

  clear(): void {
    for (const tier of this.#tiers) for (const item of tier.items) if (!item.gone) item.done?.();
    this.#tiers = [];
    this.#byKey.clear();
    this.#size = 0;
  }

  #put(item: Item): void {
    while (this.#tiers.length <= item.transmits) this.#tiers.push({ items: [], sorted: true });
    const tier = this.#tiers[item.transmits];
    if (!tier) return;
    tier.items.push(item);
    tier.sorted = false;
    // While nobody is there to gossip with, replaced items would pile up here.
    if (tier.items.length > 2 * this.#size + 64) tier.items = tier.items.filter((other) => !other.gone);
  }

  #remove(item: Item): void {
    if (item.gone) return;
    item.gone = true;
    this.#size--;
    if (item.key !== undefined && this.#byKey.get(item.key) === item) this.#byKey.delete(item.key);
    item.done?.();
  }

  #dropOne(): void {
    for (let index = this.#tiers.length - 1; index >= 0; index--) {
      for (let item = this.#tiers[index]?.items.pop(); item; item = this.#tiers[index]?.items.pop()) {
        if (item.gone) continue;
        this.#remove(item);
        return;
      }
    }
  }
}
