/**
 * Tables per network on top of memberlist: the door to them, and the loops. What comes in is `intake.ts`, how nodes come
 * and go `roster.ts`, what we say of ourselves `announcer.ts` and `defence.ts`; what they share is `core.ts`.
 */
import { sleep } from "../../base/clock.ts";
import { conflict, invalid, notFound } from "../../base/errors.ts";
import type { Memberlist } from "../memberlist/memberlist.ts";
import type { Member, MemberChange } from "../memberlist/state.ts";
import type { Delegate } from "../memberlist/types.ts";
import type { TableEntry } from "../types.ts";
import { Announcer } from "./announcer.ts";
import { Core, type NetworkDbOptions } from "./core.ts";
import { Defence } from "./defence.ts";
import { Intake } from "./intake.ts";
import { encodeDb, isId, type TableMessage } from "./messages.ts";
import { Roster } from "./roster.ts";
import { type OwnNetwork, settleMs } from "./sync-plan.ts";
import { reapEntryMs } from "./tables.ts";

const reapIntervalMs = 5_000;

export class NetworkDb implements Delegate {
  readonly #options: NetworkDbOptions;
  readonly #core: Core;
  readonly #announcer: Announcer;
  readonly #defence: Defence;
  readonly #intake: Intake;
  readonly #roster: Roster;
  readonly #timers: (() => void)[] = [];

  constructor(options: NetworkDbOptions) {
    this.#options = options;
    this.#core = new Core(options, (sync) => this.#intake.bulk(sync));
    this.#announcer = new Announcer(this.#core);
    this.#defence = new Defence(this.#core, this.#announcer);
    this.#intake = new Intake(this.#core, this.#defence, (name) => this.#roster.gone(name, "left"));
    this.#roster = new Roster(this.#core, this.#announcer, (name) => this.#intake.explained(name));
  }

  start(list: Memberlist): void {
    const { gossip, plan } = this.#core;
    this.#core.list = list;
    const { clock, random, gossipIntervalMs, bulkSyncIntervalMs } = this.#options;
    this.#timers.push(
      clock.every(gossipIntervalMs, () => gossip.tick()),
      clock.every(1_000, () => this.#everySecond()),
      clock.every(reapIntervalMs, () => this.#reap()),
      clock.after(random() * bulkSyncIntervalMs, () => {
        this.#timers.push(clock.every(bulkSyncIntervalMs, () => plan.periodic()));
      }),
    );
  }

  close(): void {
    for (const cancel of this.#timers) cancel();
    this.#core.later.close();
    this.#core.gossip.close();
  }

  /** Joins the cluster through the node at this address. */
  joinCluster(host: string, port: number): Promise<void> {
    return this.#roster.join(host, port);
  }

  /**
   * Tells the cluster that we go; memberlist's own farewell follows. Docker handles what it receives last first:
   * were both sent together, it would take the departure for a failure and try to reconnect for a day.
   */
  async leaveCluster(): Promise<void> {
    const { clock, gossipIntervalMs } = this.#options;
    this.#announcer.self("leave");
    if (this.#core.peers.withStatus("active").length > 0) await sleep(clock, 2 * gossipIntervalMs);
  }

  isActive(address: string, port: number): boolean {
    return this.#roster.isActive(address, port);
  }

  // -- the door ----------------------------------------------------------------------------------------------------

  async joinNetwork(networkId: string): Promise<void> {
    const { own: networks, networkClock, peers, plan } = this.#core;
    if (!isId(networkId)) throw invalid(`invalid network id ${networkId}`);
    if (networks.has(networkId)) return;
    const own: OwnNetwork = { inSync: false, early: false, joinedAt: this.#options.clock.now() };
    networks.set(networkId, own);
    const ltime = networkClock.increment();
    peers.attach(this.#options.name, networkId, ltime);
    this.#announcer.network("join", networkId, ltime);
    await plan.joining(networkId, own);
  }

  leaveNetwork(networkId: string): void {
    const { own, networkClock, tableClock, peers, tables, gossip } = this.#core;
    if (!own.delete(networkId)) return;
    const { name, clock } = this.#options;
    const ltime = networkClock.increment();
    peers.detach(name, networkId, ltime, clock.now());
    this.#announcer.network("leave", networkId, ltime);
    const buried = tables.bury(name, networkId, 1n, clock.now());
    // Those tombstones are one ahead of their entries: an entry made after a return must be later still.
    tableClock.increment();
    gossip.drop(networkId);
    this.#core.tell([...buried, ...tables.dropOthers(name, networkId)]);
  }

  createEntry(table: string, networkId: string, key: string, value: Uint8Array): void {
    const known = this.#core.tables.get(networkId, table, key);
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
    for (const { key, entry } of this.#core.tables.entries(networkId, table)) {
      if (!entry.deleting)
        found.push({ key, value: entry.value, owner: entry.owner, ...this.#core.place(entry.owner) });
    }
    return found;
  }

  peers(networkId?: string): { name: string; address: string }[] {
    const { peers } = this.#core;
    const { name, address } = this.#options;
    const active = [{ name, address }, ...peers.withStatus("active")];
    return active
      .filter((peer) => networkId === undefined || peers.isMember(peer.name, networkId))
      .map((peer) => ({ name: peer.name, address: peer.address }));
  }

  /** Networks that a node is in. */
  networksOf(name: string): string[] {
    return this.#core.peers.networks(name);
  }

  synced(peer: string, networkId: string): boolean {
    return this.#core.bulk.syncedAt(peer, networkId) !== undefined;
  }

  /** A word to one node, if it is there. */
  send(peer: string, payload: Uint8Array): void {
    const { list } = this.#core;
    const member = list?.live(peer);
    if (member) list?.sendPacket(member, encodeDb({ kind: "direct", node: this.#options.name, payload }));
  }

  stats(): Record<string, number> {
    const { peers, own, tables, queue, gossip } = this.#core;
    return {
      peers: peers.withStatus("active").length,
      failedPeers: peers.withStatus("failed").length,
      networks: own.size,
      entries: tables.size,
      "queue.events": queue.size,
      "queue.tables": gossip.queued,
      "queue.pending": this.#intake.waiting,
    };
  }

  // -- memberlist's delegate ---------------------------------------------------------------------------------------

  message(payload: Buffer): void {
    this.#intake.message(payload);
  }

  broadcasts(overhead: number, room: number): Uint8Array[] {
    return this.#core.queue.take(overhead, room);
  }

  localState(join: boolean): Uint8Array {
    const { own, peers, networkClock } = this.#core;
    // A stale copy somewhere may still say that we are leaving a network.
    if (join && own.size > 0) peers.renew(networkClock.increment());
    const networks = peers.attachments();
    return encodeDb({ kind: "pushPull", ltime: networkClock.time(), node: this.#options.name, networks });
  }

  mergeState(state: Buffer): void {
    this.#intake.merge(state);
  }

  changed(change: MemberChange, member: Member): void {
    switch (change) {
      case "join":
        this.#roster.joined(member);
        break;
      case "alive":
      case "suspect":
        this.#roster.doubted(member, change);
        break;
      case "failed":
      case "left":
        this.#roster.gone(member.name, change);
        break;
    }
  }

  declaredDead(): void {
    this.#options.counters.add("declaredDead");
    this.#announcer.again();
  }

  // -- own entries and loops ---------------------------------------------------------------------------------------

  #change(type: TableMessage["type"], table: string, networkId: string, key: string, value: Uint8Array): void {
    const { own: networks, tableClock, tables, gossip, peers, plan } = this.#core;
    if (!isId(table) || !isId(key)) throw invalid(`invalid table ${table} or key ${key}`);
    const own = networks.get(networkId);
    if (!own) throw notFound(`network ${networkId} not found`);
    const { name: owner, clock } = this.#options;
    const now = clock.now();
    const ltime = tableClock.increment();
    const deleting = type === "delete";
    const residualReap = deleting ? reapEntryMs / 1000 : 0;
    tables.set(networkId, table, key, { owner, ltime, value, deleting, reapAt: deleting ? now + reapEntryMs : 0 });
    if (now - own.joinedAt < settleMs) own.early = true;
    const event: TableMessage = { kind: "table", type, ltime, owner, networkId, table, key, value, residualReap };
    if (!gossip.push(networkId, `${table}/${key}`, encodeDb(event), true)) {
      // Too large for a packet: streams carry it.
      for (const peer of peers.others(networkId)) plan.soon(peer, networkId);
    }
    this.#core.tell([{ kind: type, networkId, table, key, value, owner }]);
  }

  #mustExist(what: "update" | "delete", table: string, networkId: string, key: string): { value: Uint8Array } {
    const known = this.#core.tables.get(networkId, table, key);
    if (known && !known.deleting) return known;
    throw notFound(
      `cannot ${what} entry in table ${table} with network id ${networkId} and key ${key} does not exist or is already being deleted`,
    );
  }

  #everySecond(): void {
    this.#intake.expire();
    this.#defence.refill();
    this.#roster.tick();
  }

  #reap(): void {
    const { peers, tables, own } = this.#core;
    const now = this.#options.clock.now();
    tables.reap(now);
    for (const networkId of peers.reap(now)) if (!own.has(networkId)) tables.dropNetwork(networkId);
  }
}
