/**
 * How table events travel: a queue per network, emptied every 200 ms towards three random members of that
 * network. On top of it our own events are sent to the members at once, so that one hop is all they usually take.
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
/** In so many packets; beyond that the queue alone carries them. */
const eagerPackets = 8;
const eagerDelayMs = 5;

export class TableGossip {
  readonly #deps: TableGossipDeps;
  readonly #queues = new Map<string, TransmitQueue>();
  readonly #eager = new Map<string, Uint8Array[]>();
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

  /** Queues an encoded event; false when it is too large for a packet. */
  push(networkId: string, key: string, message: Uint8Array, own: boolean): boolean {
    const room = this.#deps.packetBytes - headBytes;
    if (message.length + perEvent > room) return false;
    let queue = this.#queues.get(networkId);
    if (!queue) {
      const limit = () => retransmitLimit(this.#deps.retransmitMult, this.#deps.others(networkId).length + 1);
      queue = new TransmitQueue(limit);
      this.#queues.set(networkId, queue);
    }
    queue.push({ key, message });
    if (own && this.#deps.eagerNodes > 0) {
      const eager = this.#eager.get(networkId) ?? [];
      this.#eager.set(networkId, eager);
      eager.push(message);
      this.#cancelEager ??= this.#deps.clock.after(eagerDelayMs, () => this.#flush());
    }
    return true;
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

  #flush(): void {
    this.#cancelEager = undefined;
    for (const [networkId, messages] of this.#eager) {
      const targets = sample(this.#deps.others(networkId), this.#deps.random, this.#deps.eagerNodes);
      for (const packet of pack(messages, this.#deps.packetBytes - headBytes).slice(0, eagerPackets)) {
        for (const target of targets) this.#send(target, packet);
      }
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
