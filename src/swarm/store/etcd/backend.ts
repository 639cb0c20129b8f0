/**
 * The store in etcd: one key per object (`/skein/<kind>/<id>`, the message's bytes), one Txn per commit. Each Txn
 * compares the revision of every key it writes, and leaves its own number under `/skein-txn/<writer>`: when an answer
 * is lost on the way, that number tells whether the commit happened.
 */

import { createSecretKey, type KeyObject, randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import {
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
import { isSealed, seal, unseal } from "../../ca/seal.ts";
import { type Backend, type CommitResult, type Entry, type OnEntries, TooLarge } from "../backend.ts";
import { type AnyObject, decode, encode, isKind, type Kind } from "../objects.ts";
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

const atRevision = (key: Uint8Array, value: bigint) =>
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

export interface EtcdBackendOptions {
  /**
   * Revision of the leader's key at which this manager took it: a commit happens only while nobody else took it since.
   * Throws when this manager does not lead. Without it nothing is asked (a store of one writer).
   */
  readonly fence?: () => bigint;
  /** Encrypts the values, so that they are not readable on disk. */
  readonly dataKey?: Uint8Array | undefined;
}

export class EtcdBackend implements Backend {
  readonly #fence: (() => bigint) | undefined;
  /** As an object of OpenSSL: setting up a cipher from bytes costs more than the encryption. */
  readonly #dataKey: KeyObject | undefined;
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
    { dataKey, fence }: EtcdBackendOptions = {},
  ) {
    this.#client = client;
    this.#fence = fence;
    this.#dataKey = dataKey && createSecretKey(dataKey);
    this.#writer = bytes(`/skein-txn/${writerId}`);
    this.#clock = clock;
    this.#log = log;
  }

  close(): void {
    this.#closing.abort(unavailable("the swarm store is closed"));
  }

  async load(): Promise<{ revision: bigint; entries: Entry[] }> {
    const entries: Entry[] = [];
    let revision = 0n;
    let key = bytes(PREFIX);
    for (;;) {
      const page = await this.#client().kv.range(
        { key, rangeEnd: bytes(PREFIX_END), limit: PAGE, revision },
        { timeoutMs: CALL_TIMEOUT_MS },
      );
      revision ||= page.header?.revision ?? 0n;
      for (const kv of page.kvs) {
        const entry = this.#entry(kv, false);
        if (entry) entries.push(entry);
      }
      const last = page.kvs.at(-1);
      if (!page.more || !last) return { revision, entries };
      key = new Uint8Array([...last.key, 0]);
    }
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

  async commit(writes: Write[]): Promise<CommitResult> {
    const number = randomBytes(16);
    const fence = this.#fence?.();
    const request = create(TxnRequestSchema, {
      compare: [
        ...writes.map(({ kind, id, base }) => atRevision(keyOf(kind, id), base)),
        ...(fence === undefined ? [] : [atRevision(bytes(LEADER_KEY), fence)]),
      ],
      success: [
        ...writes.map(({ kind, id, object }) =>
          create(RequestOpSchema, {
            request: object
              ? { case: "requestPut", value: { key: keyOf(kind, id), value: this.#seal(kind, id, object) } }
              : { case: "requestDeleteRange", value: { key: keyOf(kind, id) } },
          }),
        ),
        create(RequestOpSchema, { request: { case: "requestPut", value: { key: this.#writer, value: number } } }),
      ],
      failure: [create(RequestOpSchema, { request: { case: "requestRange", value: { key: bytes(LEADER_KEY) } } })],
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
        const leader = answer.responses[0]?.response;
        const taken = leader?.case === "responseRange" ? leader.value.kvs[0]?.modRevision : undefined;
        if (fence !== undefined && taken !== fence) throw unavailable("another manager leads the swarm now");
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
            value: { key: bytes(PREFIX), rangeEnd: bytes(PREFIX_END), startRevision: seen + 1n, progressNotify: true },
          },
        });
        for await (const message of stream) {
          if (message.compactRevision > seen) {
            const { revision, entries } = await this.load();
            seen = revision;
            onEntries(entries, revision, true);
            break;
          }
          if (message.canceled) throw new Error(`the watch was cancelled: ${message.cancelReason || "compacted"}`);
          if (message.created) continue;
          const entries: Entry[] = [];
          for (const event of message.events) {
            const entry = event.kv && this.#entry(event.kv, event.type === Event_EventType.DELETE);
            if (entry) entries.push(entry);
          }
          seen = message.events.at(-1)?.kv?.modRevision ?? message.header?.revision ?? seen;
          onEntries(entries, seen, false);
        }
      } catch (error) {
        if (!signal.aborted) this.#log.warn("the watch of the swarm store broke, opening it again", { error });
      }
      if (!signal.aborted) await sleep(this.#clock, 200, signal).catch(() => {});
    }
  }

  #seal(kind: Kind, id: string, object: AnyObject): Uint8Array {
    const plain = encode(kind, object as never);
    return this.#dataKey ? seal(this.#dataKey, plain, `${kind}/${id}`) : plain;
  }

  #unseal(kind: Kind, id: string, value: Uint8Array): Uint8Array {
    if (!isSealed(value)) return value;
    if (!this.#dataKey) throw unavailable("the swarm store is encrypted, and its data key is not here");
    return unseal(this.#dataKey, value, `${kind}/${id}`);
  }

  #entry(kv: KeyValue, removed: boolean): Entry | undefined {
    const [, , kind, id] = new TextDecoder().decode(kv.key).split("/");
    if (kind === undefined || id === undefined || !isKind(kind)) return undefined;
    const object = () => (removed ? undefined : decode(kind, this.#unseal(kind, id, kv.value), kv.modRevision));
    return { kind, id, revision: kv.modRevision, object };
  }
}
