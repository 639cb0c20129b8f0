import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { AssignmentChange_AssignmentAction, type AssignmentsMessage } from "#proto/docker/swarmkit/dispatcher_pb.js";
import {
  LogSubscriptionOptionsSchema,
  type PublishLogsMessage,
  PublishLogsMessageSchema,
  type SubscriptionMessage,
} from "#proto/docker/swarmkit/logbroker_pb.js";
import { NodeSchema, SecretSchema, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { VirtualClock } from "../../../src/base/clock.ts";
import { GrpcError, grpcCodeOf, status } from "../../../src/base/grpc.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { AssignmentSet } from "../../../src/swarm/manager/dispatcher/assignments.ts";
import { ToldBalancers } from "../../../src/swarm/manager/dispatcher/balancers.ts";
import { Liveness } from "../../../src/swarm/manager/dispatcher/liveness.ts";
import { refusesConnections } from "../../../src/swarm/manager/dispatcher/refusal.ts";
import { firstKeys, rotateKeys, SUBSYSTEMS } from "../../../src/swarm/manager/keys.ts";
import { LogBroker } from "../../../src/swarm/manager/log-broker.ts";
import { MemoryBackend } from "../../../src/swarm/store/backend.ts";
import { Store } from "../../../src/swarm/store/store.ts";

const openStore = () => Store.open(new MemoryBackend(), new VirtualClock(), nullLogger);

const shown = (message: AssignmentsMessage | undefined) =>
  message?.changes.map(({ action, assignment }) => {
    const sign = action === AssignmentChange_AssignmentAction.REMOVE ? "-" : "+";
    return `${sign}${assignment?.item.case} ${assignment?.item.value?.id}`;
  });

test("assignments: tasks with what they need, once, and taken back with the last user", async () => {
  const store = await openStore();
  const task = (id: string, state: TaskState) =>
    create(TaskSchema, {
      id,
      nodeId: "n",
      status: { state },
      desiredState: TaskState.RUNNING,
      spec: { runtime: { case: "container", value: { image: "x", secrets: [{ secretId: "k", secretName: "k" }] } } },
    });
  await store.update((tx) => {
    tx.create("secret", create(SecretSchema, { id: "k" }));
    tx.create("task", task("a", TaskState.ASSIGNED));
    tx.create("task", task("b", TaskState.PENDING));
  });
  const set = new AssignmentSet("n");
  const first = set.complete(store.view);
  assert.deepEqual(shown(first), ["+secret k", "+task a"]);
  assert.deepEqual([first.appliesTo, first.resultsIn], ["", "1"]);
  const move = (id: string, state: TaskState, desiredState = TaskState.RUNNING) =>
    store.update((tx) => {
      const current = tx.get("task", id);
      assert.ok(current?.status);
      tx.update("task", { ...current, desiredState, status: { ...current.status, state } });
    });
  await move("a", TaskState.RUNNING);
  assert.equal(set.next(store.view, ["a"], []), undefined, "its own report is no news to the agent");
  await move("b", TaskState.ASSIGNED);
  const second = set.next(store.view, ["b"], []);
  assert.deepEqual(shown(second), ["+task b"]);
  assert.deepEqual([second?.appliesTo, second?.resultsIn], ["1", "2"]);
  await move("a", TaskState.RUNNING, TaskState.SHUTDOWN);
  assert.deepEqual(shown(set.next(store.view, ["a"], [])), ["+task a"]);
  await store.update((tx) => tx.remove("task", "a"));
  assert.deepEqual(shown(set.next(store.view, ["a"], [])), ["-task a"]);
  await store.update((tx) => {
    const secret = tx.get("secret", "k");
    assert.ok(secret);
    tx.update("secret", secret);
  });
  assert.deepEqual(shown(set.next(store.view, [], [["secret", "k"]])), ["+secret k"]);
  await move("b", TaskState.FAILED);
  assert.deepEqual(shown(set.next(store.view, ["b"], [])), ["-secret k"]);

  await store.update((tx) => tx.create("task", task("c", TaskState.ASSIGNED)));
  assert.deepEqual(shown(set.next(store.view, ["c"], [])), ["+secret k", "+task c"]);
  // Agents apply what is taken back after what is given: what the next task needs must not be taken with the last one.
  await move("c", TaskState.SHUTDOWN);
  await store.update((tx) => tx.create("task", task("d", TaskState.ASSIGNED)));
  assert.deepEqual(shown(set.next(store.view, ["c", "d"], [])), ["+task d"]);
});

test("assignments: only our own nodes are told of IPv6 on overlays", async () => {
  const store = await openStore();
  const network = {
    id: "net",
    spec: { ipv6Enabled: true },
    ipam: { driver: {}, configs: [{ subnet: "10.0.1.0/24" }, { subnet: "fd00:1::/64" }] },
  };
  await store.update((tx) => {
    for (const [id, plugins] of [
      ["ours", [{ type: "Manager", name: "skein" }]],
      ["docker", [{ type: "Network", name: "overlay" }]],
    ] as const) {
      tx.create("node", create(NodeSchema, { id, description: { engine: { plugins: [...plugins] } } }));
      const networks = [{ network, addresses: ["10.0.1.5/24", "fd00:1::5/64"] }];
      const status = { state: TaskState.ASSIGNED };
      tx.create("task", create(TaskSchema, { id: `on-${id}`, nodeId: id, networks, status }));
    }
  });
  const told = (node: string) => {
    const item = new AssignmentSet(node).complete(store.view).changes[0]?.assignment?.item;
    const attachment = item?.case === "task" ? item.value.networks[0] : undefined;
    const subnets = attachment?.network?.ipam?.configs.map(({ subnet }) => subnet);
    return [attachment?.network?.spec?.ipv6Enabled, subnets, attachment?.addresses];
  };
  assert.deepEqual(told("ours"), [true, ["10.0.1.0/24", "fd00:1::/64"], ["10.0.1.5/24", "fd00:1::5/64"]]);
  assert.deepEqual(told("docker"), [false, ["10.0.1.0/24"], ["10.0.1.5/24"]]);
});

test("a node of Docker's is given a task half a second after its balancer's address on the task's networks", () => {
  const told = new ToldBalancers();
  const network = (id: string, name = "overlay") => ({ network: { id, spec: { driverConfig: { name } } } });
  const node = (...ids: string[]) => create(NodeSchema, { id: "n", attachments: ids.map((id) => network(id)) });
  const task = (id: string, ...networks: ReturnType<typeof network>[]) => create(TaskSchema, { id, networks });
  assert.equal(told.waitFor(task("none"), 1_000), 0);
  assert.equal(told.waitFor(task("host", network("h", "host")), 1_000), 0);
  const asks = task("t", network("a"), network("b"));
  assert.equal(told.waitFor(asks, 1_000), 2_000, "asked again with the address, or when patience ends");
  told.tell(node("a"), 1_200);
  assert.equal(told.waitFor(asks, 1_250), 1_750);
  told.tell(node("a", "b"), 1_300);
  assert.equal(told.waitFor(asks, 1_300), 500);
  told.tell(node("a", "b"), 1_350);
  assert.equal(told.waitFor(asks, 1_790), 10);
  assert.equal(told.waitFor(asks, 1_800), 0);
  told.tell(node("a"), 1_900);
  const next = task("u", network("b"));
  assert.equal(told.waitFor(next, 1_900), 2_000, "taken back with the last task");
  assert.equal(told.waitFor(next, 3_900), 0, "a network without an address to give: the node says so");
  assert.equal(told.waitFor(next, 3_900), 0);
});

test("liveness: gossip's opinion makes it two periods, or fifteen seconds; a stall of our own is nobody's fault", () => {
  const clock = new VirtualClock();
  const lost: string[] = [];
  let silent: boolean | undefined;
  const liveness = new Liveness(
    clock,
    () => 1000,
    (node) => lost.push(`${clock.now()} ${node}`),
    () => silent,
  );
  const first = liveness.register("a");
  clock.advance(1_900);
  liveness.beat("a", first.id);
  silent = true;
  clock.advance(2_000);
  assert.deepEqual(lost.splice(0), ["3900 a"]);
  liveness.register("b");
  silent = false;
  clock.advance(2_500);
  silent = true;
  clock.advance(250);
  assert.deepEqual(lost.splice(0), ["6650 b"], "suspected later");
  liveness.register("c");
  silent = false;
  clock.advance(14_999);
  assert.deepEqual(lost, []);
  clock.advance(1);
  assert.deepEqual(lost.splice(0), ["21650 c"]);
  silent = undefined;
  liveness.register("d");
  clock.advance(3_000);
  assert.deepEqual(lost.splice(0), ["24650 d"]);
});

test("liveness: a host that says that only its engine is away has fifteen seconds, one that says nothing two periods", async () => {
  const clock = new VirtualClock();
  const lost: string[] = [];
  let refuses = true;
  const liveness = new Liveness(
    clock,
    () => 1000,
    (node) => lost.push(`${clock.now()} ${node}`),
    () => true,
    async () => refuses,
  );
  const first = liveness.register("a");
  await clock.advanceAsync(10_000);
  assert.deepEqual(lost, []);
  liveness.beat("a", first.id);
  await clock.advanceAsync(14_999);
  assert.deepEqual(lost, []);
  await clock.advanceAsync(1);
  assert.deepEqual(lost.splice(0), ["25000 a"]);
  refuses = false;
  liveness.expect("b");
  await clock.advanceAsync(4_999);
  assert.deepEqual(lost, []);
  await clock.advanceAsync(1);
  assert.deepEqual(lost.splice(0), ["30000 b"]);
  refuses = true;
  liveness.expect("c");
  await clock.advanceAsync(14_000);
  assert.deepEqual(lost, []);
  refuses = false;
  await clock.advanceAsync(1_000);
  assert.equal(lost.length, 1, "its host went, too");
});

test("a port that nobody listens on tells that the host is there; one that is listened on does not", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;
  assert.equal(await refusesConnections("127.0.0.1", port), false);
  server.close();
  await once(server, "close");
  assert.equal(await refusesConnections("127.0.0.1", port), true);
});

test("liveness: three silent periods, six after a manager's start, three registrations in eight seconds", () => {
  const clock = new VirtualClock();
  const lost: string[] = [];
  const liveness = new Liveness(
    clock,
    () => 5000,
    (node, message) => lost.push(`${clock.now()} ${node} ${message}`),
  );
  liveness.expect("old");
  const session = liveness.register("n");
  clock.advance(14_000);
  assert.ok(liveness.beat("n", session.id) >= 4500);
  clock.advance(15_001);
  assert.deepEqual(lost, ["29000 n heartbeat failure"]);
  assert.ok(session.ended.signal.aborted);
  clock.advance(1000);
  assert.deepEqual(lost[1], '30000 old heartbeat failure for node in "unknown" state');
  assert.throws(
    () => liveness.beat("n", session.id),
    (error) => grpcCodeOf(error) === status.NOT_FOUND,
  );
  for (let i = 0; i < 3; i++) liveness.register("n");
  assert.throws(
    () => liveness.register("n"),
    (error) => grpcCodeOf(error) === status.UNAVAILABLE,
  );
  clock.advance(8000);
  const latest = liveness.register("n");
  assert.throws(
    () => liveness.check("n", "other"),
    (error) => grpcCodeOf(error) === status.INVALID_ARGUMENT,
  );
  assert.equal(liveness.find("n", latest.id), latest);
  liveness.close(new GrpcError(status.ABORTED, "node must disconnect"));
});

test("network keys: three of each, distinct times, the middle one stays through a rotation", () => {
  const first = firstKeys(undefined, 100);
  assert.deepEqual(
    first.keys.map((key) => Number(key.lamportTime)),
    [101, 102, 103, 104, 105, 106],
  );
  const second = rotateKeys(first);
  for (const subsystem of SUBSYSTEMS) {
    const times = (ring: typeof first) =>
      ring.keys.filter((key) => key.subsystem === subsystem).map((key) => key.lamportTime);
    assert.equal(times(second).length, 3);
    assert.deepEqual(times(second).slice(0, 2), times(first).slice(1));
  }
  assert.equal(new Set(second.keys.map((key) => key.lamportTime)).size, 6);
  assert.equal(second.clock, 108n);
});

test("logs: the nodes of a service are asked, their messages come together, absent ones are named", async () => {
  const store = await openStore();
  await store.update((tx) => {
    for (const [id, nodeId] of [
      ["a", "n1"],
      ["b", "n2"],
      ["c", "n3"],
    ])
      tx.create("task", create(TaskSchema, { id, nodeId, serviceId: "s" }));
  });
  let caller = "";
  const identity = () => ({ cn: caller, ou: "swarm-worker", o: "c" });
  const broker = new LogBroker(store, { caller: identity, require: identity, isDemoted: () => false });
  const handlers = broker.broker();
  const contexts: AbortController[] = [];
  const context = () => {
    const abort = new AbortController();
    contexts.push(abort);
    return { signal: abort.signal, metadata: undefined as never, peer: "", call: undefined as never };
  };
  const listen = (nodeId: string) => {
    caller = nodeId;
    const stream = handlers.listenSubscriptions(undefined as never, context())[Symbol.asyncIterator]();
    return stream.next();
  };
  const asked = [listen("n1"), listen("n2")];
  const lines: string[] = [];
  const reading = (async () => {
    const options = create(LogSubscriptionOptionsSchema);
    for await (const { data } of broker.subscribe(
      { serviceIds: ["s"], nodeIds: [], taskIds: [] },
      options,
      new AbortController().signal,
    )) {
      lines.push(new TextDecoder().decode(data));
    }
  })();
  for (const [at, nodeId] of ["n1", "n2"].entries()) {
    const message = (await asked[at])?.value as SubscriptionMessage;
    assert.deepEqual(message.selector?.serviceIds, ["s"]);
    assert.ok(message.options);
    const publish = async function* (from: string): AsyncGenerator<PublishLogsMessage> {
      const messages = [
        { context: { nodeId: from, taskId: "a", serviceId: "s" }, data: new TextEncoder().encode(from) },
      ];
      yield create(PublishLogsMessageSchema, { subscriptionId: message.id, messages });
      yield create(PublishLogsMessageSchema, { subscriptionId: message.id, close: true });
    };
    caller = nodeId;
    if (at === 0) await assert.rejects(handlers.publishLogs(publish("n9"), context()), /that they own/);
    else await handlers.publishLogs(publish(nodeId), context());
  }
  await assert.rejects(reading, /incomplete log stream.*node n3 is not available/);
  assert.deepEqual(lines, ["n2"]);
  for (const abort of contexts) abort.abort();
  broker.close();
});
