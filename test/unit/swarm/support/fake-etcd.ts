/** What the store asks of etcd, in memory: transactions, ranges, watches, compaction. */
import { create } from "@bufbuild/protobuf";
import {
  Event_EventType,
  EventSchema,
  type KeyValue,
  KeyValueSchema,
  PutResponseSchema,
  type RangeRequest,
  RangeResponseSchema,
  type RequestOp,
  RequestOpSchema,
  ResponseOpSchema,
  type TxnRequest,
  TxnResponseSchema,
  type WatchRequest,
  type WatchResponse,
  WatchResponseSchema,
} from "#proto/etcd/rpc_pb.js";
import { AsyncQueue } from "../../../../src/base/async.ts";
import { GrpcError, status } from "../../../../src/base/grpc.ts";
import type { EtcdClient } from "../../../../src/swarm/store/etcd/client.ts";

const nameOf = (key: Uint8Array) => Buffer.from(key).toString("latin1");

export class FakeEtcd {
  revision = 1n;
  compacted = 0n;
  /** The database's file: every version that was not compacted and written over. */
  file: KeyValue[] = [];
  readonly #kvs = new Map<string, KeyValue>();
  #history: WatchResponse[] = [];
  /** Called before each transaction, which waits for it: to let others overtake one. */
  gate: (request: TxnRequest) => Promise<void> | undefined = () => undefined;
  readonly #watchers = new Set<AsyncQueue<WatchResponse>>();

  /** `step` is called before and after each call takes effect; what it throws the caller gets. */
  client(step: () => void = () => {}): EtcdClient {
    const call =
      <I, O>(act: (request: I) => O) =>
      async (request: I): Promise<O> => {
        await Promise.resolve();
        if ("compare" in (request as object)) await this.gate(request as TxnRequest);
        step();
        const answer = act(request);
        step();
        return answer;
      };
    const watch = ({ signal }: { signal: AbortSignal }) => {
      const queue = new AsyncQueue<WatchResponse>();
      signal.addEventListener("abort", () => queue.end());
      const write = async ({ requestUnion }: WatchRequest) => {
        const from = requestUnion.case === "createRequest" ? requestUnion.value.startRevision : 0n;
        queue.push(create(WatchResponseSchema, { created: true }));
        if (from <= this.compacted) queue.push(create(WatchResponseSchema, { compactRevision: this.compacted }));
        for (const message of this.#history) if ((message.header?.revision ?? 0n) >= from) queue.push(message);
        this.#watchers.add(queue);
      };
      return { write, end() {}, [Symbol.asyncIterator]: () => queue[Symbol.asyncIterator]() };
    };
    const put = (op: { key: Uint8Array; value: Uint8Array }) =>
      this.#apply([create(RequestOpSchema, { request: { case: "requestPut", value: op } })]);
    return {
      kv: {
        range: call((request: RangeRequest) => this.#range(request)),
        txn: call((request: TxnRequest) => this.#txn(request)),
        put: call((request: { key: Uint8Array; value: Uint8Array }) => put(request)),
        compact: call(({ revision }: { revision: bigint }) => {
          if (revision <= this.compacted) throw new GrpcError(status.OUT_OF_RANGE, "compacted");
          this.compacted = revision;
          this.#history = this.#history.filter(({ header }) => (header?.revision ?? 0n) > revision);
          return {};
        }),
      },
      watch: { watch },
      maintenance: {
        defragment: call(() => {
          this.file = this.file.filter((kv) => kv.modRevision > this.compacted || this.#kvs.get(nameOf(kv.key)) === kv);
          return {};
        }),
      },
      close() {},
    } as unknown as EtcdClient;
  }

  /** The present values of keys that begin so. */
  values(prefix: string): KeyValue[] {
    return [...this.#kvs].filter(([name]) => name.startsWith(prefix)).map(([, kv]) => kv);
  }

  #range({ key, limit, rangeEnd }: RangeRequest) {
    const [from, to] = [nameOf(key), rangeEnd?.length ? nameOf(rangeEnd) : `${nameOf(key)}\0`];
    const kvs = [...this.#kvs]
      .filter(([name]) => name >= from && name < to)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, kv]) => kv);
    const most = Number(limit ?? 0n) || kvs.length;
    return create(RangeResponseSchema, {
      header: { revision: this.revision },
      kvs: kvs.slice(0, most),
      more: kvs.length > most,
    });
  }

  #txn({ compare, failure, success }: TxnRequest) {
    const succeeded = compare.every(({ key, targetUnion }) => {
      return (this.#kvs.get(nameOf(key))?.modRevision ?? 0n) === targetUnion.value;
    });
    if (succeeded) this.#apply(success);
    const responses = succeeded
      ? []
      : failure.map(({ request }) => {
          if (request.case !== "requestRange") throw new Error("not in the fake");
          return create(ResponseOpSchema, { response: { case: "responseRange", value: this.#range(request.value) } });
        });
    return create(TxnResponseSchema, { header: { revision: this.revision }, succeeded, responses });
  }

  #apply(ops: RequestOp[]) {
    const modRevision = ++this.revision;
    const events = ops
      .map(({ request }) => {
        if (request.case === "requestPut") {
          const { key, value } = request.value;
          const kv = create(KeyValueSchema, { key, value, modRevision });
          this.#kvs.set(nameOf(key), kv);
          this.file.push(kv);
          return create(EventSchema, { type: Event_EventType.PUT, kv });
        }
        if (request.case !== "requestDeleteRange") throw new Error("not in the fake");
        const { key } = request.value;
        this.#kvs.delete(nameOf(key));
        return create(EventSchema, { type: Event_EventType.DELETE, kv: { key, modRevision } });
      })
      .filter(({ kv }) => kv && nameOf(kv.key).startsWith("/skein/"));
    const message = create(WatchResponseSchema, { header: { revision: modRevision }, events });
    this.#history.push(message);
    if (events.length > 0) for (const queue of this.#watchers) queue.push(message);
    return create(PutResponseSchema, { header: { revision: this.revision } });
  }
}
