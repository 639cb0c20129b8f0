/**
 * After the data key changed: every value is written anew under the current one, and the former ciphertexts are taken out
 * of a member's database. Both go page by page, may be broken off anywhere, and are begun again from the start.
 */
import { create } from "@bufbuild/protobuf";
import { type KeyValue, RequestOpSchema, TxnRequestSchema } from "#proto/etcd/rpc_pb.js";
import { type Clock, sleep } from "../../../base/clock.ts";
import { grpcCodeOf, status } from "../../../base/grpc.ts";
import type { DataKeys } from "../data-keys.ts";
import { isStale } from "../ring.ts";
import { atRevision, type EtcdBackend, OBJECTS, objectOf } from "./backend.ts";
import type { EtcdClient } from "./client.ts";

/** Values read at once: a secret has up to 500 KiB, a task some two. */
const PAGE = 50n;
const MAX_TXN_BYTES = 1 << 20;
/** Between two pages, for those who wait to write. */
const BREATH_MS = 2;
const CALL_MS = 10_000;
const PURGE_MS = 120_000;

export interface ResealOptions {
  readonly client: () => EtcdClient;
  readonly backend: Pick<EtcdBackend, "guards">;
  readonly keys: DataKeys;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/**
 * Encrypts anew what the ring says is stale; resolves with the number of values when nothing is. One pass is enough: each
 * commit compares the ring, so nothing can come in under a former key. A value that somebody changes meanwhile is left to
 * him: it is under the current key then. Throws when this manager does not lead any more.
 */
export async function resealValues(options: ResealOptions): Promise<number> {
  const { client, clock, keys, signal } = options;
  const { rangeEnd } = OBJECTS;
  let { key } = OBJECTS;
  let count = 0;
  for (;;) {
    signal.throwIfAborted();
    const page = await client().kv.range({ key, rangeEnd, limit: PAGE }, { timeoutMs: CALL_MS, signal });
    const { ring } = keys;
    const stale = ring ? page.kvs.filter((kv) => objectOf(kv.key) && isStale(kv.value, ring)) : [];
    for (const part of partsOf(stale)) count += await resealAll(options, part);
    const last = page.kvs.at(-1);
    if (!page.more || !last) return count;
    key = new Uint8Array([...last.key, 0]);
    if (stale.length > 0) await sleep(clock, BREATH_MS, signal);
  }
}

/** In order, each small enough for a transaction. */
function partsOf(kvs: readonly KeyValue[]): KeyValue[][] {
  const parts: KeyValue[][] = [];
  let size = 0;
  for (const kv of kvs) {
    size += kv.value.length;
    const part = parts.at(-1);
    if (part && size <= MAX_TXN_BYTES) {
      part.push(kv);
    } else {
      parts.push([kv]);
      size = kv.value.length;
    }
  }
  return parts;
}

/** One transaction; when somebody changed one of the values, each has its own. */
async function resealAll(options: ResealOptions, kvs: readonly KeyValue[]): Promise<number> {
  const { backend, client, keys, signal } = options;
  const request = create(TxnRequestSchema, {
    compare: [...kvs.map(({ key, modRevision }) => atRevision(key, modRevision)), ...backend.guards],
    success: kvs.map(({ key, value }) => {
      const { id, kind } = objectOf(key) ?? { id: "", kind: "" };
      const context = `${kind}/${id}`;
      const sealed = keys.seal(keys.opener(value, context)(), context);
      return create(RequestOpSchema, { request: { case: "requestPut", value: { key, value: sealed } } });
    }),
  });
  if ((await client().kv.txn(request, { timeoutMs: CALL_MS, signal })).succeeded) return kvs.length;
  if (kvs.length === 1) return 0;
  let count = 0;
  for (const kv of kvs) count += await resealAll(options, [kv]);
  return count;
}

/**
 * Takes everything but the store's present state out of this member's database: the history is compacted, also on disk, and
 * the file written anew. etcd answers nobody meanwhile, some milliseconds for a database of megabytes. What its log (WAL)
 * still holds goes when etcd drops the segments.
 */
export async function purgeHistory(client: () => EtcdClient, nodeId: string, signal: AbortSignal): Promise<void> {
  const options = { timeoutMs: PURGE_MS, signal };
  const key = new TextEncoder().encode(`/skein-purge/${nodeId}`);
  for (;;) {
    // A revision that no other member compacts at: only one's own compaction is waited for until it is on disk.
    const { header } = await client().kv.put({ key, value: new Uint8Array() }, options);
    try {
      await client().kv.compact({ revision: header?.revision ?? 0n, physical: true }, options);
      break;
    } catch (error) {
      if (grpcCodeOf(error) !== status.OUT_OF_RANGE) throw error;
    }
  }
  await client().maintenance.defragment({}, options);
}
