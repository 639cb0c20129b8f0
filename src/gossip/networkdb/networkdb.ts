/**
 * The shell around the tables: it takes what memberlist delivers, keeps peers and tables, tells watchers, and
 * runs the loops (table gossip, bulk sync, reconnection, reaping). Start reading at `#handle`.
 */
import { type Clock, sleep } from "../../base/clock.ts";
import { conflict, invalid, messageOf, notFound } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Counters } from "../memberlist/counters.ts";
import type { Delegate, Memberlist } from "../memberlist/memberlist.ts";
import { retransmitLimit, TransmitQueue } from "../memberlist/queue.ts";
import { sample } from "../memberlist/shuffle.ts";
import type { Member, MemberChange } from "../memberlist/state.ts";
import type { NodeEvent, TableEntry, TableEvent } from "../types.ts";
import { BulkSyncer } from "./bulksync.ts";
import { LamportClock } from "./clock.ts";
import { Later } from "./later.ts";
import {
  type BulkSync,
  type DbMessage,
  decodeDb,
  encodeDb,
  isId,
  type NetworkMessage,
  type NodeMessage,
  type TableMessage,
} from "./messages.ts";
import { type PeerStatus, Peers } from "./peers.ts";
import { Pending } from "./pending.ts";
import { type OwnNetwork, SyncPlan, settleMs } from "./sync-plan.ts";
import { TableGossip } from "./table-gossip.ts";
import { type Change, reapEntryMs, Tables } from "./tables.ts";

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

const maxNesting = 3;
/** Above so many queued events those of bulk syncs are not passed on. */
const busyQueue = 500;
const pendingMs = 10_000;
const pendingCapacity = 8192;
const maxReconnects = 4;
const reapIntervalMs = 5_000;
const announceDelayMs = 1_500;
/** A tombstone of something never seen is passed on only with this much of its life left. */
const youngTombstoneMs = reapEntryMs / 6;

export class NetworkDb implements Delegate {
  readonly #options: NetworkDbOptions;
  readonly #networkClock = new LamportClock();
  readonly #tableClock = new LamportClock();
  readonly #peers: Peers;
  readonly #tables = new Tables();
  readonly #own = new Map<string, OwnNetwork>();
  readonly #queue: TransmitQueue;
  readonly #gossip: TableGossip;
  readonly #bulk: BulkSyncer;
  readonly #pendingTables = new Pending<{ event: TableMessage; bulk: boolean }>(pendingMs, pendingCapacity);
  readonly #pendingNetworks = new Pending<NetworkMessage>(pendingMs, pendingCapacity);
  readonly #later: Later;
  readonly #plan: SyncPlan;
  readonly #timers: (() => void)[] = [];
  readonly #reconnecting = new Set<string>();
  /** Peers taken for gone because another name came up at their address. */
  readonly #replaced = new Set<string>();
  #list: Memberlist | undefined;

  constructor(options: NetworkDbOptions) {
    this.#options = options;
    const { name, clock, log, counters } = options;
    this.#peers = new Peers(name);
    this.#queue = new TransmitQueue(() =>
      retransmitLimit(options.retransmitMult, this.#peers.withStatus("active").length + 1),
    );
    const send = (peer: string, payload: Uint8Array) => {
      const member = this.#list?.live(peer);
      if (member) this.#list?.sendPacket(member, payload);
    };
    const others = (networkId: string) => this.#peers.others(networkId);
    this.#gossip = new TableGossip({ ...options, send, others });
    this.#bulk = new BulkSyncer({
      self: name,
      clock,
      log,
      counters,
      time: () => this.#tableClock.time(),
      collect: (networks) => networks.flatMap((networkId) => this.#collect(networkId)),
      apply: (sync) => this.#applyBulk(sync),
      send: async (peer, payload) => {
        const member = this.#list?.live(peer);
        if (!member || !this.#list) throw new Error("gossip: peer is not alive");
        await this.#list.sendStream(member, payload);
      },
    });
    this.#later = new Later(clock);
    this.#plan = new SyncPlan(options, { bulk: this.#bulk, peers: this.#peers, own: this.#own, later: this.#later });
  }

  start(list: Memberlist): void {
    this.#list = list;
    const { clock, random, gossipIntervalMs, bulkSyncIntervalMs } = this.#options;
    this.#timers.push(
      clock.every(gossipIntervalMs, () => this.#gossip.tick()),
      clock.every(1_000, () => this.#everySecond()),
      clock.every(reapIntervalMs, () => this.#reap()),
      clock.after(random() * bulkSyncIntervalMs, () => {
        this.#timers.push(clock.every(bulkSyncIntervalMs, () => this.#plan.periodic()));
      }),
    );
  }

  close(): void {
    for (const cancel of this.#timers) cancel();
    this.#later.close();
    this.#gossip.close();
  }

  /** Joins the cluster through the node at this address. */
  async joinCluster(host: string, port: number): Promise<void> {
    await this.#list?.pushPull(host, port, true);
    this.#announceSelf("join");
  }

  /**
   * Tells the cluster that we go; memberlist's own farewell follows. Docker handles what it receives last first:
   * were both sent together, it would take the departure for a failure and try to reconnect for a day.
   */
  async leaveCluster(): Promise<void> {
    const { clock, gossipIntervalMs } = this.#options;
    this.#announceSelf("leave");
    if (this.#peers.withStatus("active").length > 0) await sleep(clock, 2 * gossipIntervalMs);
  }

  isActive(address: string, port: number): boolean {
    return this.#peers.withStatus("active").some((peer) => peer.address === address && peer.port === port);
  }

  // -- the door ----------------------------------------------------------------------------------------------------

  async joinNetwork(networkId: string): Promise<void> {
    if (!isId(networkId)) throw invalid(`invalid network id ${networkId}`);
    if (this.#own.has(networkId)) return;
    const { name, clock } = this.#options;
    const own: OwnNetwork = { inSync: false, early: false, joinedAt: clock.now() };
    this.#own.set(networkId, own);
    const ltime = this.#networkClock.increment();
    this.#peers.attach(name, networkId, ltime);
    this.#announce({ kind: "network", type: "join", ltime, node: name, networkId });
    await this.#plan.joining(networkId, own);
  }

  leaveNetwork(networkId: string): void {
    if (!this.#own.delete(networkId)) return;
    const { name, clock } = this.#options;
    const ltime = this.#networkClock.increment();
    this.#peers.detach(name, networkId, ltime, clock.now());
    this.#announce({ kind: "network", type: "leave", ltime, node: name, networkId });
    const buried = this.#tables.bury(name, networkId, 1n, clock.now());
    // Those tombstones are one ahead of their entries: an entry made after a return must be later still.
    this.#tableClock.increment();
    this.#gossip.drop(networkId);
    this.#tell([...buried, ...this.#tables.dropOthers(name, networkId)]);
  }

  createEntry(table: string, networkId: string, key: string, value: Uint8Array): void {
    const known = this.#tables.get(networkId, table, key);
    if (known && !known.deleting) {
      throw conflict(
        `cannot create entry in table ${table} with network id ${networkId} and key ${key}, already exists`,
      );
    }
    this.#change("create", table, networkId, key, value);
  }

  updateEntry(table: string, networkId: string, key: string, value: Uint8Array): void {
    this.#mustExist("update", table, networkId, key);
    this.#change("update", table, networkId, key, value);
  }

  deleteEntry(table: string, networkId: string, key: string): void {
    const { value } = this.#mustExist("delete", table, networkId, key);
    this.#change("delete", table, networkId, key, value);
  }

  entries(table: string, networkId: string): TableEntry[] {
    const found: TableEntry[] = [];
    for (const { table: of, key, entry } of this.#tables.entries(networkId)) {
      if (of !== table || entry.deleting) continue;
      found.push({ key, value: entry.value, owner: entry.owner, ...this.#place(entry.owner) });
    }
    return found;
  }

  peers(networkId?: string): { name: string; address: string }[] {
    const { name, address } = this.#options;
    const active = [{ name, address }, ...this.#peers.withStatus("active")];
    return active
      .filter((peer) => networkId === undefined || this.#peers.isMember(peer.name, networkId))
      .map((peer) => ({ name: peer.name, address: peer.address }));
  }

  /** Networks that a node is in. */
  networksOf(name: string): string[] {
    return this.#peers.networks(name);
  }

  synced(peer: string, networkId: string): boolean {
    return this.#bulk.syncedAt(peer, networkId) !== undefined;
  }

  /** A word to one node, if it is there. */
  send(peer: string, payload: Uint8Array): void {
    const member = this.#list?.live(peer);
    if (member) this.#list?.sendPacket(member, encodeDb({ kind: "direct", node: this.#options.name, payload }));
  }

  stats(): Record<string, number> {
    return {
      peers: this.#peers.withStatus("active").length,
      failedPeers: this.#peers.withStatus("failed").length,
      networks: this.#own.size,
      entries: this.#tables.size,
      "queue.events": this.#queue.size,
      "queue.tables": this.#gossip.queued,
      "queue.pending": this.#pendingTables.size + this.#pendingNetworks.size,
    };
  }

  // -- memberlist's delegate ---------------------------------------------------------------------------------------

  message(payload: Buffer): void {
    this.#decoded(payload, 0);
  }

  broadcasts(overhead: number, room: number): Uint8Array[] {
    return this.#queue.take(overhead, room);
  }

  localState(join: boolean): Uint8Array {
    // A stale copy somewhere may still say that we are leaving a network.
    if (join && this.#own.size > 0) this.#peers.renew(this.#networkClock.increment());
    return encodeDb({
      kind: "pushPull",
      ltime: this.#networkClock.time(),
      node: this.#options.name,
      networks: this.#peers.attachments(),
    });
  }

  mergeState(state: Buffer): void {
    let message: DbMessage;
    try {
      message = decodeDb(state);
    } catch {
      this.#options.counters.add("dropped.dbMalformed");
      return;
    }
    if (message.kind !== "pushPull") return;
    const { ltime, node } = message;
    this.#onNode({ kind: "node", type: "join", ltime, node });
    for (const { leaving, ...entry } of message.networks) {
      this.#onNetwork({ kind: "network", type: leaving ? "leave" : "join", ...entry }, false);
    }
  }

  changed(change: MemberChange, member: Member): void {
    const { name, address } = member;
    switch (change) {
      case "join":
        this.#joined(member);
        break;
      case "alive":
      case "suspect":
        if (this.#peers.get(name)?.status === "active") this.#options.onNode({ kind: change, name, address });
        break;
      case "failed":
      case "left":
        this.#replaced.delete(name);
        this.#gone(name, change);
        break;
    }
  }

  declaredDead(): void {
    this.#options.counters.add("declaredDead");
    this.#sayAgain();
  }

  // -- what comes in -----------------------------------------------------------------------------------------------

  #decoded(payload: Uint8Array, depth: number): void {
    let message: DbMessage;
    try {
      if (depth > maxNesting) throw new RangeError("networkdb: nested too deep");
      message = decodeDb(payload);
    } catch {
      this.#options.counters.add("dropped.dbMalformed");
      return;
    }
    this.#handle(message, depth);
  }

  #handle(message: DbMessage, depth: number): void {
    switch (message.kind) {
      case "node":
        this.#onNode(message);
        break;
      case "network":
        this.#onNetwork(message, true);
        break;
      case "table":
        this.#onTable(message, false);
        break;
      case "bulkSync":
        if (message.node === this.#options.name) return;
        if (!this.#witness(this.#tableClock, message.ltime)) return;
        this.#bulk.receive(message);
        break;
      case "compound":
        for (const part of message.messages) this.#decoded(part, depth + 1);
        break;
      case "direct":
        if (this.#peers.get(message.node)?.status === "active") this.#options.onMessage(message.payload, message.node);
        break;
      case "pushPull":
        this.#options.counters.add("dropped.dbMalformed");
        break;
    }
  }

  #onNode(event: NodeMessage): void {
    if (event.node === this.#options.name || !this.#witness(this.#networkClock, event.ltime)) return;
    if (!this.#peers.freshNodeEvent(event) || event.type === "join") return;
    this.#gone(event.node, "left");
    this.#queue.push({ key: `node/${event.node}`, message: encodeDb(event) });
  }

  #onNetwork(event: NetworkMessage, passOn: boolean): void {
    const { name, clock, counters } = this.#options;
    if (event.node === name || !this.#witness(this.#networkClock, event.ltime)) return;
    const verdict = this.#peers.networkEvent(event, clock.now());
    if (verdict === "unknown") {
      if (this.#pendingNetworks.add(event.node, event, clock.now()) === "full") counters.add("dropped.pendingFull");
    }
    if (verdict !== "fresh") return;
    if (passOn) this.#queue.push({ key: `net/${event.node}/${event.networkId}`, message: encodeDb(event) });
    if (event.type === "leave") this.#tell(this.#tables.bury(event.node, event.networkId, 0n, clock.now()));
    else this.#attached(event.node, event.networkId);
  }

  /** A node is in a network now: what came too early is taken up, and if we are in it too, a sync is due. */
  #attached(node: string, networkId: string): void {
    for (const { event, bulk } of this.#pendingTables.take(`${node}/${networkId}`)) this.#onTable(event, bulk);
    if (this.#own.has(networkId)) this.#plan.soon(node, networkId);
  }

  #onTable(event: TableMessage, bulk: boolean): void {
    const { name, clock, counters } = this.#options;
    if (event.owner === name || !this.#witness(this.#tableClock, event.ltime)) return;
    const own = this.#own.get(event.networkId);
    if (!own) {
      counters.add("ignored.notInNetwork");
      return;
    }
    if (!this.#peers.isMember(event.owner, event.networkId)) {
      const path = `${event.owner}/${event.networkId}`;
      const kept = this.#pendingTables.add(path, { event, bulk }, clock.now());
      if (kept === "full") counters.add("dropped.pendingFull");
      if (kept === "first") this.#askNetworks(event.owner, event.networkId);
      return;
    }
    const { change, fresh, unknownTombstone } = this.#tables.apply(event, clock.now());
    if (change) this.#tell([change]);
    const worthy = fresh || (unknownTombstone && bulk && event.residualReap * 1000 > youngTombstoneMs);
    if (!worthy || !own.inSync || (bulk && this.#gossip.queuedFor(event.networkId) > busyQueue)) return;
    this.#gossip.push(event.networkId, `${event.table}/${event.key}`, encodeDb(event), false);
  }

  #applyBulk(sync: BulkSync): void {
    const { counters } = this.#options;
    try {
      const payload = decodeDb(sync.payload);
      if (payload.kind !== "compound") throw new RangeError("networkdb: bulk sync without compound");
      for (const part of payload.messages) {
        const event = decodeDb(part);
        if (event.kind === "table") this.#onTable(event, true);
        else counters.add("dropped.dbMalformed");
      }
    } catch {
      counters.add("dropped.dbMalformed");
    }
  }

  #witness(clock: LamportClock, time: bigint): boolean {
    if (clock.witness(time)) return true;
    this.#options.counters.add("dropped.absurdTime");
    return false;
  }

  // -- nodes come and go -------------------------------------------------------------------------------------------

  #joined(member: Member): void {
    const { name, address, port } = member;
    const { clock, random, onNode } = this.#options;
    const before = this.#peers.get(name);
    if (address === this.#options.address && port === this.#options.port) {
      // Ourselves before a restart. Nobody knows better than we that it is gone.
      this.#list?.dismiss(name);
      return;
    }
    this.#replaced.delete(name);
    for (const former of this.#peers.joined(name, address, port, clock.now())) {
      this.#replaced.add(former.name);
      this.#gone(former.name, "left", "replaced");
    }
    onNode({ kind: "join", name, address });
    for (const event of this.#pendingNetworks.take(name)) this.#onNetwork(event, true);
    if (!before) return;
    // It was taken for dead, and its networks and entries were dropped; it may not even know. Ask it. And it may
    // have taken us for dead as well.
    this.#sayAgain();
    this.#later.run(`learn/${name}`, 300 + random() * 700, () => {
      if (this.#peers.networks(name).length === 0) this.#exchange(name);
    });
  }

  /** A node failed or left: its entries go at once, without tombstones. */
  #gone(name: string, status: Exclude<PeerStatus, "active">, told: NodeEvent["kind"] = status): void {
    const moved = this.#peers.move(name, status, this.#options.clock.now());
    if (!moved) return;
    this.#peers.detachAll(name);
    this.#bulk.forget(name);
    this.#options.onNode({ kind: told, name, address: moved.address });
    this.#tell(this.#tables.dropOwner(name));
  }

  /**
   * Two names at one address: the later one wins at first, but news of the former may just have been late. Who
   * outlives the other is the one.
   */
  #reinstate(): void {
    for (const name of this.#replaced) {
      const member = this.#list?.live(name);
      if (!member) this.#replaced.delete(name);
      else if (!this.isActive(member.address, member.port)) this.#joined(member);
    }
  }

  /** Events of a node came that is not known to be in that network: unless that resolves by itself, ask it. */
  #askNetworks(node: string, networkId: string): void {
    this.#later.run(`ask/${node}`, 1_000, () => {
      if (this.#pendingTables.has(`${node}/${networkId}`)) this.#exchange(node);
    });
  }

  #exchange(name: string): void {
    const member = this.#list?.live(name);
    if (!member) return;
    this.#list?.pushPull(member.address, member.port, false).catch((error) => this.#noted("push/pull", name, error));
  }

  #reconnect(): void {
    if (this.#reconnecting.size >= maxReconnects) return;
    const failed = this.#peers.withStatus("failed").filter((peer) => !this.#reconnecting.has(peer.name));
    const [peer] = sample(failed, this.#options.random, 1);
    if (!peer) return;
    this.#reconnecting.add(peer.name);
    this.joinCluster(peer.address, peer.port)
      .catch((error) => this.#noted("reconnect", peer.name, error))
      .finally(() => this.#reconnecting.delete(peer.name));
  }

  // -- what goes out -----------------------------------------------------------------------------------------------

  #change(type: TableMessage["type"], table: string, networkId: string, key: string, value: Uint8Array): void {
    if (!isId(table) || !isId(key)) throw invalid(`invalid table ${table} or key ${key}`);
    const own = this.#own.get(networkId);
    if (!own) throw notFound(`network ${networkId} not found`);
    const { name: owner, clock } = this.#options;
    const now = clock.now();
    const ltime = this.#tableClock.increment();
    const deleting = type === "delete";
    const residualReap = deleting ? reapEntryMs / 1000 : 0;
    this.#tables.set(networkId, table, key, {
      owner,
      ltime,
      value,
      deleting,
      reapAt: deleting ? now + reapEntryMs : 0,
    });
    if (now - own.joinedAt < settleMs) own.early = true;
    const event: TableMessage = { kind: "table", type, ltime, owner, networkId, table, key, value, residualReap };
    if (!this.#gossip.push(networkId, `${table}/${key}`, encodeDb(event), true)) {
      // Too large for a packet: streams carry it.
      for (const peer of this.#peers.others(networkId)) this.#plan.soon(peer, networkId);
    }
    this.#tell([{ kind: type, networkId, table, key, value, owner }]);
  }

  #mustExist(what: "update" | "delete", table: string, networkId: string, key: string): { value: Uint8Array } {
    const known = this.#tables.get(networkId, table, key);
    if (known && !known.deleting) return known;
    throw notFound(
      `cannot ${what} entry in table ${table} with network id ${networkId} and key ${key} does not exist or is already being deleted`,
    );
  }

  #announceSelf(type: NodeMessage["type"]): void {
    this.#announce({ kind: "node", type, ltime: this.#networkClock.increment(), node: this.#options.name });
  }

  /** Gossips our own news, and tells it directly to as many as is cheap: most races are lost by gossip's delay. */
  #announce(event: NodeMessage | NetworkMessage): void {
    const key = event.kind === "node" ? `node/${event.node}` : `net/${event.node}/${event.networkId}`;
    const message = encodeDb(event);
    this.#queue.push({ key, message });
    const { name, random, eagerNodes } = this.#options;
    const others = this.#list?.members().filter((member) => member.name !== name) ?? [];
    for (const member of sample(others, random, eagerNodes)) this.#list?.sendPacket(member, message);
  }

  /**
   * Others have dropped our networks and entries, or may have: say it all again, once they have heard that we live.
   * A real Docker node would else not know before its next push/pull and bulk sync, half a minute each.
   */
  #sayAgain(): void {
    this.#later.run("announce", announceDelayMs, () => {
      const ltime = this.#networkClock.increment();
      this.#peers.renew(ltime);
      for (const networkId of this.#own.keys()) {
        this.#announce({ kind: "network", type: "join", ltime, node: this.#options.name, networkId });
        for (const peer of this.#peers.others(networkId)) this.#plan.soon(peer, networkId);
      }
    });
  }

  #collect(networkId: string): Uint8Array[] {
    if (!this.#own.has(networkId)) return [];
    const now = this.#options.clock.now();
    const messages: Uint8Array[] = [];
    for (const { table, key, entry } of this.#tables.entries(networkId)) {
      const { owner, ltime, value, deleting } = entry;
      const residualReap = deleting ? Math.floor((entry.reapAt - now) / 1000) : 0;
      if (deleting && residualReap < 1) continue;
      const type = deleting ? "delete" : "create";
      messages.push(encodeDb({ kind: "table", type, ltime, owner, networkId, table, key, value, residualReap }));
    }
    return messages;
  }

  // -- loops and tools ---------------------------------------------------------------------------------------------

  #everySecond(): void {
    const now = this.#options.clock.now();
    const late = this.#pendingTables.expire(now) + this.#pendingNetworks.expire(now);
    if (late > 0) this.#options.counters.add("dropped.ownerUnknown", late);
    this.#reinstate();
    this.#reconnect();
  }

  #reap(): void {
    const now = this.#options.clock.now();
    this.#tables.reap(now);
    for (const networkId of this.#peers.reap(now)) if (!this.#own.has(networkId)) this.#tables.dropNetwork(networkId);
  }

  #place(owner: string): { ownerAddress: string; local: boolean } {
    const local = owner === this.#options.name;
    return { local, ownerAddress: local ? this.#options.address : (this.#peers.get(owner)?.address ?? "") };
  }

  #tell(changes: readonly Change[]): void {
    for (const change of changes) this.#options.onTable({ ...change, ...this.#place(change.owner) });
  }

  #noted(what: string, peer: string, error: unknown): void {
    this.#options.log.debug(`gossip ${what} failed`, { peer, error: messageOf(error) });
  }
}
