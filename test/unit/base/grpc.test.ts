import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { after, before, test } from "node:test";
import { CA, NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import { LogBroker } from "#proto/docker/swarmkit/logbroker_pb.js";
import { Channel, credentials, GrpcError, grpcCodeOf, grpcMessageOf, status, writeTo } from "../../../src/base/grpc.ts";
import { addService, Server, ServerCredentials } from "../../../src/base/grpc-server.ts";

const server = new Server();
let channel: Channel;
let cancelled = false;

before(async () => {
  addService(server, CA, {
    getRootCACertificate: () => ({ certificate: new Uint8Array([1, 2, 3]) }),
    getUnlockKey: () => {
      throw new GrpcError(status.PERMISSION_DENIED, "no key for you");
    },
  });
  addService(server, NodeCA, {
    issueNodeCertificate: async (request) => ({ nodeId: `for-${request.token}` }),
    nodeCertificateStatus: () => new Promise(() => {}),
  });
  addService(server, LogBroker, {
    async *listenSubscriptions(_request, context) {
      yield { id: "a" };
      yield { id: "b" };
      await new Promise((resolve) => context.signal.addEventListener("abort", resolve));
      cancelled = true;
    },
    async publishLogs(messages) {
      let count = 0;
      for await (const message of messages) {
        if (message.subscriptionId === "refused") throw new GrpcError(status.ABORTED, "enough");
        count += message.messages.length;
      }
      if (count !== 3) throw new GrpcError(status.INVALID_ARGUMENT, `${count} messages`);
      return {};
    },
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  channel = new Channel(`127.0.0.1:${port}`, credentials.createInsecure());
});
after(() => {
  channel.close();
  server.forceShutdown();
});

test("unary calls carry typed messages both ways", async () => {
  assert.deepEqual([...(await channel.client(CA).getRootCACertificate({})).certificate], [1, 2, 3]);
  assert.equal((await channel.client(NodeCA).issueNodeCertificate({ token: "t" })).nodeId, "for-t");
});

test("a handler's status reaches the caller", async () => {
  await assert.rejects(channel.client(CA).getUnlockKey({}), (error) => {
    assert.equal(grpcCodeOf(error), status.PERMISSION_DENIED);
    assert.equal(grpcMessageOf(error), "no key for you");
    return true;
  });
});

test("a deadline ends a call that hangs, and so does a signal", async () => {
  const client = channel.client(NodeCA);
  await assert.rejects(client.nodeCertificateStatus({}, { timeoutMs: 30 }), (error) => {
    return grpcCodeOf(error) === status.DEADLINE_EXCEEDED;
  });
  const abort = new AbortController();
  const hanging = client.nodeCertificateStatus({}, { signal: abort.signal });
  abort.abort();
  await assert.rejects(hanging, (error) => grpcCodeOf(error) === status.CANCELLED);
});

test("a server stream is read until cancelled, and the server notices", async () => {
  const abort = new AbortController();
  const seen: string[] = [];
  await assert.rejects(async () => {
    for await (const message of channel.client(LogBroker).listenSubscriptions({}, { signal: abort.signal })) {
      seen.push(message.id);
      if (seen.length === 2) abort.abort();
    }
  });
  assert.deepEqual(seen, ["a", "b"]);
  for (let i = 0; i < 100 && !cancelled; i++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.equal(cancelled, true);
});

test("a client stream ends with the response", async () => {
  const stream = channel.client(LogBroker).publishLogs();
  await stream.write({ messages: [{}, {}] });
  await stream.write({ messages: [{}] });
  stream.end();
  await stream.response;
});

test("a stream that the server gave up does not hold up its writer", { timeout: 20_000 }, async () => {
  const stream = channel.client(LogBroker).publishLogs();
  const refused = assert.rejects(stream.response, (error) => grpcCodeOf(error) === status.ABORTED);
  const messages = [{ data: new Uint8Array(300_000) }];
  // More than the windows of a connection hold.
  for (let i = 0; i < 40; i++) await stream.write({ subscriptionId: "refused", messages });
  await refused;
});

test("a writer that waits often leaves no listeners behind", async () => {
  const call = Object.assign(new EventEmitter(), { write: () => false });
  for (const event of ["drain", "drain", "close", "status"]) {
    const written = writeTo(call, {});
    call.emit(event);
    await written;
    assert.deepEqual(call.eventNames(), []);
  }
});
