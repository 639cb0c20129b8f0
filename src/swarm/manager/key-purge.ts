/**
 * After the data key changed: takes what was encrypted under former keys out of this manager's own database, then forgets
 * the keys. Each manager does it for itself, one after another; the former keys on disk tell that it is still to be done.
 */
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { DataKeys } from "../store/data-keys.ts";
import type { EtcdClient } from "../store/etcd/client.ts";
import { purgeHistory } from "../store/etcd/reseal.ts";
import { Loop } from "./loop.ts";

/** Between two managers: longer than a database of usual size is silent, so that the others keep the quorum. */
const APART_MS = 1_000;

export interface KeyPurgeOptions {
  readonly keys: DataKeys;
  readonly client: () => EtcdClient;
  readonly nodeId: string;
  /** This manager's place among all. */
  readonly turn: () => number;
  readonly clock: Clock;
  readonly log: Logger;
}

export class KeyPurge {
  readonly #options: KeyPurgeOptions;
  readonly #loop: Loop;
  readonly #closing = new AbortController();
  readonly #stopFollowing: () => void;

  constructor(options: KeyPurgeOptions) {
    this.#options = options;
    const { clock, keys, log } = options;
    this.#loop = new Loop({ name: "forgetting data keys", clock, log, debounceMs: 0, work: () => this.#purge() });
    this.#stopFollowing = keys.onRing(() => this.#mark());
    this.#mark();
  }

  close(): void {
    this.#closing.abort(new Error("the manager stops"));
    this.#stopFollowing();
    this.#loop.close();
  }

  #mark(): void {
    const { keys, turn } = this.#options;
    if (keys.unneeded.length > 0) this.#loop.markIn(turn() * APART_MS);
  }

  async #purge(): Promise<void> {
    const { client, keys, log, nodeId } = this.#options;
    const { unneeded } = keys;
    if (unneeded.length === 0) return;
    await purgeHistory(client, nodeId, this.#closing.signal);
    // A key that is needed no more is never needed again.
    keys.forget(unneeded);
    log.info("former data keys are forgotten", { generations: unneeded.map(({ generation }) => generation).join() });
  }
}
