/** Tasks that ended for good, and what brings their places back to life: updates, rollbacks, and nothing else. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { NodeSpec_Availability, type ServiceSpec } from "#proto/docker/swarmkit/specs_pb.js";
import {
  RestartPolicy_RestartCondition,
  TaskState,
  UpdateConfig_FailureAction,
  UpdateStatus_UpdateState,
} from "#proto/docker/swarmkit/types_pb.js";
import { stateOf } from "../../../src/swarm/manager/tasks.ts";
import { versionOf } from "../../../src/swarm/store/objects.ts";
import { CLUSTER, createWorld, service, type World } from "./support/world.ts";

const { ANY, NONE, ON_FAILURE } = RestartPolicy_RestartCondition;

async function withNodes(count: number): Promise<World> {
  const world = await createWorld();
  for (let i = 1; i <= count; i++) await world.addNode(`n${i}`);
  await world.run(100);
  return world;
}

const work = (image: string, condition = ANY, maxAttempts = 0n) => ({
  runtime: { case: "container", value: { image } } as const,
  restart: { condition, maxAttempts, delay: { seconds: 1n } },
});
const task = (...options: Parameters<typeof work>) => service(0, { task: work(...options) }).task;
const imageOf = ({ spec }: { spec?: ServiceSpec["task"] }) =>
  spec?.runtime.case === "container" ? spec.runtime.value.image : "";
/** What each image does. */
const fates = (world: World) => {
  world.fate = (one) => (imageOf(one) === "bad" ? "fail" : imageOf(one) === "once" ? "complete" : "run");
};

async function change(world: World, id: string, how: (spec: ServiceSpec) => void): Promise<void> {
  const current = world.control.service(id);
  assert.ok(current?.spec);
  const spec = structuredClone(current.spec);
  how(spec);
  await world.control.updateService(id, versionOf(current), spec, false);
}

const setHistory = (world: World, limit: bigint) =>
  world.store.update((tx) => {
    const cluster = tx.get("cluster", CLUSTER);
    assert.ok(cluster?.spec?.orchestration);
    const orchestration = { ...cluster.spec.orchestration, taskHistoryRetentionLimit: limit };
    tx.update("cluster", { ...cluster, spec: { ...cluster.spec, orchestration } });
  });

test("an update begins anew where tasks ended for good: done, or their attempts used up", async () => {
  const world = await withNodes(3);
  fates(world);
  const once = await world.control.createService(service(2, { task: work("once", NONE) }));
  const tried = await world.control.createService(service(1, { task: work("bad", ON_FAILURE, 2n) }));
  const everywhere = await world.control.createService(
    service(0, { mode: { case: "global", value: {} }, task: work("once", NONE) }),
  );
  await world.run(20_000);
  const count = (id: string) => world.store.view.tasksOfService(id).length;
  assert.deepEqual(
    [once, tried, everywhere].map(({ id }) => [count(id), world.wanted(id).length]),
    [
      [2, 0],
      [3, 0],
      [3, 0],
    ],
  );
  for (const { id } of [once, tried, everywhere]) await change(world, id, (spec) => (spec.task = task("good")));
  await world.run(60_000);
  assert.deepEqual(
    [once, tried, everywhere].map(({ id }) => world.running(id).length),
    [2, 1, 3],
  );
  for (const { id } of [once, tried, everywhere]) {
    assert.equal(world.control.service(id)?.updateStatus?.state, UpdateStatus_UpdateState.COMPLETED);
  }
  world.close();
});

test("an update that fails without restarts is rolled back in the places it emptied", async () => {
  const world = await withNodes(2);
  fates(world);
  const update = { parallelism: 1n, failureAction: UpdateConfig_FailureAction.ROLLBACK };
  const { id } = await world.control.createService(service(2, { task: work("good", NONE), update }));
  await world.run(2000);
  await change(world, id, (spec) => (spec.task = task("bad", NONE)));
  await world.run(60_000);
  assert.equal(world.control.service(id)?.updateStatus?.state, UpdateStatus_UpdateState.ROLLBACK_COMPLETED);
  assert.deepEqual(world.running(id).map(imageOf), ["good", "good"]);
  world.close();
});

test("an update of a global service leaves paused nodes alone until they are active", async () => {
  const world = await withNodes(3);
  const spec = service(0, { mode: { case: "global", value: {} }, task: work("one") });
  const { id } = await world.control.createService(spec);
  await world.run(2000);
  const onNodes = () =>
    world
      .running(id)
      .map((one) => `${one.nodeId} ${imageOf(one)}`)
      .sort();
  await world.setNode("n2", { availability: NodeSpec_Availability.PAUSE });
  await change(world, id, (next) => (next.task = task("two")));
  await world.run(60_000);
  assert.deepEqual(onNodes(), ["n1 two", "n2 one", "n3 two"]);
  assert.equal(world.control.service(id)?.updateStatus?.state, UpdateStatus_UpdateState.COMPLETED);
  await world.setNode("n2", { availability: NodeSpec_Availability.ACTIVE });
  await world.run(20_000);
  assert.deepEqual(onNodes(), ["n1 two", "n2 two", "n3 two"]);
  world.close();
});

test("another leader knows how often was tried", async () => {
  const world = await withNodes(3);
  fates(world);
  const spec = service(1, { task: work("bad", ANY, 7n) });
  const { id } = await world.control.createService(spec);
  const job = await world.control.createService(
    service(0, {
      mode: { case: "replicatedJob", value: { totalCompletions: 2n, maxConcurrent: 1n } },
      task: work("bad", ON_FAILURE, 7n),
    }),
  );
  await world.run(60_000);
  const tried = (of: string) => world.store.view.tasksOfService(of).map((one) => `${one.slot} ${stateOf(one)}`);
  assert.deepEqual(tried(id), Array(8).fill(`1 ${TaskState.FAILED}`));
  assert.deepEqual(tried(job.id), Array(8).fill(`0 ${TaskState.FAILED}`), "the first slot of a job, on whatever nodes");
  for (let i = 0; i < 3; i++) {
    world.elect();
    await world.run(60_000);
  }
  assert.equal(tried(id).length, 8);
  assert.equal(tried(job.id).length, 8);
  world.close();
});

test("what keeps failing keeps a bounded history, also as a job; without any history nothing that is done is done again", async () => {
  const world = await withNodes(2);
  fates(world);
  const mode = { case: "replicatedJob", value: { totalCompletions: 2n, maxConcurrent: 2n } } as const;
  const job = await world.control.createService(service(0, { mode, task: work("bad", ON_FAILURE) }));
  await world.run(120_000);
  const perPlace = (id: string) =>
    Map.groupBy(world.store.view.tasksOfService(id), (one) => one.slot || one.nodeId).values();
  for (const tasks of perPlace(job.id)) assert.ok(tasks.length <= 6, `${tasks.length} tasks of a slot`);
  await setHistory(world, 0n);
  const seen = new Set<string>();
  world.store.onCommit((changes) => {
    for (const { kind, object, action } of changes) if (kind === "task" && action === "create") seen.add(object.id);
  });
  const once = await world.control.createService(service(2, { task: work("once", NONE) }));
  const onceJob = await world.control.createService(service(0, { mode, task: work("once", ON_FAILURE) }));
  await world.control.removeService(job.id);
  await world.run(60_000);
  world.elect();
  await world.run(60_000);
  assert.equal(seen.size, 4, "each began once");
  assert.equal(world.store.view.tasksOfService(once.id).length, 2);
  assert.equal(world.store.view.tasksOfService(onceJob.id).length, 2);
  world.close();
});
