/**
 * How table events travel: a queue per network, emptied every 200 ms towards three random members of that
 * network. On top of it our own events are sent to the members at once, so that one hop is all they usually take:
 * in packets, or on streams where they are more, or larger, than a few packets hold.
 */
import type { Clock } from "../../base/clock.ts";
import { retransmitLimit, TransmitQueue } from "../memberlist/queue.ts";
import { sample } from "../memberlist/shuffle.ts";
import { encodeDb } from "./messages.ts";

export interface TableGossipDeps {
  readonly clock: Clock;
  readonly random: () => number;
  /** Other members of a network. */
  readonly others: (networkId: string) => string[];
  readonly send: (peer: string, payload: Uint8Array) => void;
  /** Sends events on a stream. */
  readonly stream: (peer: string, networkId: string, events: readonly Uint8Array[]) => void;
  readonly packetBytes: number;
  readonly retransmitMult: number;
  /** Our own events go at once to so many members. */
  readonly eagerNodes: number;
}

const fanout = 3;
/** Bytes that each event costs beside itself, as Docker counts. */
const perEvent = 4;
const headBytes = 5;
/** A long queue is emptied faster: so many packets per tick and target at most. */
const maxPackets = 8;
const eventsPerPacket = 5;
/** In so many packets; beyond that on streams. */
const eagerPackets = 8;
const eagerDelayMs = 5;
/** Members beyond the usual number get our own events on streams while all of it is no more than this. */
const streamBytes = 64 << 20;

interface Eager {
  readonly messages: Uint8Array[];
  bytes: number;
}

export class TableGossip {
  readonly #deps: TableGossipDeps;
  readonly #queues = new Map<string, TransmitQueue>();
  readonly #eager = new Map<string, Eager>();
  #cancelEager: (() => void) | undefined;

  constructor(deps: TableGossipDeps) {
    this.#deps = deps;
  }

  get queued(): number {
    return [...this.#queues.values()].reduce((sum, queue) => sum + queue.size, 0);
  }

  queuedFor(networkId: string): number {
    return this.#queues.get(networkId)?.size ?? 0;
  }

  /** Sends an encoded event on its way; false when it is too large for a packet and nothing else carries it. */
  push(networkId: string, key: string, message: Uint8Array, own: boolean): boolean {
    const room = this.#room;
    const fits = message.length + perEvent <= room;
    const eager = own && this.#deps.eagerNodes > 0 ? this.#eagerFor(networkId) : undefined;
    if (eager) {
      eager.messages.push(message);
      eager.bytes += message.length + perEvent;
    }
    // What goes on streams need not be gossiped as well.
    if (fits && (eager?.bytes ?? 0) <= eagerPackets * room) this.#queue(networkId).push({ key, message });
    return fits || eager !== undefined;
  }

  /** Called every gossip interval. */
  tick(): void {
    for (const [networkId, queue] of this.#queues) {
      const targets = sample(this.#deps.others(networkId), this.#deps.random, fanout);
      for (const target of targets) {
        const packets = Math.min(maxPackets, 1 + Math.floor(queue.size / (2 * eventsPerPacket)));
        for (let i = 0; i < packets && queue.size > 0; i++) {
          this.#send(target, queue.take(perEvent, this.#deps.packetBytes - headBytes));
        }
      }
    }
  }

  drop(networkId: string): void {
    this.#queues.delete(networkId);
    this.#eager.delete(networkId);
  }

  close(): void {
    this.#cancelEager?.();
    this.#queues.clear();
  }

  get #room(): number {
    return this.#deps.packetBytes - headBytes;
  }

  #queue(networkId: string): TransmitQueue {
    const known = this.#queues.get(networkId);
    if (known) return known;
    const limit = () => retransmitLimit(this.#deps.retransmitMult, this.#deps.others(networkId).length + 1);
    const queue = new TransmitQueue(limit);
    this.#queues.set(networkId, queue);
    return queue;
  }

  #eagerFor(networkId: string): Eager {
    const known = this.#eager.get(networkId);
    if (known) return known;
    const eager: Eager = { messages: [], bytes: 0 };
    this.#eager.set(networkId, eager);
    this.#cancelEager ??= this.#deps.clock.after(eagerDelayMs, () => this.#flush());
    return eager;
  }

  #flush(): void {
    this.#cancelEager = undefined;
    const { others, random, eagerNodes, stream } = this.#deps;
    for (const [networkId, { messages, bytes }] of this.#eager) {
      const room = this.#room;
      const packets = bytes <= eagerPackets * room ? pack(messages, room) : undefined;
      if (packets && messages.every((message) => message.length + perEvent <= room)) {
        for (const target of sample(others(networkId), random, eagerNodes)) {
          for (const packet of packets) this.#send(target, packet);
        }
        continue;
      }
      const count = Math.max(eagerNodes, Math.floor(streamBytes / bytes));
      for (const target of sample(others(networkId), random, count)) stream(target, networkId, messages);
    }
    this.#eager.clear();
  }

  #send(target: string, messages: readonly Uint8Array[]): void {
    if (messages.length > 0) this.#deps.send(target, encodeDb({ kind: "compound", messages }));
  }
}

/** Splits messages, in order, into groups that fit in `room`. */
function pack(messages: readonly Uint8Array[], room: number): Uint8Array[][] {
  const groups: Uint8Array[][] = [];
  let left = 0;
  for (const message of messages) {
    const cost = message.length + perEvent;
    if (cost > left || groups.length === 0) {
      groups.push([]);
      left = room;
    }
    groups.at(-1)?.push(message);
    left -= cost;
  }
  return groups;
}
