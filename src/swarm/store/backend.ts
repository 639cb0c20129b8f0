/** Where the store keeps its objects for good. etcd in production, memory in tests. */
import { SkeinError } from "../../base/errors.ts";
import { type AnyObject, type Kind, withVersion } from "./objects.ts";
import type { Write } from "./transaction.ts";

/** An object as the backend tells it; no object = removed at that revision. */
export interface Entry {
  readonly kind: Kind;
  readonly id: string;
  readonly revision: bigint;
  /** Reads the object; called only for what is not known already. */
  readonly object: () => AnyObject | undefined;
}

/** `applied: false` = somebody else changed one of the objects first; the store catches up to `revision` and tries again. */
export interface CommitResult {
  readonly applied: boolean;
  readonly revision: bigint;
}

/** More bytes than the backend takes in one commit. Nothing was written. */
export class TooLarge extends SkeinError {
  constructor() {
    super("invalid", "the change is too large for the swarm store");
  }
}

/**
 * `revision`: up to here everything was told. `complete`: the entries are all there is, what is not among them is gone
 * (the history between was compacted away).
 */
export type OnEntries = (entries: Entry[], revision: bigint, complete: boolean) => void;

export interface Backend {
  load(): Promise<{ revision: bigint; entries: Entry[] }>;
  /** All writes or none, on stable storage when it resolves. Throws `TooLarge`. */
  commit(writes: Write[]): Promise<CommitResult>;
  /**
   * Tells every change after `revision`, also our own, in order.
   */
  watch(revision: bigint, onEntries: OnEntries): () => void;
}

/** A backend in memory. `delay` puts a pause into each commit, so that concurrent ones are grouped. */
export class MemoryBackend implements Backend {
  #revision = 0n;
  #objects = new Map<string, Entry>();
  #watchers = new Set<OnEntries>();
  #delay: () => Promise<void>;
  commits = 0;

  constructor(delay: () => Promise<void> = () => Promise.resolve()) {
    this.#delay = delay;
  }

  async load(): Promise<{ revision: bigint; entries: Entry[] }> {
    return { revision: this.#revision, entries: [...this.#objects.values()] };
  }

  async commit(writes: Write[]): Promise<CommitResult> {
    await this.#delay();
    for (const write of writes) {
      const stored = this.#objects.get(`${write.kind}/${write.id}`);
      if ((stored?.revision ?? 0n) !== write.base) return { applied: false, revision: this.#revision };
    }
    const revision = ++this.#revision;
    this.commits++;
    const entries = writes.map(({ kind, id, object }) => {
      const stored = object && withVersion(object, revision);
      return { kind, id, revision, object: () => stored };
    });
    for (const entry of entries) {
      if (entry.object()) this.#objects.set(`${entry.kind}/${entry.id}`, entry);
      else this.#objects.delete(`${entry.kind}/${entry.id}`);
    }
    for (const watcher of this.#watchers) queueMicrotask(() => watcher(entries, revision, false));
    return { applied: true, revision };
  }

  watch(_revision: bigint, onEntries: OnEntries): () => void {
    this.#watchers.add(onEntries);
    return () => this.#watchers.delete(onEntries);
  }
}
