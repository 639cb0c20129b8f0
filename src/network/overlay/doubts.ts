/**
 * How long records count that nobody stands behind (`tables.ts`): a node that gossip lost, or that came back under
 * another name, has probably only a daemon that is being restarted, and what runs over there runs on. Its records stay
 * until the host has told all it has without them, or does not come back.
 */
import type { Clock } from "../../base/clock.ts";
import type { Gossip, NodeEvent, TableEvent } from "../../gossip/types.ts";
import type { Doors } from "./doors.ts";
import { peerTable } from "./records.ts";
import type { Changed, NetworkTables } from "./tables.ts";

/** How often doubted records are looked at while there are any. */
const judgeMs = 200;
/**
 * How long a doubted record counts at most: while its host has not told yet what it has; while its host is not to be
 * seen, though others of the network are; while this host seems to be alone; after gossip lost the host.
 */
const patienceMs = { syncing: 30_000, joining: 5_000, absent: 5_000, alone: 60_000, lost: 600_000 };

export interface DoubtsOptions {
  readonly clock: Clock;
  readonly gossip: () => Pick<Gossip, "peers" | "synced"> | undefined;
  readonly tables: ReadonlyMap<string, NetworkTables>;
  readonly doors: Doors;
  /** A record was withdrawn. */
  readonly dropped: (networkId: string, key: string, changed: Changed | undefined) => void;
  /** A node's door was withdrawn. */
  readonly shut: () => void;
}

export class Doubts {
  readonly #options: DoubtsOptions;
  /**
   * Nodes that gossip lost. Names and balancers forget them, the way to their containers stays: most likely only the
   * daemon is away, and what talks to them over there goes on talking. Addresses rest before they are given again.
   */
  readonly #lost = new Set<string>();
  /** Names of nodes that came back under another: what they told is doubted, not gone. */
  readonly #replaced = new Set<string>();
  #cancel: (() => void) | undefined;

  constructor(options: DoubtsOptions) {
    this.#options = options;
  }

  /** Gossip runs from now on: what the last life heard is waited for from here, nobody could be heard before. */
  begin(): void {
    const { clock, tables } = this.#options;
    for (const network of tables.values()) {
      for (const { table, key, owner } of network.doubts()) network.doubt(table, key, owner, clock.steady());
    }
    this.#judgeSoon();
  }

  /** What becomes of a node. The database drops a failed node's entries itself, event by event. */
  node({ kind, name }: NodeEvent): void {
    if (kind === "join") this.#replaced.delete(name);
    if (kind !== "failed" && kind !== "replaced") return;
    (kind === "failed" ? this.#lost : this.#replaced).add(name);
    this.#judgeSoon();
  }

  /** Whether the end of an entry is no word of its owner's, but only that of its node. */
  covers({ kind, table, owner }: TableEvent): boolean {
    if (kind !== "delete") return false;
    return this.#replaced.has(owner) || (table === peerTable && this.#lost.has(owner));
  }

  /** Keeps a record whose end is covered. */
  doubt({ networkId, table, key, owner }: TableEvent): void {
    const { clock, tables } = this.#options;
    tables.get(networkId)?.doubt(table, key, owner, clock.steady());
    this.#judgeSoon();
  }

  /** Gossip ended. */
  clear(): void {
    this.close();
    this.#lost.clear();
    this.#replaced.clear();
  }

  close(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #judgeSoon(): void {
    this.#cancel ??= this.#options.clock.after(judgeMs, () => {
      this.#cancel = undefined;
      this.#judge();
    });
  }

  /** Withdraws doubted records whose hosts have told all they have without them, or do not come back. */
  #judge(): void {
    const { clock, doors, dropped, shut, tables } = this.#options;
    const gossip = this.#options.gossip();
    if (!gossip) return;
    const now = clock.steady();
    const there = gossip.peers();
    const alive = new Set(there.map((peer) => peer.address));
    const behind = new Set<string>();
    for (const [networkId, network] of tables) {
      const members = new Map(gossip.peers(networkId).map((peer) => [peer.address, peer.name]));
      for (const doubt of network.doubts()) {
        const host = members.get(doubt.ownerAddress);
        let patience: number;
        if (host !== undefined) patience = gossip.synced(host, networkId) ? 0 : patienceMs.syncing;
        else if (alive.has(doubt.ownerAddress)) patience = patienceMs.joining;
        else if (this.#lost.has(doubt.owner)) patience = patienceMs.lost;
        else patience = members.size > 1 ? patienceMs.absent : patienceMs.alone;
        if (now - doubt.since < patience) behind.add(doubt.owner);
        else dropped(networkId, doubt.key, network.drop(doubt));
      }
    }
    // A door leads nowhere without its node, and belongs to the records that name it.
    const names = new Set(there.map((peer) => peer.name));
    for (const owner of doors.byNode().keys()) {
      if (names.has(owner) || behind.has(owner)) continue;
      doors.drop(owner);
      shut();
    }
    for (const nodes of [this.#replaced, this.#lost]) {
      for (const name of nodes) if (!behind.has(name)) nodes.delete(name);
    }
    if (behind.size > 0) this.#judgeSoon();
  }
}
