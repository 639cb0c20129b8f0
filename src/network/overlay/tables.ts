/**
 * The decoded gossip tables of one network. Fed by events; compared with the database itself now and then.
 * Records of a suspected node are kept aside: its names and backends vanish, and come back if it answers.
 *
 * A record is doubted when nobody stands behind it any more but it is probably still true: this daemon or its
 * owner's was restarted. It counts until it is told anew, or until its host has told all it has without it.
 */
import type { TableEntry, TableEvent } from "../../gossip/types.ts";
import type { RemotePeer } from "../plan/overlay.ts";
import { decodeEndpoint, decodePeer, endpointTable, type Participant, peerTable } from "./records.ts";

export type Changed = "peers" | "endpoints";

interface Owned<T> {
  readonly owner: string;
  readonly ownerAddress: string;
  readonly value: T;
  readonly bytes: Uint8Array;
  /** Since when nobody stands behind it; undefined for what its owner says. */
  readonly doubtedSince: number | undefined;
}

/** An endpoint of another node as it was told, for people who look. */
export interface Told {
  readonly endpointId: string;
  readonly owner: string;
  readonly ownerAddress: string;
  readonly peer: RemotePeer | undefined;
  readonly participant: Participant | undefined;
  readonly doubted: boolean;
}

/** A doubted record. */
export interface Doubt {
  readonly table: string;
  readonly key: string;
  readonly owner: string;
  readonly ownerAddress: string;
  readonly since: number;
}

export class NetworkTables {
  readonly #peers = new Map<string, Owned<RemotePeer>>();
  readonly #endpoints = new Map<string, Owned<Participant>>();

  /** Takes one event in; tells which table changed in a way that matters. Own entries do not: they are state. */
  apply(
    event: Pick<TableEvent, "kind" | "table" | "key" | "value" | "owner" | "ownerAddress" | "local">,
    doubtedSince?: number,
  ): Changed | undefined {
    if (event.local) return undefined;
    if (event.table === peerTable)
      return this.#take(this.#peers, event, decodePeer(event.key, event.value), "peers", doubtedSince);
    if (event.table === endpointTable) {
      const participant = decodeEndpoint(event.key, event.value, { address: event.ownerAddress, name: event.owner });
      return this.#take(this.#endpoints, event, participant, "endpoints", doubtedSince);
    }
    return undefined;
  }

  #take<T>(
    table: Map<string, Owned<T>>,
    event: Pick<TableEvent, "kind" | "key" | "owner" | "ownerAddress" | "value">,
    value: T | undefined,
    changed: Changed,
    doubtedSince: number | undefined,
  ): Changed | undefined {
    if (event.kind === "delete" || value === undefined) {
      // A late delete of the one that had the key before must not take its successor away.
      if (event.kind === "delete" && table.get(event.key)?.owner !== event.owner) return undefined;
      return table.delete(event.key) ? changed : undefined;
    }
    const had = table.get(event.key);
    const { owner, ownerAddress, value: bytes } = event;
    const same = had && had.owner === owner && Buffer.compare(had.bytes, bytes) === 0;
    if (same && had.doubtedSince === doubtedSince) return undefined;
    // Deleted first, so that the newest claim to an address comes last.
    if (!same) table.delete(event.key);
    table.set(event.key, { owner, ownerAddress, value, bytes, doubtedSince });
    return same ? undefined : changed;
  }

  /** Its owner was restarted, or this node: keeps the record, doubted from now on. */
  doubt(name: string, key: string, owner: string, now: number): void {
    const doubt = <T>(table: Map<string, Owned<T>>) => {
      const had = table.get(key);
      if (had?.owner === owner) table.set(key, { ...had, doubtedSince: now });
    };
    if (name === peerTable) doubt(this.#peers);
    if (name === endpointTable) doubt(this.#endpoints);
  }

  doubts(): Doubt[] {
    const found: Doubt[] = [];
    for (const [table, entries] of [
      [peerTable, this.#peers],
      [endpointTable, this.#endpoints],
    ] as const) {
      for (const [key, { owner, ownerAddress, doubtedSince }] of entries) {
        if (doubtedSince !== undefined) found.push({ table, key, owner, ownerAddress, since: doubtedSince });
      }
    }
    return found;
  }

  /** A doubted record was not confirmed. */
  drop({ table, key }: Doubt): Changed | undefined {
    if (table === peerTable) return this.#peers.delete(key) ? "peers" : undefined;
    return this.#endpoints.delete(key) ? "endpoints" : undefined;
  }

  /** Makes the tables equal to the database's but for doubted records; gives the number of entries that differed. */
  resync(entries: { peers: readonly TableEntry[]; endpoints: readonly TableEntry[] }): number {
    let differences = 0;
    for (const [name, list, table] of [
      [peerTable, entries.peers, this.#peers],
      [endpointTable, entries.endpoints, this.#endpoints],
    ] as const) {
      const keys = new Set(list.filter((entry) => !entry.local).map((entry) => entry.key));
      for (const [key, { doubtedSince }] of [...table]) {
        if (doubtedSince === undefined && !keys.has(key) && table.delete(key)) differences++;
      }
      for (const entry of list) if (this.apply({ ...entry, kind: "create", table: name })) differences++;
    }
    return differences;
  }

  peers(): RemotePeer[] {
    return [...this.#peers.values()].map((entry) => entry.value);
  }

  /**
   * Participants of other nodes, without those of suspended owners, and without those whose peer record is not here
   * (yet): a name or a balancer that leads to an address nobody can reach is worse than none.
   */
  participants(suspended: ReadonlySet<string>): Participant[] {
    const found: Participant[] = [];
    for (const [key, { owner, value }] of this.#endpoints) {
      if (!suspended.has(owner) && this.#peers.has(key)) found.push(value);
    }
    return found;
  }

  /** Everything, joined by endpoint, whether it is used or not. */
  told(): Told[] {
    return [...new Set([...this.#peers.keys(), ...this.#endpoints.keys()])].flatMap((endpointId) => {
      const peer = this.#peers.get(endpointId);
      const named = this.#endpoints.get(endpointId);
      const from = peer ?? named;
      if (!from) return [];
      const doubted = (peer?.doubtedSince ?? named?.doubtedSince) !== undefined;
      const { owner, ownerAddress } = from;
      return { endpointId, owner, ownerAddress, peer: peer?.value, participant: named?.value, doubted };
    });
  }

  /** Whether an endpoint takes part in discovery, be it reachable or not. */
  names(endpointId: string): boolean {
    return this.#endpoints.has(endpointId);
  }

  /** Everything as it was heard, to be kept over a restart. */
  entries(): { table: string; key: string; value: Uint8Array; owner: string; ownerAddress: string }[] {
    return [
      ...[...this.#peers].map(([key, entry]) => ({ table: peerTable, key, ...entry, value: entry.bytes })),
      ...[...this.#endpoints].map(([key, entry]) => ({ table: endpointTable, key, ...entry, value: entry.bytes })),
    ].map(({ table, key, value, owner, ownerAddress }) => ({ table, key, value, owner, ownerAddress }));
  }

  owns(owner: string): boolean {
    for (const entry of this.#endpoints.values()) if (entry.owner === owner) return true;
    return false;
  }
}
