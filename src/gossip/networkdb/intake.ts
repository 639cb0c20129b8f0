/**
 * What comes in from others, by packet, stream, push/pull or sync: start reading at `message`. What depends on something
 * that has not come yet waits for it a little; what is about ourselves goes to our defence.
 */
import type { Core } from "./core.ts";
import type { Defence } from "./defence.ts";
import {
  type BulkSync,
  type DbMessage,
  decodeDb,
  encodeDb,
  type NetworkMessage,
  type NodeMessage,
  type TableMessage,
} from "./messages.ts";
import { Pending } from "./pending.ts";
import { reapEntryMs } from "./tables.ts";

const maxNesting = 3;
/** Events of a sync taken in before others have their turn: some ten milliseconds. */
const applyBatch = 1_000;
/** After so many that are none a message is given up. */
const maxBad = 1_000;
/** Above so many queued events those of bulk syncs are not passed on. */
const busyQueue = 500;
const pendingMs = 10_000;
const pendingCapacity = 8192;
/** A tombstone of something never seen is passed on only with this much of its life left. */
const youngTombstoneMs = reapEntryMs / 6;

export class Intake {
  readonly #core: Core;
  readonly #defence: Defence;
  readonly #left: (name: string) => void;
  readonly #pendingTables = new Pending<{ event: TableMessage; bulk: boolean }>(pendingMs, pendingCapacity);
  readonly #pendingNetworks = new Pending<NetworkMessage>(pendingMs, pendingCapacity);
  /** Parts of the present message that were none. */
  #bad = 0;

  /** `left`: a node said that it leaves the cluster. */
  constructor(core: Core, defence: Defence, left: (name: string) => void) {
    this.#core = core;
    this.#defence = defence;
    this.#left = left;
  }

  /** Events that wait. */
  get waiting(): number {
    return this.#pendingTables.size + this.#pendingNetworks.size;
  }

  message(payload: Uint8Array): void {
    this.#bad = 0;
    this.#decoded(payload, 0);
  }

  /** Another node's whole view of who is in which network. */
  merge(state: Uint8Array): void {
    let message: DbMessage;
    try {
      message = decodeDb(state);
    } catch {
      this.#malformed();
      return;
    }
    if (message.kind !== "pushPull") return;
    const { ltime, node } = message;
    this.#onNode({ kind: "node", type: "join", ltime, node });
    for (const { leaving, ...entry } of message.networks) {
      this.#onNetwork({ kind: "network", type: leaving ? "leave" : "join", ...entry }, false);
    }
  }

  /** Takes in a sync, in slices where it is long. */
  async bulk(sync: BulkSync): Promise<void> {
    const messages = partsOf(sync);
    let bad = messages ? 0 : 1;
    for (const [index, part] of messages?.entries() ?? []) {
      if (index % applyBatch === applyBatch - 1) await new Promise((resolve) => setImmediate(resolve));
      if (!this.#bulkPart(part) && ++bad === maxBad) break;
    }
    if (bad > 0) this.#malformed(bad);
  }

  /** Memberlist knows a node now: what came of it before is taken up. */
  explained(name: string): void {
    for (const event of this.#pendingNetworks.take(name)) this.#onNetwork(event, true);
  }

  /** Drops what waited too long; called every second. */
  expire(): void {
    const now = this.#core.options.clock.now();
    const late = this.#pendingTables.expire(now) + this.#pendingNetworks.expire(now);
    if (late > 0) this.#core.options.counters.add("dropped.ownerUnknown", late);
  }

  #decoded(payload: Uint8Array, depth: number): void {
    let message: DbMessage;
    try {
      if (depth > maxNesting) throw new RangeError("networkdb: nested too deep");
      message = decodeDb(payload);
    } catch {
      this.#bad++;
      this.#malformed();
      return;
    }
    this.#handle(message, depth);
  }

  #handle(message: DbMessage, depth: number): void {
    const { options, peers, bulk, tableClock } = this.#core;
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
        if (message.node === options.name || !this.#core.witness(tableClock, message.ltime)) return;
        bulk.receive(message);
        break;
      case "compound":
        for (const part of message.messages) {
          if (this.#bad >= maxBad) return;
          this.#decoded(part, depth + 1);
        }
        break;
      case "direct":
        if (peers.get(message.node)?.status === "active") options.onMessage(message.payload, message.node);
        break;
      case "pushPull":
        this.#malformed();
        break;
    }
  }

  #onNode(event: NodeMessage): void {
    const { options, peers, queue, networkClock } = this.#core;
    if (!this.#core.witness(networkClock, event.ltime) || event.node === options.name) return;
    if (!peers.freshNodeEvent(event) || event.type === "join") return;
    this.#left(event.node);
    queue.push({ key: `node/${event.node}`, message: encodeDb(event) });
  }

  #onNetwork(event: NetworkMessage, passOn: boolean): void {
    const { options, peers, queue, tables, networkClock } = this.#core;
    const { name, clock, counters } = options;
    if (!this.#core.witness(networkClock, event.ltime)) return;
    if (event.node === name) {
      this.#defence.network(event);
      return;
    }
    const verdict = peers.networkEvent(event, clock.now());
    if (verdict === "full") counters.add("dropped.attachmentsFull");
    if (verdict === "unknown") {
      if (this.#pendingNetworks.add(event.node, event, clock.now()) === "full") counters.add("dropped.pendingFull");
    }
    if (verdict !== "fresh") return;
    if (passOn) queue.push({ key: `net/${event.node}/${event.networkId}`, message: encodeDb(event) });
    if (event.type === "leave") this.#core.tell(tables.bury(event.node, event.networkId, 0n, clock.now()));
    else this.#attached(event.node, event.networkId);
  }

  /** A node is in a network now: what came too early is taken up, and if we are in it too, a sync is due. */
  #attached(node: string, networkId: string): void {
    for (const { event, bulk } of this.#pendingTables.take(`${node}/${networkId}`)) this.#onTable(event, bulk);
    if (this.#core.own.has(networkId)) this.#core.plan.soon(node, networkId);
  }

  #onTable(event: TableMessage, bulk: boolean): void {
    const { options, own: networks, peers, tables, gossip, tableClock } = this.#core;
    const { name, clock, counters } = options;
    if (!this.#core.witness(tableClock, event.ltime)) return;
    const own = networks.get(event.networkId);
    if (!own) {
      counters.add("ignored.notInNetwork");
      return;
    }
    if (event.owner === name) {
      this.#defence.entry(event);
      return;
    }
    if (!peers.isMember(event.owner, event.networkId)) {
      this.#tooEarly(event, bulk);
      return;
    }
    const { change, fresh, unknownTombstone, full } = tables.apply(event, clock.now());
    if (full) counters.add("dropped.tablesFull");
    if (change) this.#core.tell([change]);
    const worthy = fresh || (unknownTombstone && bulk && event.residualReap * 1000 > youngTombstoneMs);
    if (!worthy || !own.inSync || (bulk && gossip.queuedFor(event.networkId) > busyQueue)) return;
    gossip.push(event.networkId, `${event.table}/${event.key}`, encodeDb(event), false);
  }

  /** Its owner is not known to be in that network: unless that resolves by itself, the owner is asked. */
  #tooEarly(event: TableMessage, bulk: boolean): void {
    const { options, later } = this.#core;
    const path = `${event.owner}/${event.networkId}`;
    const kept = this.#pendingTables.add(path, { event, bulk }, options.clock.now());
    if (kept === "full") options.counters.add("dropped.pendingFull");
    if (kept !== "first") return;
    later.run(`ask/${event.owner}`, 1_000, () => {
      if (this.#pendingTables.has(path)) this.#core.exchange(event.owner);
    });
  }

  #bulkPart(part: Uint8Array): boolean {
    let event: DbMessage;
    try {
      event = decodeDb(part);
    } catch {
      return false;
    }
    if (event.kind === "table") this.#onTable(event, true);
    else if (event.kind === "network") this.#onNetwork(event, false);
    else return false;
    return true;
  }

  #malformed(count = 1): void {
    this.#core.options.counters.add("dropped.dbMalformed", count);
  }
}

function partsOf(sync: BulkSync): readonly Uint8Array[] | undefined {
  try {
    const payload = decodeDb(sync.payload);
    return payload.kind === "compound" ? payload.messages : undefined;
  } catch {
    return undefined;
  }
}
