/**
 * Hostile peers at the managers' port: two real managers in processes of their own, everything else over TLS and gRPC
 * as it is on the wire. Whatever is tried is refused with SwarmKit's status, told in the log in a few lines without
 * secrets, and an honest node is served meanwhile.
 */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { after, before, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import { CA, NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import { Dispatcher } from "#proto/docker/swarmkit/dispatcher_pb.js";
import { Health } from "#proto/docker/swarmkit/health_pb.js";
import { LogBroker, Logs } from "#proto/docker/swarmkit/logbroker_pb.js";
import { RaftMembership } from "#proto/docker/swarmkit/raftmember_pb.js";
import { ResourceAllocator } from "#proto/docker/swarmkit/resource_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { Managers } from "#proto/skein/swarm/managers_pb.js";
import { Child } from "../../bench/support/process.ts";
import { type Channel, grpcCodeOf, grpcMessageOf, status } from "../../src/base/grpc.ts";
import { createCsr, createRootCa, MANAGER_OU, WORKER_OU } from "../../src/swarm/ca/certificates.ts";
import { makeToken } from "../../src/swarm/ca/token.ts";
import { TUNNEL_ALPN } from "../../src/swarm/store/etcd/tunnel.ts";
import { eventually } from "../interop/support/dockerd.ts";
import { closes, forge, grpcTo, hungUp, join, type Pair, RawHttp2, tlsTo } from "./support/hostile.ts";
import { type Cluster, ManagerHost } from "./support/managers.ts";

const skip = spawnSync("etcd", ["--version"]).error ? "needs etcd" : false;
const HOUR = 3_600_000;
/** A manager gives a node fifteen seconds, on a machine of any speed. */
const PATIENCE_MS = 10_000;

/** A node that does what nodes do. */
class HonestNode {
  readonly nodeId: string;
  readonly pair: Pair;
  readonly channel: Channel;
  sessionId = "";
  /** The slowest answer to a heartbeat since the last look; infinite when one failed. */
  #slowest = 0;
  readonly #abort = new AbortController();

  private constructor(nodeId: string, pair: Pair, channel: Channel) {
    this.nodeId = nodeId;
    this.pair = pair;
    this.channel = channel;
  }

  static async join(addr: string, { root, worker }: Cluster): Promise<HonestNode> {
    const { nodeId, ...pair } = await join(addr, root.certPem, worker);
    const node = new HonestNode(nodeId, pair, grpcTo(addr, root.certPem, pair));
    const description = { hostname: "w", resources: { nanoCpus: 4_000_000_000n, memoryBytes: 1n << 32n } };
    const stream = node.dispatcher.session({ description }, { signal: node.#abort.signal })[Symbol.asyncIterator]();
    node.sessionId = (await stream.next()).value.sessionId;
    void node.#live();
    return node;
  }

  get dispatcher() {
    return this.channel.client(Dispatcher);
  }

  async #live(): Promise<void> {
    while (!this.#abort.signal.aborted) {
      const start = performance.now();
      const beat = this.dispatcher.heartbeat({ sessionId: this.sessionId }, { timeoutMs: PATIENCE_MS });
      const failed = await beat.then(
        () => false,
        () => true,
      );
      this.#slowest = Math.max(this.#slowest, failed ? Number.POSITIVE_INFINITY : performance.now() - start);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }

  /** Milliseconds. */
  async slowestBeat(): Promise<number> {
    await this.dispatcher.heartbeat({ sessionId: this.sessionId }, { timeoutMs: PATIENCE_MS });
    const slowest = this.#slowest;
    this.#slowest = 0;
    return slowest;
  }

  async assertServed(): Promise<void> {
    const slowest = await this.slowestBeat();
    assert.ok(slowest < PATIENCE_MS, `the slowest heartbeat took ${Math.round(slowest)} ms`);
  }

  close(): void {
    this.#abort.abort();
    this.channel.close();
  }
}

/** The status and words of a refusal; fails when the call succeeds. */
async function refusal(call: Promise<unknown> | AsyncIterable<unknown>): Promise<{ code: number; message: string }> {
  try {
    if (call instanceof Promise) await call;
    else for await (const _message of call) break;
  } catch (error) {
    return { code: grpcCodeOf(error) ?? -1, message: grpcMessageOf(error) };
  }
  return assert.fail("it was not refused");
}

async function refusedWith(
  code: number,
  words: RegExp,
  call: Promise<unknown> | AsyncIterable<unknown>,
): Promise<void> {
  const told = await refusal(call);
  assert.deepEqual({ code: told.code, matches: words.test(told.message) }, { code, matches: true }, told.message);
}

const NO_TOKEN = "A valid join token is necessary to join this cluster";

describe("hostile peers of a manager", { skip, timeout: 120_000 }, () => {
  let leader: ManagerHost;
  let follower: ManagerHost;
  let cluster: Cluster;
  let honest: HonestNode;
  /** Joined like any other, and is up to no good. */
  let insider: Pair & { readonly nodeId: string };
  const secrets = new Set<string>();
  const started = performance.now();
  const channels: Channel[] = [];
  const to = (pair?: Pair, addr = leader.addr, name?: string): Channel => {
    const channel = grpcTo(addr, cluster.root.certPem, pair, name);
    channels.push(channel);
    return channel;
  };

  before(async () => {
    leader = await ManagerHost.start();
    await leader.child.ask("init");
    cluster = await leader.cluster();
    follower = await ManagerHost.start();
    await follower.child.ask("join", { remote: leader.addr, token: cluster.manager });
    await eventually("both managers know each other", async () => (await follower.nodes()).length === 2);
    honest = await HonestNode.join(leader.addr, cluster);
    insider = await join(leader.addr, cluster.root.certPem, cluster.worker);
  });

  after(async () => {
    honest?.close();
    for (const channel of channels) channel.close();
    await follower?.end();
    await leader?.end();
  });

  it("join tokens: forged, malformed, of another swarm, rotated", async () => {
    const secret = cluster.worker.split("-")[3] ?? "";
    const forged = [
      makeToken(cluster.root.certPem),
      makeToken((await createRootCa()).certPem),
      cluster.worker.slice(0, -1),
      `${cluster.worker}0`,
      cluster.worker.toUpperCase(),
      secret,
      "SWMTKN-1--",
      "\0",
      "x".repeat(40_000),
      "",
    ];
    const csr = Buffer.from((await createCsr()).csrPem);
    const ca = to(undefined, leader.addr, "swarm-ca").client(NodeCA);
    const elsewhere = to(undefined, follower.addr, "swarm-ca").client(NodeCA);
    for (const token of forged) {
      for (const at of [ca, elsewhere]) {
        assert.deepEqual(await refusal(at.issueNodeCertificate({ csr, token })), {
          ...{ code: status.INVALID_ARGUMENT, message: NO_TOKEN },
        });
      }
    }
    await leader.child.ask("rotateTokens");
    const old = cluster;
    cluster = await leader.cluster();
    for (const token of [old.worker, old.manager]) {
      await refusedWith(status.INVALID_ARGUMENT, /valid join token/, ca.issueNodeCertificate({ csr, token }));
    }
    await refusedWith(
      status.INVALID_ARGUMENT,
      /./,
      ca.issueNodeCertificate({ csr: Buffer.from("no request"), token: cluster.worker }),
    );
    await refusedWith(status.INVALID_ARGUMENT, /./, ca.issueNodeCertificate({ token: cluster.worker }));
    await refusedWith(status.NOT_FOUND, /./, ca.nodeCertificateStatus({ nodeId: "nobody" }));
    const nodes = await leader.nodes();
    assert.equal(nodes.length, 4, "nobody joined");
    for (const token of [...forged.slice(0, 5), old.worker, old.manager, cluster.worker, cluster.manager])
      secrets.add(token);
  });

  it("certificates: foreign, self-signed, stolen name, expired, of tomorrow; an hour's skew is tolerated", async () => {
    const { id: o, root } = cluster;
    const [self] = await leader.nodes();
    const stolen = { cn: self?.id ?? "", ou: MANAGER_OU, o };
    const foreign = await createRootCa();
    const worker = { cn: honest.nodeId, ou: WORKER_OU, o };
    const now = Date.now();
    const refused: [string, Pair][] = [
      ["the leader's name by another CA", await forge(foreign, stolen)],
      ["a root for itself", { certPem: foreign.certPem, keyPem: foreign.keyPem }],
      ["expired yesterday", await forge(root, { ...worker, now: now - 48 * HOUR, expiryMs: 24 * HOUR })],
      ["an hour's life, two hours old", await forge(root, { ...worker, now: now - 2 * HOUR, expiryMs: HOUR })],
      ["from the day after", await forge(root, { ...worker, now: now + 24 * HOUR })],
      ["issued by a clock two hours ahead", await forge(root, { ...worker, now: now + 2 * HOUR })],
    ];
    for (const addr of [leader.addr, follower.addr]) {
      for (const [what, pair] of refused) {
        assert.ok(await hungUp(await tlsTo(addr, pair)), what);
        assert.equal(
          (await refusal(to(pair, addr).client(CA).getRootCACertificate({}, { timeoutMs: 3_000 }))).code,
          14,
          what,
        );
      }
    }
    const skewed: [string, Pair][] = [
      ["issued by a clock an hour ahead", await forge(root, { ...worker, now: now + HOUR - 60_000 })],
      ["issued by a clock an hour behind", await forge(root, { ...worker, now: now - HOUR + 60_000, expiryMs: HOUR })],
    ];
    for (const [what, pair] of skewed) {
      await refusedWith(
        ...([status.INVALID_ARGUMENT, /session invalid/] as const),
        to(pair).client(Dispatcher).heartbeat({ sessionId: what }),
      );
    }
  });

  it("another swarm's certificate by the same CA, an unknown role, none at all", async () => {
    const { id: o, root } = cluster;
    const cn = honest.nodeId;
    const other = to(await forge(root, { cn, ou: MANAGER_OU, o: "another-swarm" }));
    const nobody = to(await forge(root, { cn, ou: "swarm-emperor", o }));
    const words = [/remote certificate organization: another-swarm/, /remote certificate role: swarm-emperor/];
    const anonymous = /no client certificates in request/;
    for (const [at, says] of [
      [other, words[0]],
      [nobody, words[1]],
      [to(), anonymous],
    ] as [Channel, RegExp][]) {
      const denied = (call: Promise<unknown> | AsyncIterable<unknown>) =>
        refusedWith(status.PERMISSION_DENIED, says, call);
      await denied(at.client(Dispatcher).session({}));
      await denied(at.client(Dispatcher).heartbeat({ sessionId: honest.sessionId }));
      await denied(at.client(Dispatcher).assignments({ sessionId: honest.sessionId }));
      await denied(at.client(Dispatcher).updateTaskStatus({ sessionId: honest.sessionId }));
      await denied(at.client(ResourceAllocator).attachNetwork({ config: { target: "net" } }));
      await denied(at.client(ResourceAllocator).detachNetwork({ attachmentId: "x" }));
      await denied(at.client(LogBroker).listenSubscriptions({}));
      await denied(at.client(Logs).subscribeLogs({}));
      await denied(at.client(Health).check({}));
      await denied(at.client(CA).getUnlockKey({}));
      await denied(at.client(Managers).write({ method: "removeNode", id: cn }));
      await denied(at.client(Managers).join({}));
      await denied(at.client(Managers).leave({}));
      await denied(at.client(RaftMembership).join({}));
      const publishing = at.client(LogBroker).publishLogs();
      publishing.response.catch(() => {});
      await publishing.write({ subscriptionId: "x" });
      await denied(publishing.response);
    }
  });

  it("a worker at the managers' services, also through a manager that does not lead", async () => {
    for (const addr of [leader.addr, follower.addr]) {
      const at = to(insider, addr);
      const denied = (call: Promise<unknown> | AsyncIterable<unknown>) =>
        refusedWith(
          status.PERMISSION_DENIED,
          /remote certificate role: swarm-worker, expected one of: swarm-manager/,
          call,
        );
      await denied(at.client(Health).check({ service: "Raft" }));
      await denied(at.client(CA).getUnlockKey({}));
      await denied(at.client(Logs).subscribeLogs({ selector: { nodeIds: [honest.nodeId] } }));
      await denied(at.client(RaftMembership).join({ addr: "10.0.0.9:2377" }));
      await denied(at.client(Managers).join({ addr: "10.0.0.9:2377" }));
      await denied(at.client(Managers).leave({}));
      await denied(at.client(Managers).write({ method: "removeNode", id: honest.nodeId, flags: [true] }));
      const raw = new RawHttp2(await tlsTo(addr, insider));
      for (const path of [
        "Control/ListNodes",
        "Raft/ProcessRaftMessage",
        "Raft/StreamRaftMessage",
        "Watch/Watch",
        "Nothing/AtAll",
      ]) {
        assert.equal((await raw.call(path, new Uint8Array())).status, status.UNIMPLEMENTED, path);
      }
      raw.close();
      for (const pair of [insider, undefined]) {
        assert.ok(await hungUp(await tlsTo(addr, pair, { alpn: TUNNEL_ALPN })), "no way to the store");
      }
    }
  });

  it("forged forwarding: from a worker, from nobody, twice", async () => {
    const [self] = await leader.nodes();
    const metadata = {
      ...{ forwarded_cert: "true", forwarded_cert_cn: self?.id ?? "", forwarded_cert_ou: MANAGER_OU },
      ...{ forwarded_cert_org: cluster.id, remote_addr: "127.0.0.1:1" },
    };
    const redirected = { ...metadata, redirect: "127.0.0.1:1" };
    const write = { method: "removeNode", id: honest.nodeId, flags: [true] };
    for (const pair of [insider, undefined]) {
      const words = pair ? /remote certificate role: swarm-worker/ : /no client certificates/;
      for (const given of [metadata, redirected]) {
        const managers = to(pair).client(Managers);
        await refusedWith(status.PERMISSION_DENIED, words, managers.write(write, { metadata: given }));
        const ca = to(pair).client(CA);
        await refusedWith(status.PERMISSION_DENIED, words, ca.getUnlockKey({}, { metadata: given }));
      }
      // What a manager passes on carries the certificate that it saw itself.
      const through = to(pair, follower.addr).client(Managers);
      await refusedWith(status.PERMISSION_DENIED, words, through.write(write, { metadata }));
    }
    const twice = await Promise.all(
      [insider, undefined].map((pair) =>
        refusal(to(pair, follower.addr).client(Managers).write(write, { metadata: redirected })),
      ),
    );
    for (const told of twice) {
      assert.deepEqual(told, { code: 8, message: "more than one redirect to leader from: 127.0.0.1:1" });
    }
    assert.ok((await leader.nodes()).some(({ id }) => id === honest.nodeId));
  });

  it("reports and requests in the name of another node", async () => {
    await leader.child.ask("network");
    await leader.child.ask("service", 2);
    const task = await eventually("a task", async () =>
      (await leader.tasks()).find(({ nodeId }) => nodeId === honest.nodeId),
    );
    const evil = await HonestNode.join(leader.addr, cluster);
    const report = (taskId: string, err = "") => ({ taskId, status: { state: TaskState.FAILED, err } });
    const { dispatcher, sessionId } = evil;
    await refusedWith(
      ...([status.PERMISSION_DENIED, /cannot update a task not assigned this node/] as const),
      dispatcher.updateTaskStatus({ sessionId, updates: [report(task.id)] }),
    );
    await refusedWith(
      ...([status.INVALID_ARGUMENT, /session invalid/] as const),
      dispatcher.updateTaskStatus({ sessionId: honest.sessionId, updates: [report(task.id)] }),
    );
    await refusedWith(
      status.INVALID_ARGUMENT,
      /session invalid/,
      dispatcher.heartbeat({ sessionId: honest.sessionId }),
    );
    await refusedWith(
      status.INVALID_ARGUMENT,
      /session invalid/,
      dispatcher.assignments({ sessionId: honest.sessionId }),
    );
    await dispatcher.updateTaskStatus({ sessionId, updates: [report("nothing")] });
    const still = (await leader.tasks()).find(({ id }) => id === task.id);
    assert.ok(still && still.state < TaskState.RUNNING, "the task is as it was");
    const resources = honest.channel.client(ResourceAllocator);
    const { attachmentId } = await resources.attachNetwork({ config: { target: "net" }, containerId: "c" });
    const denied = /doesn't belong to this node/;
    const detach = evil.channel.client(ResourceAllocator).detachNetwork({ attachmentId });
    await refusedWith(status.PERMISSION_DENIED, denied, detach);
    await resources.detachNetwork({ attachmentId });
    const publishing = evil.channel.client(LogBroker).publishLogs();
    publishing.response.catch(() => {});
    await publishing.write({
      subscriptionId: "guessed",
      messages: [{ context: { nodeId: honest.nodeId }, data: Buffer.from("x") }],
    });
    await refusedWith(status.NOT_FOUND, /no matching subscription found: guessed/, publishing.response);
    // One that reports novels neither fills the store nor holds up the others.
    await honest.dispatcher.updateTaskStatus({
      ...{ sessionId: honest.sessionId, updates: [report(task.id, "e".repeat(900_000))] },
    });
    const kept = (await leader.tasks()).find(({ id }) => id === task.id);
    assert.equal(kept?.state, TaskState.FAILED);
    assert.equal(kept?.err.length, 4096);
    const labels = { engine: { labels: { long: "l".repeat(500_000) } } };
    const novel = dispatcher.session({ description: labels });
    await refusedWith(status.INVALID_ARGUMENT, /description is too large/, novel);
    evil.close();
  });

  it("a node that was removed, with its certificate still valid", async () => {
    const gone = await HonestNode.join(leader.addr, cluster);
    const elsewhere = to(gone.pair, follower.addr);
    await refusedWith(
      status.INVALID_ARGUMENT,
      /session invalid/,
      elsewhere.client(Dispatcher).heartbeat({ sessionId: "x" }),
    );
    const socket = await tlsTo(follower.addr, gone.pair);
    await leader.child.ask("removeNode", gone.nodeId);
    assert.ok(await closes(socket), "no connection outlives the removal, at any manager");
    const csr = Buffer.from((await createCsr()).csrPem);
    for (const addr of [leader.addr, follower.addr]) {
      const at = to(gone.pair, addr);
      const denied = (call: Promise<unknown> | AsyncIterable<unknown>) =>
        refusedWith(status.PERMISSION_DENIED, new RegExp(`node ${gone.nodeId} was removed from swarm`), call);
      await denied(at.client(Dispatcher).session({}));
      await denied(at.client(Dispatcher).heartbeat({ sessionId: gone.sessionId }));
      await denied(at.client(NodeCA).issueNodeCertificate({ csr }));
      await denied(at.client(NodeCA).issueNodeCertificate({ csr, token: cluster.worker }));
      await denied(at.client(ResourceAllocator).attachNetwork({ config: { target: "net" } }));
      await denied(at.client(LogBroker).listenSubscriptions({}));
    }
    assert.ok(!(await leader.nodes()).some(({ id }) => id === gone.nodeId));
    gone.close();
  });

  it("broken messages: noise, cut short, nested, too many, too large, inflated, endless metadata", async () => {
    const before = (await leader.usage()).rssMb;
    const raw = new RawHttp2(await tlsTo(leader.addr, insider));
    const session = "Dispatcher/UpdateTaskStatus";
    const broken = (bytes: Uint8Array) => raw.call(session, bytes);
    let seed = 7;
    const next = () => {
      seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff;
      return seed >> 16;
    };
    const noise = (length: number) => Buffer.from(Array.from({ length }, next));
    for (let i = 0; i < 100; i++) {
      const { status: code } = await broken(noise(1 + (i % 97)));
      assert.ok([status.INTERNAL, status.NOT_FOUND].includes(code), `noise gives ${code}`);
    }
    assert.equal((await broken(Buffer.from([0x0a, 0x7f, 0x41]))).status, status.INTERNAL, "shorter than it says");
    const nested = await broken(Buffer.alloc(500_000, 0x0b));
    assert.equal(nested.status, status.INTERNAL, "groups in groups");
    assert.ok(nested.message.length < 2_000);
    const many = await broken(Buffer.concat(Array.from({ length: 300_000 }, () => Buffer.from([0x1a, 0x00]))));
    assert.equal(many.status, status.NOT_FOUND, "600 kB of nothing but updates, without a session");
    assert.deepEqual(await broken(new Uint8Array(2 << 20)), {
      ...{ status: status.RESOURCE_EXHAUSTED, message: "Received message larger than max (2097152 vs 1048576)" },
    });
    const bomb = gzipSync(Buffer.alloc(64 << 20));
    const inflated = await raw.call(session, bomb, { "grpc-encoding": "gzip" }, true);
    assert.equal(inflated.status, status.RESOURCE_EXHAUSTED, `a bomb of ${bomb.length} bytes: ${inflated.message}`);
    const unknown = await raw.call(session, bomb, { "grpc-encoding": "lzma" }, true);
    assert.equal(unknown.status, status.UNIMPLEMENTED, unknown.message);
    const wordy = await raw.call(session, new Uint8Array(), { "x-long": "x".repeat(200_000) });
    assert.notEqual(wordy.status, 0);
    raw.close();
    const stranger = new RawHttp2(await tlsTo(leader.addr));
    const large = await stranger.call("NodeCA/IssueNodeCertificate", new Uint8Array(70_000));
    assert.equal(large.status, status.RESOURCE_EXHAUSTED, "a stranger has little to say");
    stranger.close();
    await honest.assertServed();
    const after = await leader.usage();
    assert.ok(after.rssMb < before + 200, `${before} MB before, ${after.rssMb} after`);
  });

  it("thousands of calls that never end, on few connections, cost little memory and stop nobody", async () => {
    await using flood = new Child("../../test/swarm/support/flood-child.ts");
    const before = (await leader.usage()).rssMb;
    const unfinished = { addr: leader.addr, calls: 1_000, bytes: 30_000 };
    for (let i = 0; i < 3; i++) {
      await flood.ask("unfinished", unfinished);
      await flood.ask("unfinished", { ...unfinished, pair: { certPem: insider.certPem, keyPem: insider.keyPem } });
    }
    await honest.assertServed();
    await join(leader.addr, cluster.root.certPem, cluster.worker);
    const { rssMb } = await leader.usage();
    await flood.ask("close");
    // 180 MB were offered; of a stranger's calls 16 are begun, of a worker's 512.
    assert.ok(rssMb < before + 250, `${before} MB before, ${rssMb} after`);
  });

  it("floods: handshakes that never begin, idle strangers, requests to join; nodes join and live on", async () => {
    await using flood = new Child("../../test/swarm/support/flood-child.ts");
    await using forgers = new Child("../../test/swarm/support/flood-child.ts");
    const { addr } = leader;
    const before = (await leader.usage()).rssMb;
    const token = makeToken(cluster.root.certPem);
    secrets.add(token);
    const refused = forgers.ask<number>("forged", { addr, rootPem: cluster.root.certPem, token });
    let joined = 0;
    let over = false;
    const joining = (async () => {
      while (!over) {
        await join(addr, cluster.root.certPem, cluster.worker);
        joined++;
      }
    })();
    await Promise.race([flood.ask("silent", { addr, count: 560 }), joining]);
    await Promise.race([flood.ask("idle", { addr, count: 270 }), joining]);
    over = true;
    await forgers.ask("stop");
    await joining;
    assert.ok(joined >= 1, `${joined} nodes joined`);
    assert.ok((await refused) >= 100, `${await refused} refusals`);
    await honest.assertServed();
    const { rssMb } = await leader.usage();
    assert.ok(rssMb < before + 250, `${before} MB before, ${rssMb} after`);
    await flood.ask("close");
  });

  it("a manager that was demoted has no power with the certificate that it kept", async () => {
    const kept = follower.credentials();
    const [, other] = await leader.nodes();
    const id = (await leader.nodes()).find(({ id, manager }) => manager && id === idOf(kept))?.id ?? other?.id ?? "";
    await to(kept).client(Health).check({});
    await leader.child.ask("demote", id);
    await eventually("the demotion", async () =>
      (await leader.nodes()).some((node) => node.id === id && !node.manager),
    );
    const at = to(kept);
    const denied = (call: Promise<unknown> | AsyncIterable<unknown>) =>
      refusedWith(
        status.PERMISSION_DENIED,
        /remote certificate role: swarm-worker, expected one of: swarm-manager/,
        call,
      );
    await denied(at.client(Health).check({}));
    await denied(at.client(CA).getUnlockKey({}));
    await denied(at.client(Managers).write({ method: "removeNode", id: honest.nodeId, flags: [true] }));
    await denied(at.client(Managers).join({ addr: "127.0.0.1:1" }));
    const metadata = { forwarded_cert: "true", forwarded_cert_cn: honest.nodeId, forwarded_cert_org: cluster.id };
    const posing = at
      .client(Managers)
      .write({ method: "x" }, { metadata: { ...metadata, forwarded_cert_ou: MANAGER_OU } });
    await refusedWith(status.UNAVAILABLE, /passed this on/, posing);
    assert.ok(await hungUp(await tlsTo(leader.addr, kept, { alpn: TUNNEL_ALPN })), "no way to the store");
    await eventually("a worker's certificate", async () =>
      /OU\s*=\s*swarm-worker/.test(certificateText(follower.credentials().certPem)),
    );
    await join(leader.addr, cluster.root.certPem, cluster.worker);
  });

  it("the managers' logs tell all of that, in few lines and without secrets", async () => {
    const log = await eventually("the flood's refusals told in one line, ten seconds after the first", async () => {
      const lines = (await Promise.all([leader, follower].map((host) => host.log()))).flat();
      return lines.some((line) => Number(/times=(\d+)/.exec(line)?.[1]) > 100) && lines;
    });
    const all = log.join("\n");
    for (const words of [
      "its token is not one of this swarm",
      "signed by unknown authority",
      "refused a call: not allowed",
      "refused a call: its argument is wrong",
      "refused a call: its message is broken",
      "refused a call: it asks for too much",
    ]) {
      assert.ok(all.includes(words), `${words}: ${all}`);
    }
    // Seven kinds of warnings, each at most twice at once and then once in ten seconds, and the daemons' own.
    const most = 2 * (7 * (2 + (performance.now() - started) / 10_000) + 20);
    assert.ok(log.length < most, `${log.length} lines: ${all}`);
    for (const line of log) assert.ok(line.length < 1_000, line);
    for (const secret of secrets) assert.ok(!all.includes(secret), `a token in the log: ${secret}`);
    assert.ok(!all.includes("PRIVATE KEY"));
  });
});

function certificateText(certPem: string): string {
  return spawnSync("openssl", ["x509", "-noout", "-subject"], { input: certPem, encoding: "utf8" }).stdout;
}

const idOf = ({ certPem }: Pair): string => /CN\s*=\s*(\w+)/.exec(certificateText(certPem))?.[1] ?? "";
