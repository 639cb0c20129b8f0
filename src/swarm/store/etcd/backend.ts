/**
 * The store in etcd: one key per object (`/skein/<kind>/<id>`, the message's bytes), one Txn per commit. Each Txn
 * compares the revision of every key it writes, and leaves its own number under `/skein-txn/<writer>`: when an answer
 * is lost on the way, that number tells whether the commit happened.
 */

import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import {
  type Compare,
  Compare_CompareResult,
  Compare_CompareTarget,
  CompareSchema,
  Event_EventType,
  type KeyValue,
  RequestOpSchema,
  TxnRequestSchema,
} from "#proto/etcd/rpc_pb.js";
import { type Clock, sleep } from "../../../base/clock.ts";
import { messageOf, SkeinError, unavailable } from "../../../base/errors.ts";
import { grpcCodeOf, status } from "../../../base/grpc.ts";
import type { Logger } from "../../../base/log.ts";
import { type Backend, type CommitResult, type Entry, type OnEntries, TooLarge } from "../backend.ts";
import type { DataKeys } from "../data-keys.ts";
import { decode, encode, isKind, type Kind } from "../objects.ts";
import { formatRing, parseRing, type Ring } from "../ring.ts";
import type { Write } from "../transaction.ts";
import type { EtcdClient } from "./client.ts";

const PREFIX = "/skein/";
const PREFIX_END = "/skein0";
const PAGE = 2000n;
/** How long a commit waits for etcd to come back before it fails. */
const COMMIT_PATIENCE_MS = 30_000;
const CALL_TIMEOUT_MS = 10_000;

const bytes = (text: string) => new TextEncoder().encode(text);
const keyOf = (kind: string, id: string) => bytes(`${PREFIX}${kind}/${id}`);

/** What the key of a value is about; undefined for keys that hold no object. */
export function objectOf(key: Uint8Array): { readonly kind: Kind; readonly id: string } | undefined {
  const [, , kind, id] = new TextDecoder().decode(key).split("/");
  return kind !== undefined && id !== undefined && isKind(kind) ? { kind, id } : undefined;
}

const isKey = (key: Uint8Array, other: Uint8Array) => Buffer.compare(key, other) === 0;

export const atRevision = (key: Uint8Array, value: bigint) =>
  create(CompareSchema, {
    result: Compare_CompareResult.EQUAL,
    target: Compare_CompareTarget.MOD,
    key,
    targetUnion: { case: "modRevision", value },
  });

/** Codes after which it is unknown or certain that nothing happened, and trying again makes sense. */
function passing(error: unknown): boolean {
  const code = grpcCodeOf(error);
  return code === status.UNAVAILABLE || code === status.DEADLINE_EXCEEDED || code === status.CANCELLED;
}

/** etcd's own limit, and that of its gRPC server. */
function isTooLarge(error: unknown): boolean {
  const code = grpcCodeOf(error);
  if (code !== status.INVALID_ARGUMENT && code !== status.RESOURCE_EXHAUSTED) return false;
  return /too large|larger than max/.test(messageOf(error));
}

/** Under this key the leading manager puts its name. Inside of the watched range: taking it is told like any change. */
const LEADER_KEY = `${PREFIX}leader`;
/** Which data key the values are encrypted under (`../ring.ts`). Watched, too. */
const RING_KEY = bytes(`${PREFIX}ring`);

/** All keys of objects, and the two above. */
export const OBJECTS = { key: bytes(PREFIX), rangeEnd: bytes(PREFIX_END) };

export interface EtcdBackendOptions {
  /**
   * Revision of the leader's key at which this manager took it: a commit happens only while nobody else took it since.
   * Throws when this manager does not lead. Without it nothing is asked (a store of one writer).
   */
  readonly fence?: () => bigint;
  /** Encrypt the values, so that they are not readable on disk. */
  readonly keys?: DataKeys | undefined;
}

export class EtcdBackend implements Backend {
  readonly #fence: (() => bigint) | undefined;
  readonly #keys: DataKeys | undefined;
  readonly #client: () => EtcdClient;
  readonly #writer: Uint8Array;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #closing = new AbortController();

  constructor(
    client: () => EtcdClient,
    writerId: string,
    clock: Clock,
    log: Logger,
    { fence, keys }: EtcdBackendOptions = {},
  ) {
    this.#client = client;
    this.#fence = fence;
    this.#keys = keys;
    this.#writer = bytes(`/skein-txn/${writerId}`);
    this.#clock = clock;
    this.#log = log;
  }

  close(): void {
    this.#closing.abort(unavailable("the swarm store is closed"));
  }

  async load(): Promise<{ revision: bigint; entries: Entry[] }> {
    const all: KeyValue[] = [];
    let revision = 0n;
    let { key } = OBJECTS;
    for (;;) {
      const { rangeEnd } = OBJECTS;
      const page = await this.#client().kv.range(
        { key, rangeEnd, limit: PAGE, revision },
        { timeoutMs: CALL_TIMEOUT_MS },
      );
      revision ||= page.header?.revision ?? 0n;
      all.push(...page.kvs);
      const last = page.kvs.at(-1);
      if (!page.more || !last) break;
      key = new Uint8Array([...last.key, 0]);
    }
    await this.#learn(all, this.#closing.signal);
    return { revision, entries: all.flatMap((kv) => this.#entry(kv, false) ?? []) };
  }

  /** Takes the lead in the name of `nodeId`; gives the revision for the fence. Linearizable: needs a quorum. */
  async takeLead(nodeId: string, timeoutMs: number): Promise<bigint> {
    const put = { key: bytes(LEADER_KEY), value: bytes(nodeId) };
    const answer = await this.#client().kv.put(put, { timeoutMs, signal: this.#closing.signal });
    return answer.header?.revision ?? 0n;
  }

  /**
   * Asks a quorum whether the lead is still this manager's. A leader that was just cut off would otherwise lay a commit
   * into its own log, tell its user that it failed, and see it done when the others are back.
   */
  async confirmLead(timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    const fence = this.#fence?.();
    const answer = await this.#client().kv.range({ key: bytes(LEADER_KEY) }, { timeoutMs, signal });
    return answer.kvs[0]?.modRevision === fence;
  }

  /** For another writer's transactions: they happen only while this manager leads and the ring is what it knows. */
  get guards(): Compare[] {
    const fence = this.#fence?.();
    return [
      ...(fence === undefined ? [] : [atRevision(bytes(LEADER_KEY), fence)]),
      ...(this.#keys ? [atRevision(RING_KEY, this.#keys.revision)] : []),
    ];
  }

  /** Puts the ring into the store; false when it, or the lead, changed meanwhile. */
  async putRing(ring: Ring): Promise<boolean> {
    const put = { key: RING_KEY, value: formatRing(ring) };
    const request = create(TxnRequestSchema, {
      compare: this.guards,
      success: [create(RequestOpSchema, { request: { case: "requestPut", value: put } })],
    });
    const options = { timeoutMs: CALL_TIMEOUT_MS, signal: this.#closing.signal };
    const answer = await this.#client().kv.txn(request, options);
    if (answer.succeeded) this.#keys?.follow(ring, answer.header?.revision ?? 0n);
    return answer.succeeded;
  }

  async commit(writes: Write[]): Promise<CommitResult> {
    const number = randomBytes(16);
    const fence = this.#fence?.();
    const request = create(TxnRequestSchema, {
      compare: [...writes.map(({ kind, id, base }) => atRevision(keyOf(kind, id), base)), ...this.guards],
      success: [
        ...writes.map(({ kind, id, object }) => {
          const key = keyOf(kind, id);
          if (!object) return create(RequestOpSchema, { request: { case: "requestDeleteRange", value: { key } } });
          const plain = encode(kind, object as never);
          const value = this.#keys ? this.#keys.seal(plain, `${kind}/${id}`) : plain;
          return create(RequestOpSchema, { request: { case: "requestPut", value: { key, value } } });
        }),
        create(RequestOpSchema, { request: { case: "requestPut", value: { key: this.#writer, value: number } } }),
      ],
      failure: [bytes(LEADER_KEY), RING_KEY].map((key) =>
        create(RequestOpSchema, { request: { case: "requestRange", value: { key } } }),
      ),
    });
    const deadline = this.#clock.steady() + COMMIT_PATIENCE_MS;
    let doubt = false;
    for (let wait = 20; ; wait = Math.min(wait * 2, 500)) {
      try {
        const signal = this.#closing.signal;
        const answer = await this.#client().kv.txn(request, { timeoutMs: CALL_TIMEOUT_MS, signal });
        const revision = answer.header?.revision ?? 0n;
        if (answer.succeeded) return { applied: true, revision };
        if (doubt) {
          const mine = await this.#lastCommit(number);
          if (mine !== undefined) return { applied: true, revision: mine };
        }
        const [leader, ring] = answer.responses.map(({ response }) => {
          return response.case === "responseRange" ? response.value.kvs[0] : undefined;
        });
        if (fence !== undefined && leader?.modRevision !== fence) {
          throw unavailable("another manager leads the swarm now");
        }
        if (ring) this.#keys?.follow(parseRing(ring.value), ring.modRevision);
        return { applied: false, revision };
      } catch (error) {
        if (this.#closing.signal.aborted) throw this.#closing.signal.reason;
        // Throws as soon as this manager leads no more.
        this.#fence?.();
        if (error instanceof SkeinError) throw error;
        if (isTooLarge(error)) throw new TooLarge();
        if (!passing(error) || this.#clock.steady() >= deadline) {
          throw unavailable(`the swarm store did not take the change: ${messageOf(error)}`);
        }
        doubt = true;
        this.#log.warn("etcd does not answer, trying again", { error });
        await sleep(this.#clock, wait, this.#closing.signal);
      }
    }
  }

  /** The revision of the commit with this number, when it was this writer's last. */
  async #lastCommit(number: Uint8Array): Promise<bigint | undefined> {
    const answer = await this.#client().kv.range({ key: this.#writer }, { timeoutMs: CALL_TIMEOUT_MS });
    const kv = answer.kvs[0];
    return kv && Buffer.compare(kv.value, number) === 0 ? kv.modRevision : undefined;
  }

  watch(revision: bigint, onEntries: OnEntries): () => void {
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, this.#closing.signal]);
    void this.#follow(revision, onEntries, signal);
    return () => stop.abort();
  }

  async #follow(from: bigint, onEntries: OnEntries, signal: AbortSignal): Promise<void> {
    let seen = from;
    while (!signal.aborted) {
      try {
        const stream = this.#client().watch.watch({ signal });
        await stream.write({
          requestUnion: {
            case: "createRequest",
            value: { ...OBJECTS, startRevision: seen + 1n, progressNotify: true },
          },
        });
        for await (const message of stream) {
          if (message.compactRevision > seen) {
            const { revision, entries } = await this.load();
            seen = revision;
            onEntries(entries, revision, true);
            this.#saveKeys();
            break;
          }
          if (message.canceled) throw new Error(`the watch was cancelled: ${message.cancelReason || "compacted"}`);
          if (message.created) continue;
          await this.#learn(
            message.events.flatMap(({ kv }) => kv ?? []),
            signal,
          );
          const entries = message.events.flatMap(({ kv, type }) => {
            return (kv && this.#entry(kv, type === Event_EventType.DELETE)) ?? [];
          });
          seen = message.events.at(-1)?.kv?.modRevision ?? message.header?.revision ?? seen;
          onEntries(entries, seen, false);
          this.#saveKeys();
        }
      } catch (error) {
        if (!signal.aborted) this.#log.warn("the watch of the swarm store broke, opening it again", { error });
      }
      if (!signal.aborted) await sleep(this.#clock, 200, signal).catch(() => {});
    }
  }

  /** Before values are read: the ring among them is followed, and keys that it names or they need are asked for. */
  async #learn(kvs: readonly KeyValue[], signal: AbortSignal): Promise<void> {
    const keys = this.#keys;
    if (!keys) return;
    for (const { key, modRevision, value } of kvs) {
      if (isKey(key, RING_KEY) && value.length > 0) keys.follow(parseRing(value), modRevision);
    }
    if (keys.ring) await keys.fetch(keys.ring.current, signal);
    for (const kv of kvs) {
      const id = keys.lacks(kv.value);
      if (id !== undefined && objectOf(kv.key)) await keys.fetch(id, signal);
    }
  }

  /**
   * Only now: the keys on disk are locked under the unlock key that the values told. Those that other managers told are on
   * their disks, so nothing is lost when this one's has no room.
   */
  #saveKeys(): void {
    try {
      this.#keys?.save();
    } catch (error) {
      this.#log.error("the data keys cannot be saved, trying again with the next change", { error });
    }
  }

  #entry({ key, modRevision, value }: KeyValue, removed: boolean): Entry | undefined {
    const place = objectOf(key);
    if (!place) return undefined;
    const { kind, id } = place;
    if (removed) return { kind, id, revision: modRevision, object: () => undefined };
    const plain = this.#keys ? this.#keys.opener(value, `${kind}/${id}`) : () => value;
    return { kind, id, revision: modRevision, object: () => decode(kind, plain(), modRevision) };
  }
}
