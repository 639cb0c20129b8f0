/**
 * Bulk sync: two nodes exchange all entries of networks they share, over a stream each way. The asker waits for
 * the answer; per peer one exchange runs at a time, and what is asked for meanwhile is joined into the next.
 */
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Counters } from "../memberlist/counters.ts";
import { type BulkSync, encodeDb } from "./messages.ts";

export interface BulkSyncDeps {
  readonly self: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly counters: Counters;
  /** The table clock's time. */
  readonly time: () => bigint;
  /** All entries of the networks as encoded table events. */
  readonly collect: (networks: readonly string[]) => Uint8Array[];
  /** Takes in what a peer sent. */
  readonly apply: (sync: BulkSync) => void;
  /** Sends on a stream; rejects when the peer cannot be reached. */
  readonly send: (peer: string, payload: Uint8Array) => Promise<void>;
}

const answerTimeoutMs = 30_000;
/** Early 20.10 engines refuse streams of more than 10 MiB. */
const maxPayload = 6 << 20;

interface Exchange {
  readonly ltime: bigint;
  readonly done: (ok: boolean) => void;
}

interface Queued {
  readonly networks: Set<string>;
  readonly result: Promise<boolean>;
}

export class BulkSyncer {
  readonly #deps: BulkSyncDeps;
  readonly #running = new Map<string, Exchange>();
  readonly #next = new Map<string, Queued>();
  readonly #tails = new Map<string, Promise<boolean>>();
  readonly #syncedAt = new Map<string, number>();

  constructor(deps: BulkSyncDeps) {
    this.#deps = deps;
  }

  /** Exchanges these networks with a peer; resolves false when it does not answer. */
  sync(peer: string, networks: readonly string[]): Promise<boolean> {
    if (networks.length === 0) return Promise.resolve(true);
    const queued = this.#next.get(peer);
    if (queued) {
      for (const networkId of networks) queued.networks.add(networkId);
      return queued.result;
    }
    const wanted = new Set(networks);
    const tail = this.#tails.get(peer);
    const run = () => {
      this.#next.delete(peer);
      return this.#exchange(peer, [...wanted]);
    };
    const result = tail ? tail.then(run) : run();
    if (tail) this.#next.set(peer, { networks: wanted, result });
    this.#tails.set(peer, result);
    result.finally(() => {
      if (this.#tails.get(peer) === result) this.#tails.delete(peer);
    });
    return result;
  }

  /** When this network was last exchanged with the peer. */
  syncedAt(peer: string, networkId: string): number | undefined {
    return this.#syncedAt.get(`${peer}/${networkId}`);
  }

  forget(peer: string): void {
    for (const key of this.#syncedAt.keys()) if (key.startsWith(`${peer}/`)) this.#syncedAt.delete(key);
    this.#running.get(peer)?.done(false);
  }

  /** A peer's request or answer. */
  async receive(sync: BulkSync): Promise<void> {
    this.#deps.counters.add("bulkSyncs");
    this.#deps.apply(sync);
    const running = this.#running.get(sync.node);
    // Engines of 29 take any sync that is later than the request for the answer; so do we.
    if (running && (!sync.unsolicited || sync.ltime > running.ltime)) {
      this.#mark(sync.node, sync.networks);
      running.done(true);
    }
    if (!sync.unsolicited) return;
    try {
      await this.#send(sync.node, sync.networks, false);
      this.#mark(sync.node, sync.networks);
    } catch (error) {
      this.#failed(sync.node, error);
    }
  }

  async #exchange(peer: string, networks: readonly string[]): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const cancel = this.#deps.clock.after(answerTimeoutMs, () => resolve(false));
    this.#running.set(peer, { ltime: this.#deps.time(), done: resolve });
    try {
      await this.#send(peer, networks, true);
      return await promise;
    } catch (error) {
      this.#failed(peer, error);
      return false;
    } finally {
      cancel();
      this.#running.delete(peer);
    }
  }

  /** Sends the entries; what does not fit in one message goes ahead as answers that nobody asked for. */
  async #send(peer: string, networks: readonly string[], unsolicited: boolean): Promise<void> {
    const { self, time } = this.#deps;
    const batches: Uint8Array[][] = [[]];
    let size = 0;
    for (const message of this.#deps.collect(networks)) {
      size += message.length + 16;
      if (size > maxPayload) {
        batches.push([]);
        size = message.length;
      }
      batches.at(-1)?.push(message);
    }
    for (const [i, messages] of batches.entries()) {
      const payload = encodeDb({ kind: "compound", messages });
      const asks = unsolicited && i === batches.length - 1;
      await this.#deps.send(
        peer,
        encodeDb({ kind: "bulkSync", ltime: time(), unsolicited: asks, node: self, networks, payload }),
      );
    }
  }

  #mark(peer: string, networks: readonly string[]): void {
    for (const networkId of networks) this.#syncedAt.set(`${peer}/${networkId}`, this.#deps.clock.now());
  }

  #failed(peer: string, error: unknown): void {
    this.#deps.counters.add("bulkSyncFailures");
    this.#deps.log.debug("gossip bulk sync failed", { peer, error: messageOf(error) });
  }
}
