/**
 * The swarm's objects: in memory for reading, in a backend (etcd) for good.
 *
 * A write goes to the backend first and becomes visible when it is durable. Transactions that arrive while another is
 * on its way are committed together: the cost of a flush is shared, the order is kept. Every object carries the
 * backend's revision as its version, and the backend compares it, so two writers can never both win.
 */
import type { Clock } from "../../base/clock.ts";
import { SkeinError, unavailable } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { type Backend, type Entry, TooLarge } from "./backend.ts";
import { type Reader, Tables } from "./memory.ts";
import { KINDS, type Kind, type ObjectOf, versionOf, withVersion } from "./objects.ts";
import { Overlay, type Transaction, type Write } from "./transaction.ts";

/** One change of a commit. */
export type Change = {
  [K in Kind]: {
    readonly action: "create" | "update" | "remove";
    readonly kind: K;
    readonly object: ObjectOf<K>;
    readonly old: ObjectOf<K> | undefined;
  };
}[Kind];

/** A commit closes when it holds this many writes; a single transaction may not hold more than `MAX_WRITES`. */
const GROUP_WRITES = 2000;
export const MAX_WRITES = 5000;
/** How many objects `batch` puts into one transaction. */
const BATCH_ITEMS = 500;
/** A transaction that lost this many races in a row is given up. */
const MAX_RACES = 10;

interface Job {
  run(tx: Transaction): void;
  resolve(): void;
  reject(error: unknown): void;
}

export class Store {
  readonly #tables = new Tables();
  readonly #backend: Backend;
  readonly #clock: Clock;
  readonly #log: Logger;
  #revision = 0n;
  #queue: Job[] = [];
  #busy = false;
  #closed = false;
  #listeners = new Set<(changes: Change[]) => void>();
  #caughtUp: { revision: bigint; resolve: () => void }[] = [];
  #watched = 0n;
  /** Objects this store removed and whose last change the watch has not told yet. */
  #tombs = new Map<string, bigint>();
  #stopWatch: () => void = () => {};
  #committing = false;
  #held: [Entry[], bigint, boolean][] = [];

  private constructor(backend: Backend, clock: Clock, log: Logger) {
    this.#backend = backend;
    this.#clock = clock;
    this.#log = log;
  }

  /** Reads everything and follows changes from there. */
  static async open(backend: Backend, clock: Clock, log: Logger): Promise<Store> {
    const store = new Store(backend, clock, log);
    const { revision, entries } = await backend.load();
    for (const { kind, object } of entries) store.#tables.put(kind, object() as never);
    store.#revision = revision;
    store.#watched = revision;
    store.#stopWatch = backend.watch(revision, (changed, upTo, complete) => {
      store.#onWatch(changed, upTo, complete);
    });
    return store;
  }

  /** The state as it is; do not change what you get. */
  get view(): Reader {
    return this.#tables;
  }

  /** The revision of the last change applied here. */
  get revision(): bigint {
    return this.#revision;
  }

  /** Resolves when everything up to this revision is visible here: for what another manager wrote. */
  async reached(revision: bigint): Promise<void> {
    if (this.#revision < revision) await this.#catchUp(revision);
  }

  /** Called after each commit, with its changes in order. */
  onCommit(listener: (changes: Change[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Runs `fn` in a transaction; resolves with its result when durable and visible. `fn` may run more than once and must
   * have no other effect; what it throws rejects and nothing is written. `urgent`: before what waits already.
   */
  update<T>(fn: (tx: Transaction) => T, urgent = false): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#closed) {
        reject(unavailable("the swarm store is closed"));
        return;
      }
      let value: T;
      const job: Job = {
        run: (tx) => {
          value = fn(tx);
        },
        resolve: () => resolve(value),
        reject,
      };
      if (urgent) this.#queue.unshift(job);
      else this.#queue.push(job);
      if (!this.#busy) {
        this.#busy = true;
        // A microtask later, so that updates made in one go share a commit.
        queueMicrotask(() => void this.#drain());
      }
    });
  }

  /**
   * Applies `fn` to many items in transactions of bounded size. An item that makes one too large for the backend all
   * alone is left out and logged: nothing else is to wait for it.
   */
  async batch<I>(items: readonly I[], fn: (tx: Transaction, item: I) => void, urgent = false): Promise<void> {
    const waits: Promise<void>[] = [];
    for (let at = 0; at < items.length; at += BATCH_ITEMS) {
      waits.push(this.#applyAll(items.slice(at, at + BATCH_ITEMS), fn, urgent));
    }
    await Promise.all(waits);
  }

  async #applyAll<I>(items: readonly I[], fn: (tx: Transaction, item: I) => void, urgent: boolean): Promise<void> {
    try {
      await this.update((tx) => {
        for (const item of items) fn(tx, item);
      }, urgent);
    } catch (error) {
      if (!(error instanceof TooLarge)) throw error;
      if (items.length === 1) {
        this.#log.error("a change is too large for the swarm store and is left out", {
          item: String(items[0]).slice(0, 80),
        });
        return;
      }
      const half = items.length >> 1;
      await this.#applyAll(items.slice(0, half), fn, urgent);
      await this.#applyAll(items.slice(half), fn, urgent);
    }
  }

  close(): void {
    this.#closed = true;
    this.#stopWatch();
    for (const job of this.#queue.splice(0)) job.reject(unavailable("the swarm store is closed"));
  }

  async #drain(): Promise<void> {
    /** Jobs that were too large together are committed one by one. */
    let alone = 0;
    while (this.#queue.length > 0) {
      const overlay = new Overlay(this.#tables, this.#clock.now(), this.#revision + 1n);
      const jobs: Job[] = [];
      const most = alone > 0 ? 1 : Number.POSITIVE_INFINITY;
      alone = Math.max(0, alone - 1);
      while (this.#queue.length > 0 && overlay.size < GROUP_WRITES && jobs.length < most) {
        const job = this.#queue.shift();
        if (job && run(job, overlay)) jobs.push(job);
      }
      try {
        await this.#commit(jobs, overlay.writes());
      } catch (error) {
        this.#releaseWatch();
        if (error instanceof TooLarge && jobs.length > 1) {
          this.#queue.unshift(...jobs);
          alone = jobs.length;
        } else {
          for (const job of jobs) job.reject(error);
        }
      }
    }
    this.#busy = false;
  }

  async #commit(jobs: Job[], first: Write[]): Promise<void> {
    let writes = first;
    for (let races = 0; races < MAX_RACES; races++) {
      if (writes.length > 0) {
        this.#committing = true;
        const result = await this.#backend.commit(writes).finally(() => {
          this.#committing = false;
        });
        if (!result.applied) {
          this.#releaseWatch();
          await this.#catchUp(result.revision);
          const overlay = new Overlay(this.#tables, this.#clock.now(), this.#revision + 1n);
          for (const job of jobs.splice(0)) if (run(job, overlay)) jobs.push(job);
          writes = overlay.writes();
          continue;
        }
        this.#applyOwn(writes, result.revision);
        this.#releaseWatch();
      }
      for (const job of jobs) job.resolve();
      return;
    }
    throw unavailable("the swarm store changes too fast: the update was given up");
  }

  #applyOwn(writes: Write[], revision: bigint): void {
    const changes: Change[] = [];
    for (const { kind, id, object } of writes) {
      // Another answer may have been lost and its commit told by the watch.
      const current = this.#tables.get(kind, id);
      if (current && versionOf(current) >= revision) continue;
      const change = this.#apply(kind, id, object && withVersion(object, revision));
      if (change) changes.push(change);
      if (!object && this.#watched < revision) this.#tombs.set(`${kind}/${id}`, revision);
    }
    if (revision > this.#revision) this.#revision = revision;
    this.#emit(changes);
  }

  /** What the watch told while a commit was on its way: it waits, because it mostly is that commit's echo. */
  #releaseWatch(): void {
    for (const held of this.#held.splice(0)) this.#onWatch(...held);
  }

  #onWatch(entries: Entry[], upTo: bigint, complete: boolean): void {
    if (this.#committing) {
      this.#held.push([entries, upTo, complete]);
      return;
    }
    const changes: Change[] = [];
    for (const { kind, id, revision, object } of entries) {
      const key = `${kind}/${id}`;
      const tomb = this.#tombs.get(key);
      if (tomb !== undefined) {
        if (revision >= tomb) this.#tombs.delete(key);
        continue;
      }
      const current = this.#tables.get(kind, id);
      if (current && versionOf(current) >= revision) continue;
      const change = this.#apply(kind, id, object());
      if (change) changes.push(change);
    }
    if (complete) changes.push(...this.#removeAllBut(entries, upTo));
    this.#watched = upTo;
    if (upTo > this.#revision) this.#revision = upTo;
    this.#caughtUp = this.#caughtUp.filter(({ revision, resolve }) => {
      if (revision > upTo) return true;
      resolve();
      return false;
    });
    this.#emit(changes);
  }

  #removeAllBut(entries: Entry[], upTo: bigint): Change[] {
    const present = new Set(entries.map(({ kind, id }) => `${kind}/${id}`));
    const changes: Change[] = [];
    for (const kind of KINDS) {
      for (const object of this.#tables.all(kind)) {
        if (present.has(`${kind}/${object.id}`) || versionOf(object) > upTo) continue;
        const change = this.#apply(kind, object.id, undefined);
        if (change) changes.push(change);
      }
    }
    return changes;
  }

  #apply(kind: Kind, id: string, object: ObjectOf<Kind> | undefined): Change | undefined {
    if (object) {
      const old = this.#tables.put(kind, object as never);
      return { action: old ? "update" : "create", kind, object, old } as Change;
    }
    const old = this.#tables.remove(kind, id);
    return old && ({ action: "remove", kind, object: old, old } as Change);
  }

  #catchUp(revision: bigint): Promise<void> {
    if (this.#watched >= revision) return Promise.resolve();
    return new Promise((resolve) => this.#caughtUp.push({ revision, resolve }));
  }

  #emit(changes: Change[]): void {
    if (changes.length === 0) return;
    for (const listener of [...this.#listeners]) {
      try {
        listener(changes);
      } catch (error) {
        this.#log.error("a listener of the swarm store failed", { error });
      }
    }
  }
}

/** Runs one job on the overlay; a job that throws leaves no trace but its rejection. */
function run(job: Job, overlay: Overlay): boolean {
  const mark = overlay.mark();
  try {
    job.run(overlay);
    if (overlay.size - mark > MAX_WRITES) throw new SkeinError("internal", "transaction too large");
    return true;
  } catch (error) {
    overlay.rollback(mark);
    job.reject(error);
    return false;
  }
}
