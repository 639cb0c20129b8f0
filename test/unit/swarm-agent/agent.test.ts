import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  AssignmentChange_AssignmentAction as Action,
  type AssignmentChangeSchema,
  AssignmentsMessage_Type as Type,
} from "#proto/docker/swarmkit/dispatcher_pb.js";
import { NodeTLSInfoSchema, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { VirtualClock } from "../../../src/base/clock.ts";
import { GrpcError, status } from "../../../src/base/grpc.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { Agent } from "../../../src/swarm/agent/agent.ts";
import { Remotes } from "../../../src/swarm/agent/remotes.ts";
import { memoryTaskDb, type StoredTask } from "../../../src/swarm/agent/task-db.ts";
import { assignments, FakeExecutor, FakeManager, task } from "./support.ts";

type Change = MessageInitShape<typeof AssignmentChangeSchema>;
type Item = NonNullable<NonNullable<Change["assignment"]>["item"]>;
const update = (item: Item): Change => ({ action: Action.UPDATE, assignment: { item } });
const remove = (item: Item): Change => ({ action: Action.REMOVE, assignment: { item } });
const complete = (...changes: Change[]) => assignments({ type: Type.COMPLETE, resultsIn: "1", changes });
const next = (from: number, ...changes: Change[]) =>
  assignments({ type: Type.INCREMENTAL, appliesTo: `${from}`, resultsIn: `${from + 1}`, changes });

async function start(stored: StoredTask[] = []) {
  const clock = new VirtualClock();
  const manager = new FakeManager();
  const executor = new FakeExecutor();
  const db = memoryTaskDb(stored);
  const agent = new Agent({
    nodeId: "n1",
    executor,
    remotes: new Remotes([{ nodeId: "", addr: "10.0.0.9:2377" }]),
    db,
    clock,
    log: nullLogger,
    random: () => 0.5,
    connect: manager.connect,
    tlsInfo: () => create(NodeTLSInfoSchema),
  });
  await agent.start();
  const settle = async (ms = 0) => {
    for (let i = 0; i < 5; i++) await clock.advanceAsync(i === 0 ? ms : 0);
  };
  await settle();
  return { agent, clock, db, executor, manager, settle };
}

describe("the agent", () => {
  it("registers, beats, and tells the host what concerns it", async () => {
    const { agent, executor, manager, settle } = await start();
    assert.equal(manager.sessions.length, 1);
    assert.equal(manager.last.request.sessionId, "");
    assert.deepEqual(manager.heartbeats, ["session-1"]);
    await settle(5_000);
    assert.equal(manager.heartbeats.length, 2);
    assert.deepEqual(executor.managers, [["10.0.0.1"]]);
    assert.equal(executor.configured.length, 1);
    await agent.close();
    assert.equal(manager.closed, manager.connections);
  });

  it("comes back over the same connection when only the leader changed, over a new one when the manager is lost", async () => {
    const { agent, manager, settle } = await start();
    manager.last.messages.fail(new GrpcError(status.ABORTED, "another manager leads"));
    await settle(1_000);
    assert.deepEqual([manager.sessions.length, manager.connections, manager.closed], [2, 1, 0]);
    manager.last.messages.fail(new GrpcError(status.UNAVAILABLE, "connection dropped"));
    await settle(1_000);
    assert.deepEqual([manager.sessions.length, manager.connections, manager.closed], [3, 2, 1]);
    manager.last.assignments[0]?.end();
    await settle(1_000);
    assert.deepEqual([manager.sessions.length, manager.connections, manager.closed], [4, 2, 1]);
    manager.last.messages.fail(new GrpcError(status.ABORTED, "node must disconnect"));
    await settle();
    await agent.close();
    assert.equal(manager.closed, manager.connections);
  });

  it("tells the host only of changes", async () => {
    const { agent, executor, manager, settle } = await start();
    const key = (lamportTime: bigint) => ({ subsystem: "networking:gossip", lamportTime });
    manager.last.messages.push(manager.message({ networkBootstrapKeys: [key(1n)] }));
    manager.last.messages.push(manager.message({ networkBootstrapKeys: [key(1n)] }));
    manager.last.messages.push(
      manager.message({
        networkBootstrapKeys: [key(1n), key(2n)],
        node: { id: "n1", spec: {}, meta: { version: { index: 7n } } },
      }),
    );
    await settle();
    assert.deepEqual(
      executor.keys.map((keys) => keys.map((k) => Number(k.lamportTime))),
      [[1], [1, 2]],
    );
    assert.equal(executor.configured.length, 1);
    manager.last.messages.push(manager.message({ node: { id: "n1", spec: {}, VXLANUDPPort: 4790 } }));
    await settle();
    assert.equal(executor.configured.length, 2);
    await agent.close();
  });

  it("runs what it is assigned and reports it in order", async () => {
    const { agent, executor, manager, settle } = await start();
    manager.last.assignments[0]?.push(complete(update({ case: "task", value: task("t1") })));
    await settle();
    assert.deepEqual(executor.controllers.get("t1")?.calls, ["prepare", "start", "wait"]);
    assert.equal(manager.updates.at(-1), "t1:RUNNING");
    await agent.close();
  });

  it("gives a task its own secrets, and no others", async () => {
    const { agent, executor, manager, settle } = await start();
    const value = task("t1", {
      spec: { runtime: { case: "container", value: { image: "x", secrets: [{ secretId: "a" }] } } },
    });
    manager.last.assignments[0]?.push(
      complete(
        update({ case: "task", value }),
        update({ case: "secret", value: { id: "a", spec: { data: Buffer.from("A") } } }),
        update({ case: "secret", value: { id: "b", spec: { data: Buffer.from("B") } } }),
      ),
    );
    await settle();
    const dependencies = executor.controllers.get("t1")?.dependencies;
    assert.equal(Buffer.from(dependencies?.secret("a")?.spec?.data ?? []).toString(), "A");
    assert.equal(dependencies?.secret("b"), undefined);
    await agent.close();
  });

  it("removes what a complete set does not list, and what an increment removes", async () => {
    const { agent, db, executor, manager, settle } = await start([
      { task: task("old", { status: { state: TaskState.RUNNING } }), removing: false },
    ]);
    assert.deepEqual(executor.controllers.get("old")?.calls, ["wait"]);
    const [stream] = manager.last.assignments;
    stream?.push(complete(update({ case: "task", value: task("t1") }), update({ case: "task", value: task("t2") })));
    await settle();
    assert.deepEqual(executor.controllers.get("old")?.calls.slice(1), ["wait cut", "shutdown", "remove", "close"]);
    stream?.push(next(1, remove({ case: "task", value: { id: "t1" } })));
    await settle();
    assert.equal(executor.controllers.get("t1")?.calls.at(-1), "close");
    assert.equal(executor.controllers.get("t2")?.calls.at(-1), "wait");
    assert.deepEqual(
      db.load().map((stored) => stored.task.id),
      ["t2"],
    );
    await agent.close();
  });

  it("ends its tasks when a manager says that this node was removed, and for no other refusal", async () => {
    const { agent, db, executor, manager, settle } = await start();
    manager.last.assignments[0]?.push(complete(update({ case: "task", value: task("t1") })));
    await settle();
    const refuse = async (words: string) => {
      manager.last.messages.fail(new GrpcError(status.PERMISSION_DENIED, `Permission denied: ${words}`));
      await settle(1_000);
    };
    await refuse("unauthorized peer role");
    await refuse("node n2 was removed from swarm");
    assert.equal(executor.controllers.get("t1")?.calls.at(-1), "wait");
    await refuse("node n1 was removed from swarm");
    assert.deepEqual(executor.controllers.get("t1")?.calls.slice(-3), ["shutdown", "remove", "close"]);
    assert.deepEqual(db.load(), []);
    await agent.close();
  });

  it("on a full disk: new tasks are refused, those it has are reported, removed and kept", async () => {
    const { agent, db, executor, manager, settle } = await start();
    manager.last.assignments[0]?.push(
      complete(update({ case: "task", value: task("old") }), update({ case: "task", value: task("gone") })),
    );
    await settle();
    db.put = () => {
      throw new Error("ENOSPC: no space left on device, write");
    };
    manager.last.assignments[0]?.push(
      next(1, update({ case: "task", value: task("new") }), remove({ case: "task", value: task("gone") })),
    );
    executor.controllers.get("old")?.end("wait", new Error("it died"));
    await settle();
    assert.equal(executor.controllers.get("new"), undefined);
    assert.deepEqual(manager.updates.slice(-2).sort(), ["new:REJECTED", "old:FAILED"]);
    assert.ok(executor.controllers.get("gone")?.calls.includes("remove"));
    assert.equal(manager.sessions.length, 1);
    await agent.close();
  });

  it("asks for the complete set again when one was missed", async () => {
    const { agent, executor, manager, settle } = await start();
    const [stream] = manager.last.assignments;
    stream?.push(complete());
    stream?.push(next(5, update({ case: "task", value: task("t1") })));
    await settle();
    assert.equal(manager.last.assignments.length, 2);
    assert.ok(executor.controllers.has("t1"));
    await agent.close();
  });

  it("takes up stored tasks, and finishes removals that were under way", async () => {
    const { agent, db, executor, manager } = await start([
      { task: task("runs", { status: { state: TaskState.RUNNING } }), removing: false },
      { task: task("goes", { status: { state: TaskState.SHUTDOWN } }), removing: true },
    ]);
    assert.deepEqual(executor.controllers.get("runs")?.calls, ["wait"]);
    assert.deepEqual(executor.controllers.get("goes")?.calls, ["remove", "close"]);
    assert.deepEqual(manager.updates, ["runs:RUNNING"]);
    assert.deepEqual(
      db.load().map((stored) => stored.task.id),
      ["runs"],
    );
    await agent.close();
  });

  it("waits with a stored task until its secrets come", async () => {
    const stored = task("t1", {
      status: { state: TaskState.READY },
      spec: { runtime: { case: "container", value: { image: "x", secrets: [{ secretId: "a" }] } } },
    });
    const { agent, executor, manager, settle } = await start([{ task: stored, removing: false }]);
    assert.deepEqual(executor.controllers.get("t1")?.calls, []);
    manager.last.assignments[0]?.push(
      complete(update({ case: "secret", value: { id: "a" } }), update({ case: "task", value: stored })),
    );
    await settle();
    assert.deepEqual(executor.controllers.get("t1")?.calls, ["start", "wait"]);
    await agent.close();
  });

  it("refuses a task that the host refuses", async () => {
    const { agent, db, manager, settle } = await start();
    manager.last.assignments[0]?.push(complete(update({ case: "task", value: task("t1", { serviceId: "refused" }) })));
    await settle();
    assert.deepEqual(manager.updates, ["t1:REJECTED"]);
    assert.equal(db.load()[0]?.task.status?.err, "not here");
    await agent.close();
  });

  it("comes back with its session id, backing off, and tells everything again", async () => {
    const { agent, clock, executor, manager, settle } = await start();
    manager.last.assignments[0]?.push(complete(update({ case: "task", value: task("t1") })));
    await settle();
    manager.updates.length = 0;
    manager.last.messages.fail(new Error("connection lost"));
    await settle(1_000);
    assert.equal(manager.sessions.length, 2);
    assert.equal(manager.last.request.sessionId, "session-1");
    assert.deepEqual(manager.updates, ["t1:RUNNING"]);
    assert.deepEqual(executor.controllers.get("t1")?.calls, ["prepare", "start", "wait"]);
    // Registered sessions reset the backoff; failures in a row double it, up to 8 s.
    const began = clock.now();
    const connect = manager.connect;
    const times: number[] = [];
    manager.connect = connect;
    Object.defineProperty(manager, "message", {
      value: () => {
        times.push(clock.now() - began);
        throw new Error("no");
      },
    });
    manager.last.messages.fail(new Error("connection lost"));
    await settle(20_000);
    const gaps = times.map((time, i) => time - (times[i - 1] ?? 0));
    assert.deepEqual(gaps.slice(0, 7), [50, 150, 350, 750, 1550, 3150, 4000]);
    await agent.close();
  });

  it("keeps the session when one status is of a task that is not its own", async () => {
    const { agent, manager, settle } = await start();
    manager.foreign.add("t1");
    manager.last.assignments[0]?.push(
      complete(update({ case: "task", value: task("t1") }), update({ case: "task", value: task("t2") })),
    );
    await settle();
    assert.equal(manager.sessions.length, 1);
    assert.equal(manager.updates.at(-1), "t2:RUNNING");
    await agent.close();
  });

  it("opens a new session when the host's description changes", async () => {
    const { agent, executor, manager, settle } = await start();
    executor.hostname = "w2";
    await settle(20_000);
    await settle(100);
    assert.equal(manager.sessions.length, 2);
    assert.equal(manager.last.request.description?.hostname, "w2");
    await agent.close();
  });

  it("takes no more work once it leaves, and removes what it has", async () => {
    const { agent, db, executor, manager, settle } = await start();
    const [stream] = manager.last.assignments;
    stream?.push(complete(update({ case: "task", value: task("t1") })));
    await settle();
    const left = agent.removeTasks();
    stream?.push(next(1, update({ case: "task", value: task("t2") })));
    await settle();
    await left;
    assert.deepEqual(executor.controllers.get("t1")?.calls.slice(3), ["wait cut", "shutdown", "remove", "close"]);
    assert.equal(executor.controllers.has("t2"), false);
    assert.deepEqual(db.load(), []);
    await agent.close();
  });

  const attachment = (id: string, init = {}) =>
    task(id, {
      serviceId: "",
      spec: { runtime: { case: "attachment", value: { containerId: "c1" } } },
      networks: [{ addresses: ["10.0.1.9/24"] }],
      ...init,
    });
  const request = { target: "side", addresses: [], containerId: "c1" };

  it("gets an address for a container, and gives it back", async () => {
    const { agent, manager, settle } = await start();
    const [stream] = manager.last.assignments;
    stream?.push(complete());
    const asked = agent.attachNetwork(request);
    await settle();
    stream?.push(next(1, update({ case: "task", value: attachment("a1") })));
    const { attachmentId, task: assigned } = await asked;
    assert.equal(attachmentId, "a1");
    assert.deepEqual(assigned.networks[0]?.addresses, ["10.0.1.9/24"]);
    await settle();
    assert.equal(manager.updates.at(-1), "a1:RUNNING");
    await agent.detachNetwork("a1");
    await settle();
    assert.deepEqual(manager.detached, ["a1"]);
    assert.equal(manager.updates.at(-1), "a1:COMPLETE");
    await agent.close();
  });

  it("does not wait for an address for ever, and does not keep one that comes late", async () => {
    const { agent, clock, manager, settle } = await start();
    const asked = assert.rejects(agent.attachNetwork(request), {
      message:
        "attaching to network failed, make sure your network options are correct and check manager logs: context deadline exceeded",
    });
    await settle();
    await clock.advanceAsync(20_000);
    await asked;
    await settle();
    assert.deepEqual(manager.detached, ["a1"]);
    await assert.rejects(agent.attachNetwork({ ...request, target: "nowhere" }), {
      code: "notFound",
      message: "Could not attach to network nowhere: rpc error: code = NotFound desc = network nowhere not found",
    });
    await agent.close();
  });

  it("gives back after a restart what it could not before", async () => {
    const { agent, manager } = await start([
      { task: attachment("kept", { status: { state: TaskState.RUNNING } }), removing: false },
      { task: attachment("ended", { status: { state: TaskState.COMPLETE } }), removing: false },
    ]);
    assert.deepEqual(manager.detached, ["ended"]);
    await agent.close();
  });
});
