/**
 * The entries of all tables of all networks, pure: events go in, changes for watchers come out. Newer Lamport
 * times win; deleted entries stay as tombstones so that a late create cannot bring them back.
 */
import type { TableMessage } from "./messages.ts";

export interface Entry {
  readonly owner: string;
  readonly ltime: bigint;
  readonly value: Uint8Array;
  readonly deleting: boolean;
  /** When a tombstone may go, in the clock's milliseconds. */
  readonly reapAt: number;
}

/** What a watcher sees. The kind says what changed here, whatever the message was called. */
export interface Change {
  readonly kind: "create" | "update" | "delete";
  readonly networkId: string;
  readonly table: string;
  readonly key: string;
  readonly value: Uint8Array;
  readonly owner: string;
}

export interface Applied {
  readonly change?: Change;
  /** Worth passing on. */
  readonly fresh: boolean;
  /** A tombstone of an entry that was never seen. */
  readonly unknownTombstone?: boolean;
  /** Not taken: there is no room for another entry. */
  readonly full?: boolean;
}

/** Docker keeps tombstones for half an hour, and stops telling of them shortly before. */
export const reapEntryMs = 30 * 60 * 1000;
const reapMarginMs = 6_000;

/** By table, then by key. */
type Network = Map<string, Map<string, Entry>>;

export interface Placed {
  readonly table: string;
  readonly key: string;
  readonly entry: Entry;
}

export class Tables {
  readonly #networks = new Map<string, Network>();
  readonly #capacity: number;
  #size = 0;

  constructor(capacity = 500_000) {
    this.#capacity = capacity;
  }

  /** Entries and tombstones. */
  get size(): number {
    return this.#size;
  }

  get(networkId: string, table: string, key: string): Entry | undefined {
    return this.#networks.get(networkId)?.get(table)?.get(key);
  }

  set(networkId: string, table: string, key: string, entry: Entry): void {
    const network: Network = this.#networks.get(networkId) ?? new Map();
    this.#networks.set(networkId, network);
    const entries = network.get(table) ?? new Map<string, Entry>();
    network.set(table, entries);
    if (!entries.has(key)) this.#size++;
    entries.set(key, entry);
  }

  /** Everything of one network, or of one of its tables, tombstones included. May be changed while it is read. */
  *entries(networkId: string, only?: string): Generator<Placed> {
    for (const [table, entries] of this.#networks.get(networkId) ?? []) {
      if (only !== undefined && table !== only) continue;
      for (const [key, entry] of entries) yield { table, key, entry };
    }
  }

  /** Takes a remote event; the caller has checked that its owner is a member of the network. */
  apply(event: TableMessage, now: number): Applied {
    const { networkId, table, key, owner, ltime, value } = event;
    const known = this.get(networkId, table, key);
    if (known && known.ltime >= ltime) return { fresh: false };
    if (!known && this.#size >= this.#capacity) return { fresh: false, full: true };
    const deleting = event.type === "delete";
    const residual = event.residualReap > 0 ? Math.min(event.residualReap * 1000, reapEntryMs) : reapEntryMs;
    this.set(networkId, table, key, { owner, ltime, value, deleting, reapAt: deleting ? now + residual : 0 });
    const live = known && !known.deleting ? known : undefined;
    if (deleting) {
      if (!live) return { fresh: known !== undefined, unknownTombstone: known === undefined };
      const last = value.length > 0 ? value : live.value;
      return { fresh: true, change: { kind: "delete", networkId, table, key, value: last, owner } };
    }
    if (live && live.owner === owner && Buffer.compare(live.value, value) === 0) return { fresh: true };
    return { fresh: true, change: { kind: live ? "update" : "create", networkId, table, key, value, owner } };
  }

  /** Forgets what `owner` has, in one network or in all, without tombstones: it comes back with its owner. */
  dropOwner(owner: string, networkId?: string): Change[] {
    return this.#remove((entry) => entry.owner === owner, networkId);
  }

  /** Forgets what others have in a network that we left. */
  dropOthers(self: string, networkId: string): Change[] {
    return this.#remove((entry) => entry.owner !== self, networkId);
  }

  /** Turns what `owner` has in a network into tombstones; `older` shifts their times. */
  bury(owner: string, networkId: string, shift: bigint, now: number): Change[] {
    const changes: Change[] = [];
    for (const { table, key, entry } of this.entries(networkId)) {
      if (entry.owner !== owner || entry.deleting) continue;
      this.set(networkId, table, key, {
        ...entry,
        ltime: entry.ltime + shift,
        deleting: true,
        reapAt: now + reapEntryMs,
      });
      changes.push({ kind: "delete", networkId, table, key, value: entry.value, owner });
    }
    return changes;
  }

  /** Removes tombstones whose time is up. */
  reap(now: number): void {
    this.#remove((entry) => entry.deleting && entry.reapAt - now <= reapMarginMs);
  }

  /** Removes whatever is left of a network. */
  dropNetwork(networkId: string): void {
    this.#remove(() => true, networkId);
  }

  #remove(which: (entry: Entry) => boolean, only?: string): Change[] {
    const changes: Change[] = [];
    for (const networkId of only === undefined ? this.#networks.keys() : [only]) {
      const network = this.#networks.get(networkId);
      for (const [table, entries] of network ?? []) {
        for (const [key, entry] of entries) {
          if (!which(entry)) continue;
          entries.delete(key);
          this.#size--;
          if (entry.deleting) continue;
          changes.push({ kind: "delete", networkId, table, key, value: entry.value, owner: entry.owner });
        }
        if (entries.size === 0) network?.delete(table);
      }
      if (network?.size === 0) this.#networks.delete(networkId);
    }
    return changes;
  }
}
