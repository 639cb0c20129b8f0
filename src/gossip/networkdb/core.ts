/** What the parts of networkdb share, and the few things that all of them do. */
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Counters } from "../memberlist/counters.ts";
import type { Memberlist } from "../memberlist/memberlist.ts";
import { retransmitLimit, TransmitQueue } from "../memberlist/queue.ts";
import type { NodeEvent, TableEvent } from "../types.ts";
import { BulkSyncer } from "./bulksync.ts";
import { LamportClock } from "./clock.ts";
import { Later } from "./later.ts";
import { type BulkSync, encodeDb } from "./messages.ts";
import { Peers } from "./peers.ts";
import { type OwnNetwork, SyncPlan } from "./sync-plan.ts";
import { TableGossip } from "./table-gossip.ts";
import { type Change, Tables } from "./tables.ts";

export interface NetworkDbOptions {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Logger;
  readonly counters: Counters;
  readonly gossipIntervalMs: number;
  readonly bulkSyncIntervalMs: number;
  readonly packetBytes: number;
  readonly retransmitMult: number;
  /** Our own news are told at once to so many nodes. */
  readonly eagerNodes: number;
  readonly onTable: (event: TableEvent) => void;
  readonly onNode: (event: NodeEvent) => void;
  readonly onMessage: (payload: Uint8Array, peer: string) => void;
}

export class Core {
  readonly options: NetworkDbOptions;
  /** Counts events of nodes and networks. */
  readonly networkClock = new LamportClock();
  /** Counts events of tables. */
  readonly tableClock = new LamportClock();
  readonly peers: Peers;
  readonly tables = new Tables();
  /** Networks that this node is in. */
  readonly own = new Map<string, OwnNetwork>();
  /** Events of nodes and networks that wait to be gossiped. */
  readonly queue: TransmitQueue;
  readonly gossip: TableGossip;
  readonly bulk: BulkSyncer;
  readonly later: Later;
  readonly plan: SyncPlan;
  /** Undefined until networkdb is started. */
  list: Memberlist | undefined;

  constructor(options: NetworkDbOptions, applyBulk: (sync: BulkSync) => Promise<void>) {
    this.options = options;
    const { name, clock, log, counters } = options;
    this.peers = new Peers(name);
    this.queue = new TransmitQueue(() =>
      retransmitLimit(options.retransmitMult, this.peers.withStatus("active").length + 1),
    );
    const send = (peer: string, payload: Uint8Array) => {
      const member = this.list?.live(peer);
      if (member) this.list?.sendPacket(member, payload);
    };
    const stream = async (peer: string, networkId: string, events: readonly Uint8Array[]) => {
      if (!(await this.bulk.tell(peer, events))) this.plan.soon(peer, networkId);
    };
    this.gossip = new TableGossip({ ...options, send, stream, others: (networkId) => this.peers.others(networkId) });
    this.bulk = new BulkSyncer({
      self: name,
      clock,
      log,
      counters,
      time: () => this.tableClock.time(),
      collect: (networks, ownOnly) => this.#collect(networks, ownOnly),
      apply: applyBulk,
      send: async (peer, payload) => {
        const member = this.list?.live(peer);
        if (!member || !this.list) throw new Error("gossip: peer is not alive");
        await this.list.sendStream(member, payload);
      },
    });
    this.later = new Later(clock);
    const { bulk, peers, own, later, tables } = this;
    this.plan = new SyncPlan(options, { bulk, peers, own, later, tables });
  }

  /** Takes a time that was heard; false when it is absurd. */
  witness(clock: LamportClock, time: bigint): boolean {
    if (clock.witness(time)) return true;
    this.options.counters.add("dropped.absurdTime");
    return false;
  }

  place(owner: string): { ownerAddress: string; local: boolean } {
    const local = owner === this.options.name;
    return { local, ownerAddress: local ? this.options.address : (this.peers.get(owner)?.address ?? "") };
  }

  /** Tells watchers. */
  tell(changes: readonly Change[]): void {
    for (const change of changes) this.options.onTable({ ...change, ...this.place(change.owner) });
  }

  /** Exchanges what memberlist and networkdb know of nodes and networks with one of them. */
  exchange(name: string): void {
    const member = this.list?.live(name);
    if (!member) return;
    this.list?.pushPull(member.address, member.port, false).catch((error) => this.noted("push/pull", name, error));
  }

  noted(what: string, peer: string, error: unknown): void {
    this.options.log.debug(`gossip ${what} failed`, { peer, error: messageOf(error) });
  }

  /** Who is in these networks, then what they have: an entry of a node not known to be in is nothing to a reader. */
  *#collect(networks: readonly string[], ownOnly: boolean): Generator<Uint8Array> {
    const { name, clock } = this.options;
    for (const networkId of networks) {
      if (!this.own.has(networkId)) continue;
      for (const { node, ltime, leaving } of this.peers.attachmentsTo(networkId)) {
        if (ownOnly && node !== name) continue;
        yield encodeDb({ kind: "network", type: leaving ? "leave" : "join", ltime, node, networkId });
      }
      const now = clock.now();
      for (const { table, key, entry } of this.tables.entries(networkId)) {
        const { owner, ltime, value, deleting } = entry;
        if (ownOnly && owner !== name) continue;
        const residualReap = deleting ? Math.floor((entry.reapAt - now) / 1000) : 0;
        if (deleting && residualReap < 1) continue;
        const type = deleting ? "delete" : "create";
        yield encodeDb({ kind: "table", type, ltime, owner, networkId, table, key, value, residualReap });
      }
    }
  }
}
