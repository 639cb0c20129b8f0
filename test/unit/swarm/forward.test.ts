/** Calls that one manager passes on to another: as they are, in both directions, until that one is lost. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { CA, NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import { LogBroker } from "#proto/docker/swarmkit/logbroker_pb.js";
import { Channel, credentials, GrpcError, grpcCodeOf, grpcMessageOf, status } from "../../../src/base/grpc.ts";
import { addService, type Handlers, Server, ServerCredentials } from "../../../src/base/grpc-server.ts";
import { addRoutedService } from "../../../src/swarm/manager/leadership/forward.ts";

const leader = new Server();
const other = new Server();
let toLeader: Channel;
let toOther: Channel;
let gone = new AbortController();
/** The other one leads itself. */
let leads = false;

const ca: Handlers<typeof CA> = {
  getRootCACertificate: (_request, { metadata }) => ({ certificate: Buffer.from(String(metadata.get("from")[0])) }),
  getUnlockKey: () => {
    throw new GrpcError(status.PERMISSION_DENIED, "no key for you");
  },
};
const nodeCa: Handlers<typeof NodeCA> = {
  issueNodeCertificate: ({ token }) => ({ nodeId: `for-${token}` }),
  nodeCertificateStatus: () => ({}),
};
const broker: Handlers<typeof LogBroker> = {
  async *listenSubscriptions(_request, { signal }) {
    yield { id: "a" };
    yield { id: "b" };
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
  },
  async publishLogs(messages) {
    let count = 0;
    for await (const { messages: lines, subscriptionId } of messages) {
      if (subscriptionId === "over") throw new GrpcError(status.NOT_FOUND, "nobody reads this");
      count += lines.length;
    }
    if (count !== 3) throw new GrpcError(status.INVALID_ARGUMENT, `${count} lines`);
    return {};
  },
};

function listen(server: Server): Promise<Channel> {
  return new Promise((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
      if (error) reject(error);
      else resolve(new Channel(`127.0.0.1:${port}`, credentials.createInsecure()));
    });
  });
}

before(async () => {
  addService(leader, CA, ca);
  addService(leader, NodeCA, nodeCa);
  addService(leader, LogBroker, broker);
  toLeader = await listen(leader);
  const away = async () => ({ channel: toLeader, metadata: { from: "other" }, signal: gone.signal });
  addRoutedService(other, CA, async (context) => (leads ? { here: ca, context } : away()));
  addRoutedService(other, NodeCA, async (context) => (leads ? { here: nodeCa, context } : away()));
  addRoutedService(other, LogBroker, async (context) => (leads ? { here: broker, context } : away()));
  toOther = await listen(other);
});
after(() => {
  for (const channel of [toLeader, toOther]) channel.close();
  for (const server of [leader, other]) server.forceShutdown();
});

for (const here of [false, true]) {
  test(`${here ? "answered here" : "passed on"}: calls, streams both ways, and refusals`, async () => {
    leads = here;
    assert.equal((await toOther.client(NodeCA).issueNodeCertificate({ token: "t" })).nodeId, "for-t");
    const { certificate } = await toOther.client(CA).getRootCACertificate({}, { metadata: { from: "node" } });
    assert.equal(Buffer.from(certificate).toString(), here ? "node" : "other");
    await assert.rejects(toOther.client(CA).getUnlockKey({}), (error) => {
      assert.equal(`${grpcCodeOf(error)} ${grpcMessageOf(error)}`, `${status.PERMISSION_DENIED} no key for you`);
      return true;
    });
    const lines = toOther.client(LogBroker).publishLogs();
    await lines.write({ messages: [{}, {}] });
    await lines.write({ messages: [{}] });
    lines.end();
    await lines.response;
    const stop = new AbortController();
    const seen: string[] = [];
    try {
      for await (const { id } of toOther.client(LogBroker).listenSubscriptions({}, { signal: stop.signal })) {
        seen.push(id);
        if (seen.length === 2) stop.abort();
      }
    } catch (error) {
      assert.equal(grpcCodeOf(error), status.CANCELLED);
    }
    assert.deepEqual(seen, ["a", "b"]);
  });

  test(`${here ? "answered here" : "passed on"}: a refusal reaches a caller that has not told all yet`, async () => {
    leads = here;
    const lines = toOther.client(LogBroker).publishLogs();
    await lines.write({ subscriptionId: "over", messages: [{}] });
    await assert.rejects(lines.response, (error) => grpcCodeOf(error) === status.NOT_FOUND);
  });

  test(`${here ? "answered here" : "passed on"}: what is no message is told to be none`, async () => {
    leads = here;
    const call = toOther.passing(NodeCA.method.issueNodeCertificate);
    await assert.rejects(call(Buffer.from([0x0a, 0x05, 0x01])) as Promise<unknown>, (error) => {
      return grpcCodeOf(error) === status.INTERNAL && /unmarshalling/.test(grpcMessageOf(error));
    });
  });
}

test("a stream ends with the leader it began at: the caller is told to ask again, here", async () => {
  leads = false;
  const next = async () => {
    const stream = toOther.client(LogBroker).listenSubscriptions({})[Symbol.asyncIterator]();
    assert.equal((await stream.next()).value?.id, "a");
    assert.equal((await stream.next()).value?.id, "b");
    return assert.rejects(stream.next(), (error) => grpcCodeOf(error) === status.ABORTED);
  };
  const first = next();
  setTimeout(() => gone.abort(new Error("another manager leads")), 50);
  await first;
  gone = new AbortController();
  const second = next();
  setTimeout(() => leader.forceShutdown(), 50);
  await second;
});
