/**
 * Bulk sync: two nodes exchange all entries of networks they share, over streams each way. The asker waits for
 * the answer; per peer one exchange runs at a time, and what is asked for meanwhile is joined into the next.
 *
 * Much goes in parts, so that no node is busy for long or refuses them as too large. A part is a sync that names no
 * networks: what it brings is taken in, and the one that names them comes last. Docker's nodes take any sync for the
 * answer, and the others as they come.
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
  /** Entries of the networks, all or our own, as encoded events, made as they are read. */
  readonly collect: (networks: readonly string[], ownOnly: boolean) => Iterable<Uint8Array>;
  /** Takes in what a peer sent. */
  readonly apply: (sync: BulkSync) => Promise<void>;
  /** Sends on a stream; rejects when the peer cannot be reached. */
  readonly send: (peer: string, payload: Uint8Array) => Promise<void>;
}

/** A peer that is asked may be silent for so long. */
const answerTimeoutMs = 30_000;
/** A thousand entries or so: some ten milliseconds of work for either side. */
const partBytes = 256 << 10;

interface Exchange {
  readonly ltime: bigint;
  /** The peer is answering: it has its time anew. */
  readonly heard: () => void;
  readonly done: (ok: boolean) => void;
}

interface Queued {
  readonly networks: Set<string>;
  ownOnly: boolean;
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

  /**
   * Exchanges these networks with a peer; resolves false when it does not answer. `ownOnly`: what the two of us have
   * ourselves, as with each of many who all know the rest.
   */
  sync(peer: string, networks: readonly string[], ownOnly = false): Promise<boolean> {
    if (networks.length === 0) return Promise.resolve(true);
    const queued = this.#next.get(peer);
    if (queued) {
      for (const networkId of networks) queued.networks.add(networkId);
      queued.ownOnly &&= ownOnly;
      return queued.result;
    }
    const wanted = { networks: new Set(networks), ownOnly };
    const tail = this.#tails.get(peer);
    const run = () => {
      this.#next.delete(peer);
      return this.#exchange(peer, [...wanted.networks], wanted.ownOnly);
    };
    const result = tail ? tail.then(run) : run();
    if (tail) this.#next.set(peer, Object.assign(wanted, { result }));
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

  /** A peer's request or answer, or a part of either. */
  async receive(sync: BulkSync): Promise<void> {
    this.#deps.counters.add("bulkSyncs");
    const running = this.#running.get(sync.node);
    running?.heard();
    await this.#deps.apply(sync);
    const isPart = sync.networks.length === 0;
    // Engines of 29 take any sync that is later than the request for the answer; so do we.
    if (running && !isPart && (!sync.unsolicited || sync.ltime > running.ltime)) {
      this.#mark(sync.node, sync.networks);
      running.done(true);
    }
    if (!sync.unsolicited) return;
    try {
      await this.#send(sync.node, sync.networks, { unsolicited: false, ownOnly: sync.ownOnly });
      this.#mark(sync.node, sync.networks);
    } catch (error) {
      this.#failed(sync.node, error);
    }
  }

  /** Tells a peer of some events that are too many for packets; false when that failed. */
  async tell(peer: string, events: readonly Uint8Array[]): Promise<boolean> {
    try {
      await this.#send(peer, [], { unsolicited: false, ownOnly: true }, events);
      return true;
    } catch (error) {
      this.#failed(peer, error);
      return false;
    }
  }

  async #exchange(peer: string, networks: readonly string[], ownOnly: boolean): Promise<boolean> {
    const { clock, time } = this.#deps;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    let cancel = () => {};
    const heard = () => {
      cancel();
      cancel = clock.after(answerTimeoutMs, () => resolve(false));
    };
    heard();
    this.#running.set(peer, { ltime: time(), heard, done: resolve });
    try {
      await this.#send(peer, networks, { unsolicited: true, ownOnly });
      heard();
      return await promise;
    } catch (error) {
      this.#failed(peer, error);
      return false;
    } finally {
      cancel();
      this.#running.delete(peer);
    }
  }

  async #send(
    peer: string,
    networks: readonly string[],
    kind: Pick<BulkSync, "unsolicited" | "ownOnly">,
    events: Iterable<Uint8Array> = this.#deps.collect(networks, kind.ownOnly),
  ): Promise<void> {
    const { self: node, time, send } = this.#deps;
    const sendOne = (messages: readonly Uint8Array[], last: boolean) => {
      const payload = encodeDb({ kind: "compound", messages });
      const asked = { networks: last ? networks : [], unsolicited: last && kind.unsolicited, ownOnly: kind.ownOnly };
      return send(peer, encodeDb({ kind: "bulkSync", ltime: time(), node, ...asked, payload }));
    };
    let part: Uint8Array[] = [];
    let size = 0;
    for (const event of events) {
      if (size > 0 && size + event.length > partBytes) {
        await sendOne(part, false);
        part = [];
        size = 0;
      }
      part.push(event);
      size += event.length + 16;
    }
    await sendOne(part, true);
  }

  #mark(peer: string, networks: readonly string[]): void {
    for (const networkId of networks) this.#syncedAt.set(`${peer}/${networkId}`, this.#deps.clock.now());
  }

  #failed(peer: string, error: unknown): void {
    this.#deps.counters.add("bulkSyncFailures");
    this.#deps.log.debug("gossip bulk sync failed", { peer, error: messageOf(error) });
  }
}
