/**
 * Changes the data key; runs on the leading manager only. `use` makes a key and has it on the disks of a quorum before
 * the ring names it; what then is to be encrypted anew goes on in the background, also after a change of leader.
 */
import { randomBytes } from "node:crypto";
import { Mutex } from "../../../base/async.ts";
import type { Clock } from "../../../base/clock.ts";
import type { Logger } from "../../../base/log.ts";
import type { DataKey } from "../../ca/files.ts";
import { KEY_BYTES } from "../../ca/seal.ts";
import type { DataKeys } from "../../store/data-keys.ts";
import type { EtcdBackend } from "../../store/etcd/backend.ts";
import type { EtcdClient } from "../../store/etcd/client.ts";
import { resealValues } from "../../store/etcd/reseal.ts";
import { type Answer, changedTo, isSafe, nextGeneration, settled } from "../../store/ring.ts";
import { rpcError } from "../control/errors.ts";
import { Loop } from "../loop.ts";
import { noLeader } from "./errors.ts";
import type { StoreMember } from "./plan.ts";

export interface FreshKeyOptions {
  readonly keys: DataKeys;
  readonly backend: Pick<EtcdBackend, "guards" | "putRing">;
  readonly client: () => EtcdClient;
  readonly members: { list(): Promise<StoreMember[]> };
  readonly nodeId: string;
  /** Brings a node's manager the key. */
  readonly bring: (nodeId: string, key: DataKey) => Promise<Answer>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class FreshKeys {
  readonly #options: FreshKeyOptions;
  readonly #loop: Loop;
  readonly #closing = new AbortController();
  readonly #stopFollowing: () => void;
  readonly #changes = new Mutex();

  constructor(options: FreshKeyOptions) {
    this.#options = options;
    const { clock, keys, log } = options;
    this.#loop = new Loop({ name: "encrypting anew", clock, log, debounceMs: 50, work: () => this.#reseal() });
    this.#stopFollowing = keys.onRing(() => this.#loop.mark());
    this.#loop.mark();
  }

  close(): void {
    this.#closing.abort(noLeader());
    this.#stopFollowing();
    this.#loop.close();
  }

  /** Does `work` when everything is written under a new data key and nothing is encrypted anew yet. One after the other. */
  use(work: () => Promise<void>): Promise<void> {
    return this.#changes.run(async () => {
      await this.#change();
      await work();
    });
  }

  async #change(): Promise<void> {
    const { backend, bring, keys, log, members, nodeId } = this.#options;
    const key = { generation: nextGeneration(keys.ring), key: randomBytes(KEY_BYTES) };
    keys.add([key]);
    keys.save();
    const others = (await members.list()).filter((member) => member.nodeId !== nodeId);
    const answers = await Promise.all(
      others.map(async (member) => ({ member, answer: await bring(member.nodeId, key) })),
    );
    const older = answers.find(({ answer }) => answer === "older");
    if (older) {
      const why =
        "runs a version of skein that does not know the change of the data key: update it, or demote it, first";
      throw rpcError("FailedPrecondition", `manager ${older.member.nodeId} ${why}`);
    }
    const voting = answers.filter(({ member }) => !member.learner).map(({ answer }) => answer);
    if (!isSafe(voting)) throw noLeader();
    if (!(await backend.putRing(changedTo(key)))) throw noLeader();
    log.info("the swarm store is written under a new data key", { generation: key.generation });
  }

  async #reseal(): Promise<void> {
    const { backend, client, clock, keys, log } = this.#options;
    // Values encrypted anew have other versions: what began before writes first.
    await this.#changes.run(() => {});
    const { revision, ring } = keys;
    if (!ring?.changing) return;
    const signal = this.#closing.signal;
    const count = await resealValues({ backend, client, clock, keys, signal });
    // The ring that was begun with: after another change everything is to be looked at again.
    if (keys.revision !== revision) return this.#loop.mark();
    if (!(await backend.putRing(settled(ring)))) throw noLeader();
    log.info("the swarm store is encrypted under the new data key", { generation: ring.generation, values: count });
  }
}
