import assert from "node:assert/strict";
import { test } from "node:test";
import { NodeSpec_Availability, type ServiceSpec } from "#proto/docker/swarmkit/specs_pb.js";
import {
  NodeStatus_State,
  RestartPolicy_RestartCondition,
  TaskState,
  UpdateConfig_FailureAction,
  UpdateConfig_UpdateOrder,
  UpdateStatus_UpdateState,
} from "#proto/docker/swarmkit/types_pb.js";
import { AllocatorState } from "../../../src/swarm/manager/allocator/state.ts";
import { stateOf } from "../../../src/swarm/manager/tasks.ts";
import { versionOf } from "../../../src/swarm/store/objects.ts";
import { createWorld, service, type World } from "./support/world.ts";

async function withNodes(count: number): Promise<World> {
  const world = await createWorld();
  for (let i = 1; i <= count; i++) await world.addNode(`n${i}`);
  await world.run(100);
  return world;
}

const update = async (world: World, id: string, spec: ServiceSpec, rollback = false) => {
  const current = world.control.service(id);
  assert.ok(current);
  return world.control.updateService(id, versionOf(current), spec, rollback);
};

const image = (name: string) => ({ runtime: { case: "container", value: { image: name } } }) as const;
const imageOf = (task: { spec?: ServiceSpec["task"] }) =>
  task.spec?.runtime.case === "container" ? task.spec.runtime.value.image : "";
const updateState = (world: World, id: string) => world.control.service(id)?.updateStatus?.state;

test("a replicated service is spread, scaled up and down, and removed", async () => {
  const world = await withNodes(3);
  const { id } = await world.control.createService(service(6));
  await world.run(1000);
  const perNode = () =>
    Object.values(Object.groupBy(world.running(id), (task) => task.nodeId)).map((list) => list?.length);
  assert.deepEqual(perNode(), [2, 2, 2]);
  assert.deepEqual(
    world
      .running(id)
      .map((task) => Number(task.slot))
      .sort(),
    [1, 2, 3, 4, 5, 6],
  );
  const spec = world.control.service(id)?.spec;
  assert.ok(spec);
  await update(world, id, {
    ...spec,
    mode: { case: "replicated", value: { ...service(3).mode.value, replicas: 3n } },
  } as ServiceSpec);
  await world.run(1000);
  assert.deepEqual(perNode(), [1, 1, 1]);
  assert.equal(world.store.view.tasksOfService(id).length, 3, "removed tasks are reaped");
  await world.control.removeService(id);
  await world.run(1000);
  assert.equal(world.store.view.all("task").length, 0);
  world.close();
});

test("a failed task comes back in its slot after the restart delay, with a bounded history", async () => {
  const world = await withNodes(1);
  world.fate = () => "fail";
  const { id } = await world.control.createService(service(1));
  await world.run(1000);
  const [first] = world.store.view.tasksOfService(id).filter((task) => stateOf(task) === TaskState.FAILED);
  assert.equal(first?.desiredState, TaskState.SHUTDOWN);
  const [next] = world.wanted(id);
  assert.equal(next?.slot, first?.slot);
  assert.equal(next?.desiredState, TaskState.READY, "it waits for the delay");
  await world.run(3900);
  assert.equal(world.wanted(id)[0]?.desiredState, TaskState.READY);
  await world.run(1000);
  assert.notEqual(world.wanted(id)[0]?.id, first?.id);
  await world.run(60_000);
  assert.equal(world.store.view.tasksOfService(id).length, 5);
  world.fate = () => "run";
  await world.run(6_000);
  assert.equal(world.running(id).length, 1);
  world.close();
});

test("restart conditions and attempts are obeyed", async () => {
  const world = await withNodes(1);
  world.fate = (task) => (imageOf(task) === "done" ? "complete" : "fail");
  const restart = (condition: RestartPolicy_RestartCondition, maxAttempts = 0n) => ({
    condition,
    maxAttempts,
    delay: { seconds: 1n },
  });
  const { ON_FAILURE, NONE, ANY } = RestartPolicy_RestartCondition;
  const done = await world.control.createService(
    service(1, { task: { ...image("done"), restart: restart(ON_FAILURE) } }),
  );
  const never = await world.control.createService(service(1, { task: { ...image("bad"), restart: restart(NONE) } }));
  const twice = await world.control.createService(service(1, { task: { ...image("bad"), restart: restart(ANY, 2n) } }));
  await world.run(30_000);
  assert.deepEqual(
    [done, never, twice].map(({ id }) => world.store.view.tasksOfService(id).length),
    [1, 1, 3],
  );
  assert.deepEqual(
    [done, never, twice].map(({ id }) => world.wanted(id).length),
    [0, 0, 0],
  );
  world.close();
});

test("a replacement that fails while it waits is replaced after the delay, and its attempts count", async () => {
  const world = await withNodes(1);
  world.fate = () => "reject";
  const endless = await world.control.createService(service(1));
  const restart = { condition: RestartPolicy_RestartCondition.ANY, delay: { seconds: 2n } };
  const three = await world.control.createService(
    service(1, { task: { ...image("bad"), restart: { ...restart, maxAttempts: 3n } } }),
  );
  const inTen = await world.control.createService(
    service(1, { task: { ...image("bad"), restart: { ...restart, maxAttempts: 2n, window: { seconds: 10n } } } }),
  );
  const made = new Map<string, number[]>();
  const began = world.clock.now();
  world.store.onCommit((changes) => {
    for (const { kind, action, object } of changes) {
      if (kind !== "task" || action !== "create") continue;
      made.set(object.serviceId, [...(made.get(object.serviceId) ?? []), world.clock.now() - began]);
    }
  });
  await world.run(31_000);
  const times = (id: string) => (made.get(id) ?? []).map((at) => Math.round(at / 1000));
  // The first replacement is made at once and prepares; every other one after the delay of the one before it.
  assert.deepEqual(times(endless.id), [0, 0, 5, 10, 15, 20, 25, 30]);
  assert.deepEqual(times(three.id), [0, 0, 2, 4]);
  assert.deepEqual(times(inTen.id).slice(0, 3), [0, 0, 2]);
  assert.equal(world.wanted(three.id).length, 0);
  world.close();
});

test("tasks of a lost node are replaced at once, those of a drained one when stopped", async () => {
  const world = await withNodes(3);
  const { id } = await world.control.createService(service(6));
  await world.run(1000);
  world.frozen.add("n1");
  await world.setNode("n1", { state: NodeStatus_State.DOWN });
  await world.run(300);
  assert.equal(world.running(id).filter((task) => task.nodeId !== "n1").length, 6, "no restart delay for a lost node");
  await world.setNode("n2", { availability: NodeSpec_Availability.DRAIN });
  await world.run(400);
  assert.deepEqual(new Set(world.running(id).map((task) => task.nodeId)), new Set(["n3"]));
  assert.equal(world.running(id).length, 6);
  world.close();
});

test("a global service has one task on each node that takes it", async () => {
  const world = await withNodes(3);
  await world.setNode("n3", { labels: { zone: "b" } });
  const spec = service(0, {
    mode: { case: "global", value: {} },
    task: { ...image("x"), placement: { constraints: ["node.labels.zone!=b"] } },
  });
  const { id } = await world.control.createService(spec);
  await world.run(1000);
  const nodes = () =>
    world
      .running(id)
      .map((task) => task.nodeId)
      .sort();
  assert.deepEqual(nodes(), ["n1", "n2"]);
  await world.addNode("n4");
  await world.run(1000);
  assert.deepEqual(nodes(), ["n1", "n2", "n4"]);
  await world.setNode("n1", { availability: NodeSpec_Availability.DRAIN });
  await world.setNode("n3", { labels: {} });
  await world.run(1000);
  assert.deepEqual(nodes(), ["n2", "n3", "n4"]);
  await world.setNode("n4", { labels: { zone: "b" } });
  await world.run(10_000);
  assert.deepEqual(nodes(), ["n2", "n3"]);
  world.close();
});

test("labels that change move tasks of a replicated service", async () => {
  const world = await withNodes(2);
  await world.setNode("n1", { labels: { disk: "ssd" } });
  const { id } = await world.control.createService(
    service(2, {
      task: {
        ...image("x"),
        placement: { constraints: ["node.labels.disk==ssd"] },
        restart: { condition: 2, delay: {} },
      },
    }),
  );
  await world.run(1000);
  assert.deepEqual(
    world.running(id).map((task) => task.nodeId),
    ["n1", "n1"],
  );
  await world.setNode("n2", { labels: { disk: "SSD" } });
  await world.setNode("n1", { labels: {} });
  await world.run(2000);
  assert.deepEqual(
    world.running(id).map((task) => task.nodeId),
    ["n2", "n2"],
  );
  world.close();
});

test("a rolling update replaces slot by slot, stop first, with delay and monitoring", async () => {
  const world = await withNodes(2);
  const config = { parallelism: 1n, delay: { seconds: 2n }, monitor: { seconds: 5n } };
  const spec = service(3, { task: image("one"), update: config });
  const { id } = await world.control.createService(spec);
  await world.run(1000);
  let most = 0;
  let least = 3;
  const stop = world.store.onCommit(() => {
    most = Math.max(most, world.running(id).length);
    least = Math.min(least, world.running(id).length);
  });
  await update(world, id, { ...spec, task: service(3, { task: image("two") }).task });
  await world.run(100);
  assert.equal(updateState(world, id), UpdateStatus_UpdateState.UPDATING);
  await world.run(1500);
  assert.deepEqual(world.running(id).map(imageOf).sort(), ["one", "one", "two"]);
  await world.run(6000);
  assert.deepEqual(world.running(id).map(imageOf), ["two", "two", "two"]);
  assert.equal(updateState(world, id), UpdateStatus_UpdateState.UPDATING, "the last one is still watched");
  await world.run(6000);
  assert.equal(updateState(world, id), UpdateStatus_UpdateState.COMPLETED);
  assert.equal(world.control.service(id)?.updateStatus?.message, "update completed");
  assert.deepEqual([least, most], [2, 3]);
  stop();
  world.close();
});

test("start-first never has fewer than all running", async () => {
  const world = await withNodes(2);
  const spec = service(3, {
    task: image("one"),
    update: { parallelism: 2n, order: UpdateConfig_UpdateOrder.START_FIRST, delay: {} },
  });
  const { id } = await world.control.createService(spec);
  await world.run(1000);
  let least = 3;
  let most = 0;
  world.store.onCommit(() => {
    const up = world.store.view.tasksOfService(id).filter((task) => stateOf(task) === TaskState.RUNNING).length;
    least = Math.min(least, up);
    most = Math.max(most, up);
  });
  await update(world, id, { ...spec, task: service(3, { task: image("two") }).task });
  await world.run(20_000);
  assert.deepEqual(world.running(id).map(imageOf), ["two", "two", "two"]);
  assert.equal(updateState(world, id), UpdateStatus_UpdateState.COMPLETED);
  assert.equal(least, 3);
  assert.ok(most > 3 && most <= 5, `${most}`);
  world.close();
});

test("a default that is said, and fresh credentials, start no task anew", async () => {
  const world = await withNodes(1);
  const task = (more: object = {}) => service(0, { task: { ...image("one"), ...more } }).task;
  const { id } = await world.control.createService({ ...service(2), task: task() });
  await world.run(1000);
  const before = world.running(id).map((one) => one.id);
  await update(world, id, {
    ...service(3),
    task: task({
      runtime: {
        case: "container",
        value: { image: "one", stopGracePeriod: { seconds: 10n }, dnsConfig: {}, pullOptions: { registryAuth: "new" } },
      },
      resources: { limits: {}, reservations: {} },
      restart: { condition: RestartPolicy_RestartCondition.ANY, delay: { seconds: 5n } },
      placement: {},
    }),
  });
  await world.run(30_000);
  const now = world.running(id).map((one) => one.id);
  assert.equal(now.length, 3);
  assert.ok(before.every((one) => now.includes(one)));
  await update(world, id, { ...service(3), task: task({ restart: { delay: { seconds: 6n } } }) });
  await world.run(30_000);
  assert.ok(
    world.running(id).every((one) => !now.includes(one.id)),
    "another delay is another spec",
  );
  world.close();
});

test("an update that fails pauses, goes on or rolls back as told", async () => {
  const { PAUSE, CONTINUE, ROLLBACK } = UpdateConfig_FailureAction;
  const after = async (failureAction: UpdateConfig_FailureAction) => {
    const world = await withNodes(2);
    world.fate = (task) => (imageOf(task) === "bad" ? "fail" : "run");
    const spec = service(4, { task: image("good"), update: { failureAction, parallelism: 1n, delay: {} } });
    const { id } = await world.control.createService(spec);
    await world.run(1000);
    await update(world, id, { ...spec, task: service(4, { task: image("bad") }).task });
    await world.run(40_000);
    const { updateStatus } = world.control.service(id) ?? {};
    const images = world.running(id).map(imageOf);
    world.close();
    return { state: updateStatus?.state, message: updateStatus?.message ?? "", images };
  };
  const paused = await after(PAUSE);
  assert.equal(paused.state, UpdateStatus_UpdateState.PAUSED);
  assert.match(paused.message, /^update paused due to failure or early termination of task \w{25}$/);
  assert.equal(paused.images.length, 3);
  const back = await after(ROLLBACK);
  assert.equal(back.state, UpdateStatus_UpdateState.ROLLBACK_COMPLETED);
  assert.deepEqual(back.images, ["good", "good", "good", "good"]);
  const on = await after(CONTINUE);
  assert.deepEqual(on.images, []);
});

test("a rollback by hand brings the former spec back, and an update may follow", async () => {
  const world = await withNodes(1);
  const spec = service(2, { task: image("one") });
  const { id } = await world.control.createService(spec);
  await world.run(1000);
  await assert.rejects(update(world, id, spec, true), /does not have a previous spec/);
  await update(world, id, { ...spec, task: service(2, { task: image("two") }).task });
  await world.run(30_000);
  const before = world.running(id).map((task) => task.id);
  await update(world, id, spec, true);
  await world.run(30_000);
  assert.deepEqual(world.running(id).map(imageOf), ["one", "one"]);
  assert.ok(world.running(id).every((task) => !before.includes(task.id)));
  assert.equal(updateState(world, id), UpdateStatus_UpdateState.ROLLBACK_COMPLETED);
  await update(world, id, spec, true);
  await world.run(30_000);
  assert.deepEqual(world.running(id).map(imageOf), ["two", "two"], "and again: as it was before the rollback");
  await update(world, id, { ...spec, task: service(2, { task: image("three") }).task });
  await world.run(30_000);
  assert.deepEqual(world.running(id).map(imageOf), ["three", "three"]);
  world.close();
});

test("an update fits while nobody else changed the spec, whatever the managers wrote meanwhile", async () => {
  const world = await withNodes(1);
  const spec = service(1, { task: image("one") });
  const first = await world.control.createService(spec);
  const put = (version: bigint, name: string, rollback = false) =>
    world.control.updateService(first.id, version, { ...spec, task: service(1, { task: image(name) }).task }, rollback);
  const read = () => versionOf(world.control.service(first.id) ?? first);
  await world.run(1000);
  assert.notEqual(read(), versionOf(first), "the allocator wrote");
  await put(versionOf(first), "two");
  const second = read();
  await world.run(30_000);
  assert.notEqual(read(), second, "the updater wrote its progress");
  await assert.rejects(put(versionOf(first), "lost"), /update out of sequence/, "read before the last change");
  await assert.rejects(put(read() + 1n, "lost"), /update out of sequence/);
  await put(second, "three");
  const third = read();
  await world.run(30_000);
  await put(read(), "", true);
  await assert.rejects(put(third, "lost"), /update out of sequence/, "what was rolled back comes not again by chance");
  await put(read(), "four");
  world.close();
});

test("a job runs to its number of completions and again when updated", async () => {
  const world = await withNodes(2);
  world.fate = () => "complete";
  const spec = service(0, { mode: { case: "replicatedJob", value: { totalCompletions: 5n, maxConcurrent: 2n } } });
  const { id } = await world.control.createService(spec);
  let most = 0;
  world.store.onCommit(() => {
    const up = world.store.view.tasksOfService(id).filter((task) => stateOf(task) <= TaskState.RUNNING);
    most = Math.max(most, up.length);
  });
  await world.run(3000);
  const complete = () => world.store.view.tasksOfService(id).filter((task) => stateOf(task) === TaskState.COMPLETE);
  assert.equal(complete().length, 5);
  assert.equal(most, 2);
  await world.run(10_000);
  assert.equal(world.store.view.tasksOfService(id).length, 5);
  await update(world, id, { ...spec, task: service(0, { task: image("again") }).task });
  await world.run(5000);
  assert.deepEqual(complete().map(imageOf).sort(), [...Array(5).fill("again"), ...Array(5).fill("busybox")]);
  const slots = world.store.view.tasksOfService(id).map(({ slot }) => Number(slot));
  assert.deepEqual([...new Set(slots)].sort(), [0, 1, 2, 3, 4], "slots of jobs begin at 0, as Docker's");
  for (const name of ["c", "d", "e", "f", "g"]) {
    await update(world, id, { ...spec, task: service(0, { task: image(name) }).task });
    await world.run(5000);
  }
  assert.deepEqual([...new Set(complete().map(imageOf))].sort(), ["c", "d", "e", "f", "g"]);
  assert.equal(complete().length, 25, "the history of each slot is five tasks");
  const global = await world.control.createService(service(0, { mode: { case: "globalJob", value: {} } }));
  await world.run(3000);
  assert.deepEqual(
    world.store.view
      .tasksOfService(global.id)
      .map((task) => [task.nodeId, stateOf(task)])
      .sort(),
    [
      ["n1", TaskState.COMPLETE],
      ["n2", TaskState.COMPLETE],
    ],
  );
  world.close();
});

test("a task that finds no node says why, and is placed when one comes", async () => {
  const world = await withNodes(2);
  const resources = { reservations: { memoryBytes: 16n << 30n } };
  const { id } = await world.control.createService(service(1, { task: { ...image("big"), resources } }));
  await world.run(1000);
  const [task] = world.wanted(id);
  assert.equal(task?.status?.err, "no suitable node (insufficient resources on 2 nodes)");
  await world.setNode("n1", { availability: NodeSpec_Availability.PAUSE });
  await world.run(100);
  assert.equal(
    world.wanted(id)[0]?.status?.err,
    "no suitable node (1 node not available for new tasks; insufficient resources on 1 node)",
  );
  await world.addNode("n3", { memory: 32n << 30n });
  await world.run(1000);
  assert.equal(world.running(id)[0]?.nodeId, "n3");
  world.close();
});

test("whatever happens, each address has one owner and the state is that of the store", async () => {
  const world = await withNodes(4);
  let seed = 7;
  const random = (n: number) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return Math.floor((seed / 2147483648) * n);
  };
  world.fate = (task) => (Number.parseInt(task.id.slice(-1), 36) % 5 === 0 ? "fail" : "run");
  const network = (name: string) => ({ annotations: { name } });
  const { createNetwork } = world.control;
  const { create } = await import("@bufbuild/protobuf");
  const { NetworkSpecSchema } = await import("#proto/docker/swarmkit/specs_pb.js");
  for (const name of ["a", "b"]) await createNetwork(create(NetworkSpecSchema, network(name)));
  await world.run(100);
  const ids: string[] = [];
  for (let round = 0; round < 60; round++) {
    const what = random(5);
    const id = ids[random(ids.length)];
    if (what < 2 || !id) {
      const networks = [{ target: "a" }, { target: "b" }].slice(random(2));
      const endpoint = { ports: random(2) ? [{ targetPort: 80 }] : [] };
      ids.push(
        (await world.control.createService(service(random(6), { task: { ...image("x"), networks }, endpoint }))).id,
      );
    } else if (what === 2) {
      await world.control.removeService(id);
      ids.splice(ids.indexOf(id), 1);
    } else if (what === 3) {
      const spec = world.control.service(id)?.spec;
      if (spec) await update(world, id, { ...spec, mode: service(random(8)).mode });
    } else {
      const state = random(2) ? NodeStatus_State.DOWN : NodeStatus_State.READY;
      await world.setNode(`n${1 + random(4)}`, { state });
    }
    await world.run(random(3000));
  }
  await world.run(20_000);
  const { view } = world.store;
  const seen = new Map<string, string>();
  const claim = (networkId: string, address: string, owner: string) => {
    const key = `${networkId} ${address}`;
    assert.equal(seen.get(key) ?? owner, owner, `${key} is ${seen.get(key)}'s`);
    seen.set(key, owner);
  };
  for (const s of view.all("service"))
    for (const vip of s.endpoint?.virtualIps ?? []) claim(vip.networkId, vip.addr, s.id);
  for (const node of view.all("node"))
    for (const a of node.attachments) claim(a.network?.id ?? "", a.addresses[0] ?? "", node.id);
  for (const task of view.all("task")) {
    if (stateOf(task) > TaskState.RUNNING && task.desiredState > TaskState.RUNNING) continue;
    for (const a of task.networks) claim(a.network?.id ?? "", a.addresses[0] ?? "", task.id);
  }
  assert.ok(seen.size > 10);
  assert.deepEqual(world.allocator.state.dump(), AllocatorState.of(view, world.clock).dump());
  world.close();
});
