/** Several managers: what is decided about their number, whom a passed-on call comes from, what is on disk. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type Node, NodeSchema, ServiceSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { ServiceSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { NodeRole, RaftMemberStatus_Reachability } from "#proto/docker/swarmkit/types_pb.js";
import { type StatusResponse, StatusResponseSchema } from "#proto/etcd/rpc_pb.js";
import type { WriteRequest } from "#proto/skein/swarm/managers_pb.js";
import { VirtualClock } from "../../../src/base/clock.ts";
import { SkeinError } from "../../../src/base/errors.ts";
import { GrpcError, Metadata, status } from "../../../src/base/grpc.ts";
import type { CallContext } from "../../../src/base/grpc-server.ts";
import {
  certificatePaths,
  forgetUnlockKey,
  lockKeysWith,
  readCredentials,
  unlockKeys,
} from "../../../src/swarm/ca/files.ts";
import { formatUnlockKey, isSealed, parseUnlockKey, seal, unseal } from "../../../src/swarm/ca/seal.ts";
import { createAuthority } from "../../../src/swarm/manager/auth.ts";
import { bootstrapCluster } from "../../../src/swarm/manager/bootstrap.ts";
import { checkDemotable, checkPromotable, MANAGER_PLUGIN } from "../../../src/swarm/manager/control/roles.ts";
import { Callers, forwardingMetadata, refuseSecondHop } from "../../../src/swarm/manager/leadership/callers.ts";
import { planMembership, type StoreMember } from "../../../src/swarm/manager/leadership/plan.ts";
import { StandingWatch } from "../../../src/swarm/manager/leadership/standing.ts";
import { forwardedWrites, performWrite, writeError } from "../../../src/swarm/manager/leadership/writes.ts";
import { nodeOfPeerUrl, peerUrl } from "../../../src/swarm/store/etcd/tunnel.ts";
import type { ControlApi } from "../../../src/swarm/types.ts";

const { MANAGER, WORKER } = NodeRole;
const member = (name: string, learner = false): StoreMember => ({
  id: BigInt(name.charCodeAt(0)),
  nodeId: name,
  learner,
});

function node(id: string, desiredRole: NodeRole, role = desiredRole, reachable = true): Node {
  const { REACHABLE, UNREACHABLE } = RaftMemberStatus_Reachability;
  return create(NodeSchema, {
    id,
    role,
    spec: { desiredRole },
    ...(role === MANAGER ? { managerStatus: { addr: id, reachability: reachable ? REACHABLE : UNREACHABLE } } : {}),
  });
}

/** The plan of leader "a"; `down` lists managers that do not answer. */
function plan(nodes: Node[], members: StoreMember[], down: string[] = []): string[] {
  const steps = planMembership({ nodes, members, self: "a", reachable: (id) => !down.includes(id) });
  return steps.map((step) => {
    if ("nodeId" in step) return `${step.kind} ${step.nodeId}`;
    return `${step.kind} ${step.kind === "moveLead" ? step.to.nodeId : step.member.nodeId}`;
  });
}

test("three managers in order: nothing to do", () => {
  const nodes = ["a", "b", "c"].map((id) => node(id, MANAGER));
  assert.deepEqual(
    plan(
      nodes,
      nodes.map(({ id }) => member(id)),
    ),
    [],
  );
});

test("a promoted node becomes a manager by its role first, and votes once it is a member", () => {
  const a = node("a", MANAGER);
  assert.deepEqual(plan([a, node("b", MANAGER, WORKER)], [member("a")]), ["makeManager b"]);
  assert.deepEqual(plan([a, node("b", MANAGER)], [member("a"), member("b", true)]), ["promoteMember b"]);
});

test("a demoted manager leaves the members before it ceases to be one", () => {
  const nodes = [node("a", MANAGER), node("b", WORKER, MANAGER), node("c", MANAGER)];
  assert.deepEqual(plan(nodes, [member("a"), member("b"), member("c")]), ["removeMember b"]);
  assert.deepEqual(plan(nodes, [member("a"), member("c")]), ["makeWorker b"]);
});

test("nobody is removed when the rest would have no quorum", () => {
  const nodes = [node("a", MANAGER), node("b", WORKER, MANAGER), node("c", MANAGER)];
  const members = [member("a"), member("b"), member("c")];
  assert.deepEqual(plan(nodes, members, ["c"]), ["wait b"]);
  assert.deepEqual(plan([node("a", MANAGER), node("b", WORKER, MANAGER)], members.slice(0, 2)), ["removeMember b"]);
  // The dead one can go: the two that live are a quorum of two.
  assert.deepEqual(plan(nodes, members, ["b"]), ["removeMember b"]);
});

test("one at a time, and a member without a node goes too", () => {
  const nodes = [node("a", MANAGER), node("b", WORKER, MANAGER)];
  const members = ["a", "b", "c", "d", "e"].map((name) => member(name));
  assert.equal(plan(nodes, members).filter((step) => step.startsWith("removeMember")).length, 1);
});

test("a leader that is demoted hands over the lead first, to one that answers", () => {
  const nodes = [node("a", WORKER, MANAGER), node("b", MANAGER), node("c", MANAGER)];
  const members = ["a", "b", "c"].map((name) => member(name));
  assert.deepEqual(plan(nodes, members), ["moveLead b"]);
  assert.deepEqual(plan(nodes, [...members, member("d")], ["b"]), ["moveLead c"]);
});

test("only a Skein engine is promoted; the last manager and the quorum stay", () => {
  const { name, type } = MANAGER_PLUGIN;
  const docker = create(NodeSchema, {
    id: "x",
    description: { engine: { plugins: [{ type: "Network", name: "overlay" }] } },
  });
  assert.throws(() => checkPromotable(docker), /runs another engine/);
  checkPromotable(create(NodeSchema, { id: "x", description: { engine: { plugins: [{ type, name }] } } }));
  const view = (nodes: Node[]) => ({
    all: () => nodes as never[],
    get: () => undefined,
    byName: () => undefined,
    tasksOfService: () => [],
    tasksOfNode: () => [],
  });
  const [a, b, c] = [node("a", MANAGER), node("b", MANAGER), node("c", MANAGER, MANAGER, false)];
  assert.throws(() => checkDemotable(a, view([a])), /last manager/);
  assert.throws(() => checkDemotable(b, view([a, b, c])), /loss of quorum/);
  checkDemotable(c, view([a, b, c]));
});

function call(metadata: Record<string, string>, peer = "10.0.0.2:4711"): CallContext {
  const given = new Metadata();
  for (const [key, value] of Object.entries(metadata)) given.set(key, value);
  return { metadata: given, peer, signal: new AbortController().signal, call: { getAuthContext: () => undefined } };
}

test("a call passed on by a manager is its first caller's; by anybody else it is refused, and a second hop too", () => {
  const people = new Map([
    ["10.0.0.2:4711", { cn: "m2", ou: "swarm-manager", o: "swarm" }],
    ["10.0.0.3:4711", { cn: "w1", ou: "swarm-worker", o: "swarm" }],
    ["10.0.0.4:4711", { cn: "m9", ou: "swarm-manager", o: "another" }],
  ]);
  const direct = (context: CallContext) => people.get(context.peer);
  const callers = new Callers(direct);
  const authority = createAuthority(direct, "swarm", { blacklisted: (id) => id === "gone", demoted: () => false });
  const worker = { cn: "w7", ou: "swarm-worker", o: "swarm" };
  const metadata = forwardingMetadata(worker, "10.0.0.7:99");
  const inner = callers.unwrap(call(metadata), authority);
  assert.deepEqual(callers.identityOf(inner), worker);
  assert.equal(inner.peer, "10.0.0.7:99");
  assert.equal(callers.identityOf(callers.unwrap(call(forwardingMetadata(undefined, "x:1")), authority)), undefined);
  for (const peer of ["10.0.0.3:4711", "10.0.0.4:4711", "10.0.0.5:1"]) {
    assert.throws(() => callers.unwrap(call(metadata, peer), authority), { code: status.PERMISSION_DENIED });
  }
  const plain = call({});
  assert.equal(callers.unwrap(plain, authority), plain);
  assert.throws(() => refuseSecondHop(call(metadata)), { code: status.RESOURCE_EXHAUSTED });
});

test("writes go through a message and back, errors with their words", async () => {
  const service = create(ServiceSchema, { id: "s1" });
  const asked: unknown[] = [];
  const control = {
    updateService: async (...given: unknown[]) => {
      asked.push(given);
      return service;
    },
    removeNode: async () => {
      throw new SkeinError("invalid", "rpc error: code = FailedPrecondition desc = node is not down");
    },
  } as unknown as ControlApi;
  const send = async (request: WriteRequest) => {
    const answer = await performWrite(control, request, () => 7n);
    if (answer.error) throw writeError(answer.error);
    assert.equal(answer.revision, 7n);
    return answer.id;
  };
  const read = { service: (id: string) => (id === "s1" ? service : undefined) } as ControlApi;
  const writes = forwardedWrites(send, read);
  const spec = create(ServiceSpecSchema, { annotations: { name: "web" } });
  assert.equal(await writes.updateService("s1", 5n, spec, true), service);
  assert.deepEqual(asked, [["s1", 5n, spec, true]]);
  await assert.rejects(writes.removeNode("n", false), { code: "invalid", message: /node is not down/ });
  const unknown = await performWrite(control, { method: "close", id: "", flags: [], version: 0n } as never, () => 0n);
  assert.equal(unknown.error?.code, "notImplemented");
});

test("who leads is what the local store says; silence is no leader", async () => {
  const clock = new VirtualClock(1_000_000);
  let answer: StatusResponse | undefined = create(StatusResponseSchema, {
    leader: 1n,
    raftTerm: 2n,
    header: { memberId: 1n },
  });
  let changes = 0;
  const watch = new StandingWatch({
    status: async () => {
      if (!answer) throw new GrpcError(status.UNAVAILABLE, "gone");
      return answer;
    },
    alone: () => false,
    clock,
    onChange: () => changes++,
  });
  await clock.advanceAsync(10);
  assert.equal(watch.leading, true);
  assert.equal(watch.leaderlessMs, 0);
  answer = undefined;
  await clock.advanceAsync(1_000);
  assert.equal(watch.leading, false);
  assert.ok(watch.leaderlessMs >= 800 && watch.leaderlessMs <= 1_000, String(watch.leaderlessMs));
  answer = create(StatusResponseSchema, { leader: 9n, raftTerm: 3n, header: { memberId: 1n } });
  await clock.advanceAsync(200);
  assert.equal(watch.leading, false);
  assert.equal(watch.leaderlessMs, 0);
  assert.equal(changes, 3);
  watch.close();
});

test("a member's peer URL tells its node", () => {
  assert.equal(nodeOfPeerUrl(peerUrl("abc123")), "abc123");
  assert.equal(nodeOfPeerUrl("https://127.0.0.1:2380"), undefined);
});

test("sealed values: another key, another place, a changed byte are refused", () => {
  const key = randomBytes(32);
  const plain = Buffer.from("secret");
  const sealed = seal(key, plain, "secret/1");
  assert.equal(isSealed(sealed), true);
  assert.equal(Buffer.from(sealed).includes("secret"), false);
  assert.deepEqual(Buffer.from(unseal(key, sealed, "secret/1")), plain);
  assert.throws(() => unseal(randomBytes(32), sealed, "secret/1"));
  assert.throws(() => unseal(key, sealed, "secret/2"));
  const changed = Uint8Array.from(sealed);
  changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1;
  assert.throws(() => unseal(key, changed, "secret/1"));
  assert.deepEqual(Buffer.from(parseUnlockKey(formatUnlockKey(key))), key);
  for (const text of ["", "SWMKEY-1-", "SWMKEY-1-AAAA", formatUnlockKey(key).slice(1)]) {
    assert.throws(() => parseUnlockKey(text), /invalid key provided/);
  }
});

test("locked keys: nothing readable on disk, opened by their key only, and again in the clear", async () => {
  const dir = mkdtempSync(join(tmpdir(), "skein-lock-"));
  try {
    await bootstrapCluster(dir);
    const open = readCredentials(dir);
    assert.deepEqual(
      open?.dataKeys.map(({ generation, key }) => [generation, key.length]),
      [[0, 32]],
    );
    const key = randomBytes(32);
    lockKeysWith(dir, key);
    assert.doesNotMatch(readFileSync(certificatePaths(dir).key, "utf8"), /PRIVATE KEY|DATA KEY/);
    assert.deepEqual(readCredentials(dir), open);
    forgetUnlockKey(dir);
    assert.throws(() => readCredentials(dir), { name: "Locked" });
    assert.equal(unlockKeys(dir, randomBytes(32)), false);
    assert.throws(() => readCredentials(dir), { name: "Locked" });
    assert.equal(unlockKeys(dir, key), true);
    assert.deepEqual(readCredentials(dir), open);
    lockKeysWith(dir, undefined);
    assert.match(readFileSync(certificatePaths(dir).key, "utf8"), /PRIVATE KEY/);
    assert.deepEqual(readCredentials(dir), open);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
