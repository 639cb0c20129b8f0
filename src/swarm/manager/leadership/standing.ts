/**
 * Who leads. The manager whose etcd member leads the store leads the swarm: no second election, and a leader that is cut
 * off, stopped or dead is replaced as fast as the store's is. What this tells may be late; the store's fence (`EtcdBackend`)
 * is what keeps a leader of yesterday from writing.
 */
import type { StatusResponse } from "#proto/etcd/rpc_pb.js";
import { type Clock, sleep } from "../../../base/clock.ts";

export interface Standing {
  /** This host's member; 0 = etcd did not answer yet. */
  readonly self: bigint;
  /** The leading member; 0 = none, as far as this host knows. */
  readonly leader: bigint;
  readonly term: bigint;
  /** Does not vote yet. */
  readonly learner: boolean;
}

const POLL_MS = 150;
const ALONE_POLL_MS = 1_000;

export interface StandingOptions {
  /** The local member's own view. */
  readonly status: (signal: AbortSignal) => Promise<StatusResponse>;
  /** A single manager has nobody to lose the lead to. */
  readonly alone: () => boolean;
  readonly clock: Clock;
  readonly onChange: () => void;
}

export class StandingWatch {
  readonly #options: StandingOptions;
  readonly #closing = new AbortController();
  #current: Standing = { self: 0n, leader: 0n, term: 0n, learner: false };
  #leaderlessSince: number;

  constructor(options: StandingOptions) {
    this.#options = options;
    this.#leaderlessSince = options.clock.steady();
    void this.#run();
  }

  get current(): Standing {
    return this.#current;
  }

  get leading(): boolean {
    const { leader, learner, self } = this.#current;
    return self !== 0n && leader === self && !learner;
  }

  /** Milliseconds since there was a leader; 0 while there is one. */
  get leaderlessMs(): number {
    return this.#current.leader === 0n ? this.#options.clock.steady() - this.#leaderlessSince : 0;
  }

  close(): void {
    this.#closing.abort(new Error("the manager stops"));
  }

  async #run(): Promise<void> {
    const { alone, clock, status } = this.#options;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        const { header, isLearner, leader, raftTerm } = await status(signal);
        this.#set({ self: header?.memberId ?? 0n, leader, term: raftTerm, learner: isLearner });
      } catch {
        this.#set({ ...this.#current, leader: 0n });
      }
      const calm = alone() && this.leading;
      await sleep(clock, calm ? ALONE_POLL_MS : POLL_MS, signal).catch(() => {});
    }
  }

  #set(next: Standing): void {
    const last = this.#current;
    if (this.#closing.signal.aborted) return;
    if (last.leader !== 0n && next.leader === 0n) this.#leaderlessSince = this.#options.clock.steady();
    this.#current = next;
    const same = last.leader === next.leader && last.term === next.term && last.learner === next.learner;
    if (!same || last.self !== next.self) this.#options.onChange();
  }
}
