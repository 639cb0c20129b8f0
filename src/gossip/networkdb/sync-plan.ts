/** When to bulk sync with whom: soon after something was learned, after joining, and every half minute. */
import type { Clock } from "../../base/clock.ts";
import { sample } from "../memberlist/shuffle.ts";
import type { BulkSyncer } from "./bulksync.ts";
import type { Later } from "./later.ts";
import type { Peers } from "./peers.ts";

export interface OwnNetwork {
  /** Synced with the members once; from then on we pass on what we hear. */
  inSync: boolean;
  /** Own entries were made before all members can have heard that we joined. */
  early: boolean;
  joinedAt: number;
}

/** Joining a network waits no longer for its members' answers. */
const joinPatienceMs = 10_000;
/** How soon after joining others may still be unaware of it. */
export const settleMs = 2_000;
const settlePeers = 32;
/** Whoever joins a network gets all of it from so many members, and from each of the others what that one owns. */
const fullPeers = 1;
/** Full exchanges are for what nothing else brought; they become rarer by one step per so many entries. */
const stepEntries = 25_000;

export class SyncPlan {
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #bulk: BulkSyncer;
  readonly #peers: Peers;
  readonly #own: ReadonlyMap<string, OwnNetwork>;
  readonly #later: Later;
  readonly #tables: { readonly size: number };
  #round = 0;

  constructor(
    options: { readonly clock: Clock; readonly random: () => number },
    state: {
      bulk: BulkSyncer;
      peers: Peers;
      own: ReadonlyMap<string, OwnNetwork>;
      later: Later;
      tables: { readonly size: number };
    },
  ) {
    this.#clock = options.clock;
    this.#random = options.random;
    this.#bulk = state.bulk;
    this.#peers = state.peers;
    this.#own = state.own;
    this.#later = state.later;
    this.#tables = state.tables;
  }

  /** We joined a network: syncs with all its members, waiting for a bounded time. */
  async joining(networkId: string, own: OwnNetwork): Promise<void> {
    const members = this.#peers.others(networkId);
    const syncs = sample(members, this.#random, members.length).map((peer, index) =>
      index < fullPeers ? this.#bulk.sync(peer, this.#peers.common(peer)) : this.#bulk.sync(peer, [networkId], true),
    );
    await new Promise<void>((resolve) => {
      const cancel = this.#clock.after(joinPatienceMs, resolve);
      Promise.all(syncs).then(() => {
        cancel();
        resolve();
      });
    });
    own.inSync = true;
    this.#later.run(`settle/${networkId}`, settleMs, () => this.#settle(networkId, own));
  }

  /** Exchanges with a peer what we and it have, in a second or two, unless that happens by itself before. */
  soon(peer: string, networkId: string): void {
    const asked = this.#clock.now();
    this.#later.run(`sync/${peer}/${networkId}`, 1_000 + this.#random() * 1_000, () => {
      if (!this.#own.has(networkId) || !this.#peers.isMember(peer, networkId)) return;
      if ((this.#bulk.syncedAt(peer, networkId) ?? -1) > asked) return;
      this.#bulk.sync(peer, [networkId], true);
    });
  }

  /** Each network is exchanged with one random member; with a second if the first does not answer. */
  async periodic(): Promise<void> {
    if (this.#round++ % Math.max(1, Math.ceil(this.#tables.size / stepEntries)) !== 0) return;
    const covered = new Set<string>();
    for (const networkId of [...this.#own.keys()]) {
      if (covered.has(networkId)) continue;
      for (const peer of sample(this.#peers.others(networkId), this.#random, 2)) {
        const common = this.#peers.common(peer);
        if (!(await this.#bulk.sync(peer, common))) continue;
        for (const id of common) covered.add(id);
        break;
      }
    }
  }

  /** Real Docker nodes drop our first entries if they have not heard yet that we joined: give them once more. */
  #settle(networkId: string, own: OwnNetwork): void {
    if (!own.early || this.#own.get(networkId) !== own) return;
    for (const peer of sample(this.#peers.others(networkId), this.#random, settlePeers)) {
      this.#bulk.sync(peer, [networkId], true);
    }
  }
}
