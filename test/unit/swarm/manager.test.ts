/** A whole manager with a real etcd, asked over the wire like a node would. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http2 from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect } from "node:tls";
import { create } from "@bufbuild/protobuf";
import { CA, NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import {
  AssignmentChange_AssignmentAction,
  AssignmentsMessage_Type,
  Dispatcher,
} from "#proto/docker/swarmkit/dispatcher_pb.js";
import { Health, HealthCheckResponse_ServingStatus } from "#proto/docker/swarmkit/health_pb.js";
import { RaftMembership } from "#proto/docker/swarmkit/raftmember_pb.js";
import { ResourceAllocator } from "#proto/docker/swarmkit/resource_pb.js";
import {
  ClusterSpecSchema,
  NetworkSpecSchema,
  SecretSpecSchema,
  ServiceSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import { IssuanceStatus_State, NodeRole, NodeStatus_State, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { systemClock } from "../../../src/base/clock.ts";
import { Channel, credentials, grpcCodeOf, status } from "../../../src/base/grpc.ts";
import { nullLogger } from "../../../src/base/log.ts";
import {
  createCsr,
  createRootCa,
  identityOf,
  issuerOf,
  signCsr,
  verifyChain,
} from "../../../src/swarm/ca/certificates.ts";
import { certificatePaths, readCredentials, writeCredentials } from "../../../src/swarm/ca/files.ts";
import { parseToken, rootDigest } from "../../../src/swarm/ca/token.ts";
import { bootstrapCluster, startManager } from "../../../src/swarm/manager/manager.ts";
import type { Manager, ManagerOptions } from "../../../src/swarm/manager/types.ts";

const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);

let stateDir = "";
let manager: Manager;

const options = (): ManagerOptions => ({
  stateDir,
  listenAddr: "127.0.0.1:0",
  advertiseAddr: "127.0.0.1:0",
  log: nullLogger,
  clock: systemClock,
});

before(async () => {
  stateDir = mkdtempSync(join(tmpdir(), "skein-manager-"));
  await bootstrapCluster(stateDir);
  const clusterSpec = create(ClusterSpecSchema);
  const rest = { defaultAddressPool: [], subnetSize: 0, dataPathPort: 0, forceNewCluster: false };
  manager = await startManager({ ...options(), bootstrap: { clusterSpec, ...rest } });
});

after(async () => {
  await manager.close();
  rmSync(stateDir, { recursive: true });
});

const root = () => decode(manager.control.cluster().rootCa?.caCert);
const secure = (pair?: { certPem: string; keyPem: string }, name = "swarm-manager", ca = root()) =>
  new Channel(
    manager.localAddr,
    credentials.createSsl(
      Buffer.from(ca),
      pair ? Buffer.from(pair.keyPem) : null,
      pair ? Buffer.from(pair.certPem) : null,
    ),
    { "grpc.ssl_target_name_override": name, "grpc.default_authority": name, "grpc.use_local_subchannel_pool": 1 },
  );

async function joinAs(token: string) {
  using channel = disposable(secure(undefined, "swarm-ca"));
  const ca = channel.client(NodeCA);
  const { csrPem, keyPem } = await createCsr();
  const { nodeId } = await ca.issueNodeCertificate({ csr: encode(csrPem), token });
  const answer = await ca.nodeCertificateStatus({ nodeId }, { timeoutMs: 5000 });
  assert.equal(answer.status?.state, IssuanceStatus_State.ISSUED);
  assert.equal(decode(answer.certificate?.csr), csrPem);
  return { nodeId, keyPem, certPem: decode(answer.certificate?.certificate) };
}

function disposable(channel: Channel): Channel & Disposable {
  return Object.assign(channel, { [Symbol.dispose]: () => channel.close() });
}

const tokens = () => manager.control.cluster().rootCa?.joinTokens;
const denied = (error: unknown) => grpcCodeOf(error) === status.PERMISSION_DENIED;

test("the first objects are there: cluster, this node, ingress at 10.0.0.0/24, bridge and host", async () => {
  const { control } = manager;
  await until(() => control.networks().every((network) => network.driverState));
  const networks = new Map(control.networks().map((network) => [network.spec?.annotations?.name, network]));
  assert.deepEqual([...networks.keys()].sort(), ["bridge", "host", "ingress"]);
  const ingress = networks.get("ingress");
  assert.equal(ingress?.ipam?.configs[0]?.subnet, "10.0.0.0/24");
  assert.equal(ingress?.ipam?.configs[0]?.gateway, "10.0.0.1");
  assert.equal(ingress?.driverState?.options["com.docker.network.driver.overlay.vxlanid_list"], "4096");
  assert.equal(networks.get("host")?.driverState?.name, "host");
  assert.ok(networks.get("host")?.ipam?.driver);
  const cluster = control.cluster();
  assert.equal(cluster.spec?.annotations?.name, "default");
  assert.equal(cluster.networkBootstrapKeys.length, 6);
  assert.equal(new Set(cluster.networkBootstrapKeys.map((key) => key.lamportTime)).size, 6);
  assert.equal(parseToken(tokens()?.worker ?? "").digest, rootDigest(root()));
  await until(() => control.node(manager.nodeId)?.attachments[0]?.addresses[0] === "10.0.0.2/24");
  assert.throws(
    () => readFileSync(certificatePaths(stateDir).rootKey),
    /ENOENT/,
    "the root's key is in the store only",
  );
});

test("a node joins with a token, and renews over its certificate", async () => {
  const node = await joinAs(tokens()?.worker ?? "");
  assert.deepEqual(identityOf(node.certPem), { cn: node.nodeId, ou: "swarm-worker", o: manager.clusterId });
  assert.equal(verifyChain(node.certPem, root()), undefined);
  assert.equal(manager.control.node(node.nodeId)?.role, NodeRole.WORKER);
  using channel = disposable(secure(node));
  const ca = channel.client(NodeCA);
  const { csrPem } = await createCsr();
  assert.equal((await ca.issueNodeCertificate({ csr: encode(csrPem) })).nodeId, node.nodeId);
  const answer = await ca.nodeCertificateStatus({ nodeId: node.nodeId }, { timeoutMs: 5000 });
  assert.equal(decode(answer.certificate?.csr), csrPem);
  const anonymous = disposable(secure(undefined, "swarm-ca"));
  assert.equal(decode((await anonymous.client(CA).getRootCACertificate({})).certificate), root());
  await assert.rejects(
    anonymous.client(NodeCA).issueNodeCertificate({ csr: encode(csrPem), token: "x" }),
    /valid join token/,
  );
  await assert.rejects(
    anonymous.client(NodeCA).issueNodeCertificate({ csr: new Uint8Array(60_000), token: "x" }),
    /valid join token/,
    "what a stranger sends is not parsed",
  );
  await assert.rejects(anonymous.client(NodeCA).issueNodeCertificate({ token: tokens()?.worker ?? "" }), (error) => {
    return grpcCodeOf(error) === status.INVALID_ARGUMENT;
  });
  await assert.rejects(anonymous.client(NodeCA).nodeCertificateStatus({ nodeId: "nobody" }), (error) => {
    return grpcCodeOf(error) === status.NOT_FOUND;
  });
  anonymous.close();
});

test("every method checks who calls", async () => {
  const worker = await joinAs(tokens()?.worker ?? "");
  using anonymous = disposable(secure());
  await assert.rejects(anonymous.client(Dispatcher).heartbeat({ sessionId: "" }), denied);
  await assert.rejects(anonymous.client(ResourceAllocator).detachNetwork({ attachmentId: "x" }), denied);
  using asWorker = disposable(secure(worker));
  await assert.rejects(asWorker.client(Health).check({ service: "Raft" }), denied);
  await assert.rejects(asWorker.client(CA).getUnlockKey({}), denied);
  await assert.rejects(asWorker.client(Dispatcher).heartbeat({ sessionId: "" }), /node not registered/);
  const self = readCredentials(stateDir);
  assert.ok(self);
  using asManager = disposable(secure(self));
  const health = await asManager.client(Health).check({ service: "Raft" });
  assert.equal(health.status, HealthCheckResponse_ServingStatus.SERVING);
});

test("certificates of a foreign CA, and of another swarm, are refused", async () => {
  const foreign = await createRootCa();
  const { csrPem, keyPem } = await createCsr();
  const certPem = await signCsr({ root: foreign, csrPem, cn: "evil", ou: "swarm-manager", o: manager.clusterId });
  using channel = disposable(secure({ certPem, keyPem }));
  await assert.rejects(channel.client(CA).getRootCACertificate({}, { timeoutMs: 2000 }));
  const ca = manager.control.cluster().rootCa;
  const ours = { certPem: root(), keyPem: decode(ca?.caKey) };
  const other = await signCsr({ root: ours, csrPem, cn: "x", ou: "swarm-manager", o: "another-swarm" });
  using stranger = disposable(secure({ certPem: other, keyPem }));
  await assert.rejects(stranger.client(Health).check({}), denied);
});

test("a Docker manager that wants to join is refused with a reason and leaves nothing", async () => {
  const node = await joinAs(tokens()?.manager ?? "");
  using channel = disposable(secure(node));
  await assert.rejects(channel.client(RaftMembership).join({ addr: "10.0.0.9:2377" }), /can join it as a worker only/);
  assert.equal(manager.control.node(node.nodeId), undefined);
});

test("a session: assignments arrive, status goes back, addresses can be asked for", { timeout: 20_000 }, async () => {
  const { control } = manager;
  const node = await joinAs(tokens()?.worker ?? "");
  using channel = disposable(secure(node));
  const dispatcher = channel.client(Dispatcher);
  const abort = new AbortController();
  const description = { hostname: "w1", resources: { nanoCpus: 1_000_000_000n, memoryBytes: 1n << 30n } };
  const session = dispatcher.session({ description }, { signal: abort.signal })[Symbol.asyncIterator]();
  const first = (await session.next()).value;
  assert.equal(first.node?.id, node.nodeId);
  assert.equal(first.networkBootstrapKeys.length, 6);
  assert.equal(decode(first.RootCA), root());
  assert.deepEqual(
    first.managers.map((peer: { peer?: { addr: string } }) => peer.peer?.addr),
    [manager.localAddr],
  );
  assert.equal(control.node(node.nodeId)?.status?.state, NodeStatus_State.READY);
  assert.equal(control.node(node.nodeId)?.description?.hostname, "w1");
  const { sessionId } = first;
  const { period } = await dispatcher.heartbeat({ sessionId });
  assert.ok(Number(period?.seconds) * 1e9 + (period?.nanos ?? 0) >= 0.9e9);
  await assert.rejects(dispatcher.heartbeat({ sessionId: "other" }), /session invalid/);
  const assignments = dispatcher.assignments({ sessionId }, { signal: abort.signal })[Symbol.asyncIterator]();
  const complete = (await assignments.next()).value;
  assert.equal(complete.type, AssignmentsMessage_Type.COMPLETE);
  assert.equal(complete.resultsIn, "1");

  const network = await control.createNetwork(
    create(NetworkSpecSchema, { annotations: { name: "net" }, attachable: true }),
  );
  const service = await control.createService(
    create(ServiceSpecSchema, {
      annotations: { name: "web" },
      mode: { case: "replicated", value: { replicas: 1n } },
      task: { runtime: { case: "container", value: { image: "x" } }, networks: [{ target: "net" }] },
      endpoint: { ports: [{ targetPort: 80, publishedPort: 8080 }] },
    }),
  );
  const message = (await assignments.next()).value;
  assert.equal(message.type, AssignmentsMessage_Type.INCREMENTAL);
  assert.equal(message.appliesTo, "1");
  const item = message.changes[0]?.assignment?.item;
  assert.equal(item?.case, "task");
  const task = item?.value;
  assert.equal(task.serviceId, service.id);
  assert.deepEqual(
    task.networks.map(
      (a: { network?: { spec?: { annotations?: { name: string } } } }) => a.network?.spec?.annotations?.name,
    ),
    ["ingress", "net"],
  );
  assert.equal(task.endpoint.virtualIps.length, 2);
  let told = (await session.next()).value;
  while (told.node.attachments.length < 2) told = (await session.next()).value;
  assert.ok(told.node.attachments.some((a: { network?: { id: string } }) => a.network?.id === network.id));

  const report = (state: TaskState) => ({ taskId: task.id, status: { state, message: "m" } });
  await dispatcher.updateTaskStatus({ sessionId, updates: [report(TaskState.RUNNING)] });
  assert.equal(control.task(task.id)?.status?.state, TaskState.RUNNING);
  assert.equal(control.task(task.id)?.status?.appliedBy, manager.nodeId);
  await dispatcher.updateTaskStatus({ sessionId, updates: [report(TaskState.READY)] });
  assert.equal(control.task(task.id)?.status?.state, TaskState.RUNNING, "a state never goes back");

  const resources = channel.client(ResourceAllocator);
  await assert.rejects(resources.attachNetwork({ config: { target: "ingress" } }), denied);
  const asks = (...addresses: string[]) => resources.attachNetwork({ config: { target: "net", addresses } });
  for (const address of ["10.0.2.1", "fe80::1"]) {
    const details = `Invalid address ${address}: It does not belong to any of this network's subnets`;
    await assert.rejects(asks(address), { code: status.INVALID_ARGUMENT, details });
  }
  for (const address of ["10.0.1.0", "10.0.1.1", "10.0.1.255"]) {
    await assert.rejects(asks(address), { code: status.FAILED_PRECONDITION, details: "Address already in use" });
  }
  const { attachmentId } = await resources.attachNetwork({
    config: { target: "net", addresses: ["10.0.1.77"] },
    containerId: "c",
  });
  const attached = (await assignments.next()).value.changes[0]?.assignment?.item;
  assert.equal(attached?.value.id, attachmentId);
  assert.equal(attached?.value.networks[0]?.addresses[0], "10.0.1.77/24");
  await resources.detachNetwork({ attachmentId });
  const removed = (await assignments.next()).value.changes[0];
  assert.equal(removed?.assignment?.item.value.id, attachmentId);

  await assert.rejects(control.removeNetwork(network.id), /is in use by service/);
  await assert.rejects(
    control.createNetwork(create(NetworkSpecSchema, { annotations: { name: "NET" } })),
    /network NET already exists/,
  );
  const clash = create(ServiceSpecSchema, { ...withoutType(service.spec), annotations: { name: "other" } });
  await assert.rejects(
    control.createService(clash),
    /port '8080' is already in use by service 'web' \(\w+\) as an ingress port/,
  );
  // What `stack rm` does: the network goes in the same breath, though the task was told nothing yet.
  await control.removeService(service.id);
  await control.removeNetwork(network.id);
  const ending = (await assignments.next()).value.changes[0]?.assignment?.item.value;
  assert.equal(ending.desiredState, TaskState.REMOVE);
  await dispatcher.updateTaskStatus({ sessionId, updates: [report(TaskState.SHUTDOWN)] });
  await until(() => control.tasks().length === 0);
  abort.abort();
});

test("a node that is removed while it has a session is told to end its tasks, then nobody listens to it", async () => {
  const { control } = manager;
  const node = await joinAs(tokens()?.worker ?? "");
  using channel = disposable(secure(node));
  const dispatcher = channel.client(Dispatcher);
  const session = dispatcher.session({ description: { hostname: "w2" } }, {})[Symbol.asyncIterator]();
  const { sessionId } = (await session.next()).value;
  const assignments = dispatcher.assignments({ sessionId }, {})[Symbol.asyncIterator]();
  await assignments.next();
  const service = await control.createService(
    create(ServiceSpecSchema, {
      annotations: { name: "everywhere" },
      mode: { case: "global", value: {} },
      task: {
        runtime: { case: "container", value: { image: "x" } },
        placement: { constraints: ["node.hostname==w2"] },
      },
    }),
  );
  const given = (await assignments.next()).value.changes[0]?.assignment?.item.value;
  assert.equal(given.serviceId, service.id);
  await assert.rejects(control.removeNode(node.nodeId, false), /is not down and can't be removed/);
  await control.removeNode(node.nodeId, true);
  const last = (await assignments.next()).value;
  assert.equal(last.type, AssignmentsMessage_Type.INCREMENTAL);
  assert.deepEqual(
    last.changes.map((change: { action: number; assignment?: { item: { value?: { id: string } } } }) => [
      change.action,
      change.assignment?.item.value?.id,
    ]),
    [[AssignmentChange_AssignmentAction.REMOVE, given.id]],
  );
  await assert.rejects(assignments.next());
  await assert.rejects(async () => {
    while (!(await session.next()).done);
  });
  await assert.rejects(dispatcher.heartbeat({ sessionId }), /was removed from swarm|UNAVAILABLE/);
  await control.removeService(service.id);
  await until(() => control.tasks().length === 0);
});

function withoutType<T extends object>(message: T | undefined): Omit<T, "$typeName"> {
  const { $typeName: _type, ...fields } = message as T & { $typeName: string };
  return fields;
}

test("a manager that is killed finds everything again", { timeout: 30_000 }, async () => {
  const dir = mkdtempSync(join(tmpdir(), "skein-manager-"));
  const script = `
    const { bootstrapCluster, startManager } = await import("./src/swarm/manager/manager.ts");
    const { create } = await import("@bufbuild/protobuf");
    const { ClusterSpecSchema, SecretSpecSchema } = await import("#proto/docker/swarmkit/specs_pb.js");
    const { systemClock } = await import("./src/base/clock.ts");
    const { nullLogger } = await import("./src/base/log.ts");
    await bootstrapCluster(${JSON.stringify(dir)});
    const manager = await startManager({
      stateDir: ${JSON.stringify(dir)}, listenAddr: "127.0.0.1:0", advertiseAddr: "127.0.0.1:0", log: nullLogger, clock: systemClock,
      bootstrap: { clusterSpec: create(ClusterSpecSchema), defaultAddressPool: [], subnetSize: 0, dataPathPort: 0, forceNewCluster: false },
    });
    await manager.control.createSecret(create(SecretSpecSchema, { annotations: { name: "kept" }, data: new Uint8Array([1]) }));
    process.kill(process.pid, "SIGKILL");
  `;
  const child = execFile(process.execPath, ["--input-type=module", "-e", script], {
    cwd: join(import.meta.dirname, "../../.."),
  });
  let stderr = "";
  child.stderr?.on("data", (text) => {
    stderr += text;
  });
  const signal = await new Promise((resolve) => child.once("exit", (_code, by) => resolve(by)));
  assert.equal(signal, "SIGKILL", stderr);
  const started = Date.now();
  const again = await startManager({ ...options(), stateDir: dir });
  const took = Date.now() - started;
  try {
    assert.equal(again.control.secrets()[0]?.spec?.annotations?.name, "kept");
    assert.equal(again.control.networks().length, 3);
    assert.ok(took < 2000, `${took} ms`);
  } finally {
    await again.close();
    rmSync(dir, { recursive: true });
  }
});

test("a renewed certificate is served to new connections, and the store goes on", async () => {
  const ca = manager.control.cluster().rootCa;
  const { csrPem, keyPem } = await createCsr();
  const certPem = await signCsr({
    root: { certPem: root(), keyPem: decode(ca?.caKey) },
    ...{ csrPem, cn: manager.nodeId, ou: "swarm-manager", o: manager.clusterId },
  });
  const [host = "", port = ""] = manager.localAddr.split(":");
  const shown = () =>
    new Promise<string>((resolve, reject) => {
      const socket = connect({ host, port: Number(port), rejectUnauthorized: false, ALPNProtocols: ["h2"] }, () => {
        resolve(socket.getPeerX509Certificate()?.serialNumber ?? "");
        socket.destroy();
      });
      socket.once("error", reject);
    });
  const before = await shown();
  writeCredentials(stateDir, { keyPem, certPem });
  manager.reloadCertificate();
  assert.notEqual(await shown(), before);
  assert.equal(await shown(), new X509Certificate(certPem).serialNumber);
  const secret = await manager.control.createSecret(
    create(SecretSpecSchema, { annotations: { name: "s" }, data: encode("x") }),
  );
  await manager.control.removeSecret(secret.id);
});

test("a peer that offers no ALPN is served HTTP/2, as a Docker node needs after its first renewal", async () => {
  const [host = "", port = ""] = manager.localAddr.split(":");
  const session = http2.connect(`https://${manager.localAddr}`, {
    createConnection: () => connect({ host, port: Number(port), rejectUnauthorized: false }),
  });
  const stream = session.request({
    ":method": "POST",
    ":path": "/docker.swarmkit.v1.CA/GetRootCACertificate",
    "content-type": "application/grpc",
    te: "trailers",
  });
  stream.end(Buffer.alloc(5));
  stream.resume();
  const trailers = await new Promise<http2.IncomingHttpHeaders>((resolve, reject) => {
    stream.once("trailers", resolve);
    session.once("error", reject);
    stream.once("close", () => reject(new Error("the stream was closed")));
  });
  assert.equal(trailers["grpc-status"], "0");
  session.close();
});

test("the root is rotated, and again: nodes renew, old and new believe each other, then the new one is alone", {
  timeout: 60_000,
}, async () => {
  const { control } = manager;
  for (const node of control.nodes()) if (node.id !== manager.nodeId) await control.removeNode(node.id, true);
  const worker = await joinAs(tokens()?.worker ?? "");
  const stored = readCredentials(stateDir);
  assert.ok(stored);
  const self = { ...stored, nodeId: manager.nodeId };
  const sessions = new Map<string, string>();
  const describe = async (pair: { certPem: string; keyPem: string }, ca: string, issuerPem: string) => {
    const issuer = issuerOf(issuerPem);
    const tlsInfo = { trustRoot: encode(ca), certIssuerSubject: issuer.subject, certIssuerPublicKey: issuer.publicKey };
    using channel = disposable(secure(pair, "swarm-manager", ca));
    const { cn } = identityOf(pair.certPem);
    // A node has three new sessions in eight seconds; coming back to one does not count.
    const sessionId = sessions.get(cn) ?? "";
    const stream = channel.client(Dispatcher).session({ sessionId, description: { hostname: "h", tlsInfo } });
    sessions.set(cn, (await stream[Symbol.asyncIterator]().next()).value.sessionId);
  };
  const renew = async (pair: { nodeId: string; certPem: string; keyPem: string }, ca: string) => {
    using channel = disposable(secure(pair, "swarm-manager", ca));
    const { csrPem, keyPem } = await createCsr();
    await channel.client(NodeCA).issueNodeCertificate({ csr: encode(csrPem) });
    const { certificate } = await channel
      .client(NodeCA)
      .nodeCertificateStatus({ nodeId: pair.nodeId }, { timeoutMs: 5000 });
    Object.assign(pair, { certPem: decode(certificate?.certificate), keyPem });
    if (pair.nodeId !== manager.nodeId) return;
    writeCredentials(stateDir, pair);
    manager.reloadCertificate();
  };
  const write = async (name: string) => {
    const spec = create(SecretSpecSchema, { annotations: { name }, data: encode("x") });
    await control.removeSecret((await control.createSecret(spec)).id);
  };
  for (const round of [1n, 2n]) {
    const oldRoot = root();
    const oldToken = tokens()?.worker;
    const cluster = control.cluster();
    assert.ok(cluster.spec?.caConfig);
    const spec = { ...cluster.spec, caConfig: { ...cluster.spec.caConfig, forceRotate: round } };
    const rotation = { worker: false, manager: false, unlockKey: false };
    await control.updateCluster(cluster.meta?.version?.index ?? 0n, spec, rotation);
    const newRoot = decode(control.cluster().rootCa?.rootRotation?.caCert);
    const toRotate = () => control.nodes().filter((node) => [worker.nodeId, self.nodeId].includes(node.id));
    await until(() => toRotate().every((node) => node.certificate?.status?.state === IssuanceStatus_State.ROTATE));
    for (const pair of [worker, self]) {
      await renew(pair, oldRoot);
      assert.equal(verifyChain(pair.certPem, oldRoot), undefined, "the old root vouches for it");
      assert.equal(verifyChain(pair.certPem, newRoot), undefined);
      await describe(pair, oldRoot, newRoot);
    }
    await until(() => control.cluster().rootCa?.rootRotation === undefined);
    assert.equal(root(), newRoot);
    assert.notEqual(tokens()?.worker, oldToken);
    await assert.rejects(joinAs(oldToken ?? ""), /valid join token/);
    await write(`rotated-${round}`);
    // What the next renewal brings, of the new root alone.
    await renew(self, newRoot);
    assert.notEqual(verifyChain(self.certPem, oldRoot), undefined);
    assert.ok(manager.control.isLeader(), "who is alone leads on while its store starts again");
    await describe(self, newRoot, newRoot);
    await write(`renewed-${round}`);
  }
  const late = await joinAs(tokens()?.worker ?? "");
  assert.equal(verifyChain(late.certPem, root()), undefined);
  await describe(late, root(), root());
});

async function until(probe: () => boolean): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!probe()) {
    assert.ok(Date.now() < deadline, `did not happen: ${probe}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}
