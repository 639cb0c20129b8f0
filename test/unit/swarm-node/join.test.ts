/** Joining, against a manager that is only a certificate authority and a dispatcher, over real TLS on loopback. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, it } from "node:test";
import { CA, NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import { Dispatcher } from "#proto/docker/swarmkit/dispatcher_pb.js";
import { IssuanceStatus_State as State } from "#proto/docker/swarmkit/types_pb.js";
import { AsyncQueue } from "../../../src/base/async.ts";
import { type Clock, systemClock, VirtualClock } from "../../../src/base/clock.ts";
import { GrpcError, status } from "../../../src/base/grpc.ts";
import { addService, Server, ServerCredentials } from "../../../src/base/grpc-server.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { rpcErrorText } from "../../../src/swarm/agent/rpc-error.ts";
import { createCsr, createRootCa, MANAGER_OU, signCsr, WORKER_OU } from "../../../src/swarm/ca/certificates.ts";
import { makeToken } from "../../../src/swarm/ca/token.ts";
import { createSwarmNode } from "../../../src/swarm/node/node.ts";
import { FakeExecutor } from "../swarm-agent/support.ts";

const cluster = "clusterclusterclustercluste";
const nodeId = "nodenodenodenodenodenodeno";

/** What a test wants to be otherwise. */
interface Faults {
  /** Answer with the certificate of another request first. */
  staleFirst?: boolean;
  /** Do not issue yet. */
  pending?: boolean;
  role?: typeof WORKER_OU | typeof MANAGER_OU;
}

async function startManager(faults: Faults = {}) {
  const root = await createRootCa();
  const token = makeToken(root.certPem);
  const own = await createCsr();
  const certPem = await signCsr({ root, csrPem: own.csrPem, cn: "m1", ou: MANAGER_OU, o: cluster });
  const server = new Server();
  let csr: Uint8Array = new Uint8Array();
  let polls = 0;
  let sessions = 0;
  addService(server, CA, {
    getRootCACertificate: () => ({ certificate: Buffer.from(root.certPem) }),
    getUnlockKey: () => ({}),
  });
  addService(server, NodeCA, {
    issueNodeCertificate: (request) => {
      if (request.token !== token) {
        throw new GrpcError(status.INVALID_ARGUMENT, "A valid join token is necessary to join this cluster");
      }
      csr = request.csr;
      return { nodeId };
    },
    nodeCertificateStatus: async () => {
      polls++;
      if (faults.pending) return { status: { state: State.PENDING } };
      const csrPem = Buffer.from(csr).toString();
      const ou = faults.role ?? WORKER_OU;
      const certificate = Buffer.from(await signCsr({ root, csrPem, cn: nodeId, ou, o: cluster }));
      const shown = faults.staleFirst && polls === 1 ? Buffer.from("another request") : csr;
      return { status: { state: State.ISSUED }, certificate: { csr: shown, certificate } };
    },
  });
  const streams: AsyncQueue<never>[] = [];
  const silent = () => {
    const queue = new AsyncQueue<never>();
    streams.push(queue);
    return queue;
  };
  addService(server, Dispatcher, {
    session: async function* () {
      sessions++;
      const managers = [{ peer: { nodeId: "m1", addr }, weight: 10n }];
      yield { sessionId: "s1", node: { id: nodeId, spec: {} }, managers };
      yield* silent();
    },
    heartbeat: () => ({ period: { seconds: 5n } }),
    assignments: silent,
    updateTaskStatus: () => ({}),
    updateVolumeStatus: () => ({}),
    tasks: silent,
  });
  const pair = { private_key: Buffer.from(own.keyPem), cert_chain: Buffer.from(certPem) };
  const credentials = ServerCredentials.createSsl(Buffer.from(root.certPem), [pair], false);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", credentials, (error, bound) => (error ? reject(error) : resolve(bound))),
  );
  const addr = `127.0.0.1:${port}`;
  return { addr, token, polls: () => polls, sessions: () => sessions, close: () => server.forceShutdown() };
}

const closers: (() => Promise<void> | void)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

function startNode(stateDir = mkdtempSync(join(tmpdir(), "skein-node-")), clock: Clock = systemClock) {
  const executor = new FakeExecutor();
  const node = createSwarmNode({ stateDir, executor, clock, log: nullLogger });
  closers.push(async () => {
    await node[Symbol.asyncDispose]();
    rmSync(stateDir, { recursive: true, force: true });
  });
  const joinAt = (addr: string, joinToken: string) =>
    node.join({ listenAddr: "", advertiseAddr: "", dataPathAddr: "", remoteAddrs: [addr], joinToken, availability: 0 });
  return { executor, joinAt, node, stateDir };
}

describe("joining", () => {
  it("gets a certificate, registers, and remembers", async () => {
    const manager = await startManager();
    closers.push(manager.close);
    const { joinAt, node, stateDir } = startNode();
    const seen: string[] = [];
    node.onChange((local) => seen.push(local.state));
    await joinAt(manager.addr, manager.token);
    const local = node.local();
    assert.equal(local.state, "active");
    assert.equal(local.nodeId, nodeId);
    assert.equal(local.clusterId, cluster);
    assert.equal(local.nodeAddr, "127.0.0.1");
    assert.deepEqual(local.remoteManagers, [{ nodeId: "m1", addr: manager.addr }]);
    assert.equal(seen[0], "pending");
    assert.equal(seen.at(-1), "active");
    assert.deepEqual(readdirSync(join(stateDir, "certificates")).sort(), [
      "swarm-node.crt",
      "swarm-node.key",
      "swarm-root-ca.crt",
    ]);
    // The token's work is done: it is not kept.
    assert.ok(!readFileSync(join(stateDir, "state.json"), "utf8").includes(manager.token));
  });

  it("comes back after a restart without a token", async () => {
    const manager = await startManager();
    closers.push(manager.close);
    const first = startNode();
    await first.joinAt(manager.addr, manager.token);
    await first.node[Symbol.asyncDispose]();
    const second = startNode(first.stateDir);
    await second.node.restore();
    assert.equal(second.node.local().state, "active");
    assert.equal(second.node.local().nodeId, nodeId);
    while (manager.sessions() < 2) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it("says so when its certificate has expired while it was off", async () => {
    const manager = await startManager();
    closers.push(manager.close);
    const first = startNode();
    await first.joinAt(manager.addr, manager.token);
    await first.node[Symbol.asyncDispose]();
    const late = startNode(first.stateDir, new VirtualClock(Date.now() + 100 * 24 * 3_600_000));
    await late.node.restore();
    const expired = "Swarm certificates have expired. To replace them, leave the swarm and join again.";
    assert.equal(late.node.local().state, "error");
    assert.equal(late.node.local().error, expired);
    assert.throws(() => late.node.control(), { message: expired });
    // What it has of the swarm is thrown away by `leave` only.
    await assert.rejects(late.joinAt(manager.addr, manager.token), /already part of a swarm/);
    await late.node.leave(false);
    assert.equal(late.node.local().state, "inactive");
  });

  it("takes up its part when the clock, by which its certificate was over, is put right", async () => {
    const manager = await startManager();
    closers.push(manager.close);
    const first = startNode();
    await first.joinAt(manager.addr, manager.token);
    await first.node[Symbol.asyncDispose]();
    const clock = new VirtualClock(Date.now() + 100 * 24 * 3_600_000);
    const late = startNode(first.stateDir, clock);
    await late.node.restore();
    assert.equal(late.node.local().state, "error");
    await clock.advanceAsync(60_000);
    assert.equal(late.node.local().state, "error");
    clock.set(-100 * 24 * 3_600_000);
    // Time goes on: on a busy machine the first attempt may come to nothing.
    while (manager.sessions() < 2) {
      await clock.advanceAsync(100);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assert.equal(late.node.local().state, "active");
    assert.equal(late.node.local().nodeId, nodeId);
    assert.equal(late.node.local().error, "");
  });

  it("takes only the certificate of its own request", async () => {
    const manager = await startManager({ staleFirst: true });
    closers.push(manager.close);
    const { joinAt, node } = startNode();
    await joinAt(manager.addr, manager.token);
    assert.equal(manager.polls(), 2);
    assert.equal(node.local().state, "active");
  });

  it("does not trust a manager whose root is not the token's", async () => {
    const manager = await startManager();
    closers.push(manager.close);
    const { joinAt, node } = startNode();
    const other = makeToken((await createRootCa()).certPem);
    await assert.rejects(joinAt(manager.addr, other), /remote CA does not match fingerprint/);
    assert.equal(node.local().state, "inactive");
  });

  it("tells the manager's refusal and is free to try again", async () => {
    const manager = await startManager();
    closers.push(manager.close);
    const { joinAt } = startNode();
    const wrong = manager.token.replace(/.$/, (last) => (last === "a" ? "b" : "a"));
    await assert.rejects(joinAt(manager.addr, wrong), {
      code: "invalid",
      message: "rpc error: code = InvalidArgument desc = A valid join token is necessary to join this cluster",
    });
    await joinAt(manager.addr, manager.token);
  });

  it("goes on in the background when it takes longer than a user waits", async () => {
    const faults: Faults = { pending: true };
    const manager = await startManager(faults);
    closers.push(manager.close);
    const clock = new VirtualClock(Date.now());
    const { joinAt, node, stateDir } = startNode(undefined, clock);
    const passing = setInterval(() => clock.advance(1_000), 5);
    closers.push(() => clearInterval(passing));
    await assert.rejects(joinAt(manager.addr, manager.token), {
      message:
        /^Timeout was reached before node joined\. The attempt to join the swarm will continue in the background/,
    });
    assert.equal(node.local().state, "pending");
    await assert.rejects(joinAt(manager.addr, manager.token), /already part of a swarm/);
    // The token is needed until there is a certificate, also after a restart.
    assert.ok(readFileSync(join(stateDir, "state.json"), "utf8").includes(manager.token));
    faults.pending = false;
    while (node.local().state !== "active") await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it("can be left while it is under way", async () => {
    const manager = await startManager({ pending: true });
    closers.push(manager.close);
    const { joinAt, node } = startNode();
    const joining = assert.rejects(joinAt(manager.addr, manager.token), /the node leaves the swarm/);
    while (manager.polls() === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await node.leave(false);
    assert.equal(node.local().state, "inactive");
    await joining;
  });

  it("does not become a manager where it cannot", async () => {
    const manager = await startManager({ role: MANAGER_OU });
    closers.push(manager.close);
    const { joinAt, node } = startNode();
    await assert.rejects(joinAt(manager.addr, manager.token), { code: "notImplemented" });
    assert.equal(node.local().state, "inactive");
  });

  it("refuses what its state does not allow, in Docker's words", async () => {
    const manager = await startManager();
    closers.push(manager.close);
    const { joinAt, node, stateDir } = startNode();
    assert.throws(
      () => node.control(),
      /This node is not a swarm manager\. Use "docker swarm init" or "docker swarm join"/,
    );
    await assert.rejects(node.leave(false), { code: "unavailable", message: "This node is not part of a swarm" });
    await joinAt(manager.addr, manager.token);
    await assert.rejects(joinAt(manager.addr, manager.token), {
      code: "unavailable",
      message: /already part of a swarm/,
    });
    assert.throws(() => node.control(), /Worker nodes can't be used to view or modify cluster state/);
    await node.leave(false);
    assert.equal(node.local().state, "inactive");
    assert.throws(() => readdirSync(stateDir));
  });
});

describe("the words for a manager that cannot be reached", () => {
  it("are Docker's", () => {
    const failure = (details: string) => Object.assign(new Error(`14 UNAVAILABLE: ${details}`), { code: 14, details });
    assert.equal(
      rpcErrorText(
        failure("No connection established. Last error: Error: connect ECONNREFUSED 10.0.0.1:2377. Resolution note: "),
      ),
      'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp 10.0.0.1:2377: connect: connection refused"',
    );
    assert.equal(rpcErrorText(failure("try later")), "rpc error: code = Unavailable desc = try later");
    assert.equal(rpcErrorText(new Error("plain")), "plain");
  });
});
