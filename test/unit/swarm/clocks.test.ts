/** A leader's wall clock is set by an hour, in both directions, or is an hour from the last leader's: what waits, waits as long. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { NetworkSpecSchema, type ServiceSpec } from "#proto/docker/swarmkit/specs_pb.js";
import {
  RestartPolicy_RestartCondition,
  TaskState,
  UpdateStatus_UpdateState,
} from "#proto/docker/swarmkit/types_pb.js";
import { AllocatorState } from "../../../src/swarm/manager/allocator/state.ts";
import { Liveness } from "../../../src/swarm/manager/dispatcher/liveness.ts";
import { byAge } from "../../../src/swarm/manager/orchestrator/task.ts";
import { stateOf } from "../../../src/swarm/manager/tasks.ts";
import { createWorld, service, type World } from "./support/world.ts";

const HOUR = 3_600_000;
const BOTH = [HOUR, -HOUR] as const;
const image = (name: string) => ({ runtime: { case: "container" as const, value: { image: name } } });

async function withNodes(count: number): Promise<World> {
  const world = await createWorld();
  for (let i = 1; i <= count; i++) await world.addNode(`n${i}`);
  return world;
}

/** Seconds, by no wall clock, at which tasks of the service were made. */
function births(world: World, serviceId: string): number[] {
  const began = world.clock.steady();
  const at: number[] = [];
  world.store.onCommit((changes) => {
    for (const { kind, action, object } of changes) {
      if (kind !== "task" || action !== "create" || (object as Task).serviceId !== serviceId) continue;
      at.push(Math.round((world.clock.steady() - began) / 1000));
    }
  });
  return at;
}

test("restart delays are as long when the clock is set in the middle of them, and history is reaped from its old end", async () => {
  for (const jump of BOTH) {
    const world = await withNodes(1);
    world.fate = () => "reject";
    const { id } = await world.control.createService(service(1));
    const at = births(world, id);
    await world.run(7_000);
    const before = new Set(world.store.view.tasksOfService(id).map((task) => task.id));
    world.clock.set(jump);
    await world.run(24_000);
    assert.deepEqual(at, [0, 0, 5, 10, 15, 20, 25, 30], `set by ${jump} ms`);
    // One a try, five kept: those of before the jump are the older ones, whatever their stamps say.
    const tasks = world.store.view.tasksOfService(id);
    assert.ok(tasks.length <= 6, `${tasks.length} tasks`);
    assert.deepEqual(
      tasks.filter((task) => before.has(task.id)),
      [],
    );
    world.close();
  }
});

test("the younger task of a place is the one that was made later, though the clock was set back between", async () => {
  const world = await withNodes(2);
  const { id } = await world.control.createService(service(2));
  await world.run(1_000);
  const old = world.running(id);
  world.clock.set(-HOUR);
  world.stopMs = 3_000;
  const current = world.store.view.get("service", id);
  assert.ok(current?.spec);
  await world.control.updateService(
    id,
    current.meta?.version?.index ?? 0n,
    {
      ...current.spec,
      task: { ...current.spec.task, forceUpdate: 1n } as NonNullable<ServiceSpec["task"]>,
    },
    false,
  );
  await world.run(1_000);
  // Stop first: the new one waits for the old one's end, which takes three seconds.
  assert.equal(world.running(id).length, 1);
  await world.run(20_000);
  assert.equal(world.running(id).length, 2);
  for (const task of world.running(id)) {
    const fellow = old.find(({ slot }) => slot === task.slot);
    assert.ok(fellow && byAge(fellow, task) < 0);
  }
  world.close();
});

test("an update takes its delays and its time of watching, and ends, although the clock is set", async () => {
  for (const jump of [0, ...BOTH]) {
    const world = await withNodes(3);
    const spec = service(3, { update: { parallelism: 1n, delay: { seconds: 4n }, monitor: { seconds: 3n } } });
    const { id } = await world.control.createService(spec);
    await world.run(1_000);
    const current = world.store.view.get("service", id);
    assert.ok(current?.spec);
    const at = births(world, id);
    await world.control.updateService(
      id,
      current.meta?.version?.index ?? 0n,
      {
        ...current.spec,
        task: service(1, { task: image("new") }).task,
      },
      false,
    );
    await world.run(2_000);
    world.clock.set(jump);
    await world.run(13_000);
    assert.deepEqual(at, [0, 4, 8], `set by ${jump} ms`);
    const state = () => world.store.view.get("service", id)?.updateStatus?.state;
    assert.equal(state(), UpdateStatus_UpdateState.COMPLETED);
    world.close();
  }
});

test("a new leader whose clock is an hour from the last one's neither waits an hour nor forgets who is waited for", async () => {
  for (const skew of BOTH) {
    const world = await withNodes(1);
    world.fate = () => "fail";
    const { id } = await world.control.createService(
      service(1, {
        task: { ...image("bad"), restart: { delay: { seconds: 30n }, condition: RestartPolicy_RestartCondition.ANY } },
      }),
    );
    await world.run(2_000);
    const waiting = world.wanted(id);
    assert.equal(waiting[0]?.desiredState, TaskState.READY);
    // The last leader stamped by another clock.
    await world.store.update((tx) => {
      for (const task of world.store.view.tasksOfService(id)) {
        assert.ok(task.meta?.createdAt);
        const createdAt = timestampFromMs(timestampMs(task.meta.createdAt) + skew);
        tx.update("task", { ...task, meta: { ...task.meta, createdAt } });
      }
    });
    world.elect();
    await world.run(31_000);
    assert.ok(
      world.store.view
        .tasksOfService(id)
        .some((task) => task.id === waiting[0]?.id && task.desiredState >= TaskState.RUNNING),
      `skew ${skew}`,
    );
    world.close();
  }
});

test("no node is lost because the clock is set, and one that is silent is lost in time", async () => {
  for (const jump of BOTH) {
    const { clock } = await createWorld();
    const lost: string[] = [];
    const liveness = new Liveness(
      clock,
      () => 5_000,
      (nodeId) => lost.push(nodeId),
    );
    const a = liveness.register("a");
    liveness.register("b");
    await clock.advanceAsync(4_000);
    liveness.beat("a", a.id);
    clock.set(jump);
    for (let i = 0; i < 5; i++) {
      liveness.beat("a", a.id);
      await clock.advanceAsync(3_000);
    }
    assert.deepEqual(lost, ["b"], `set by ${jump} ms`);
    liveness.close(new Error("over") as never);
  }
});

test("addresses rest a minute and no longer, by whatever clock they were given back", async () => {
  for (const jump of BOTH) {
    const world = await withNodes(1);
    await world.control.createNetwork(create(NetworkSpecSchema, { annotations: { name: "net" } }));
    await world.run(100);
    world.fate = () => "complete";
    const task = {
      ...image("x"),
      networks: [{ target: "net" }],
      restart: { condition: RestartPolicy_RestartCondition.NONE },
    };
    await world.control.createService(service(2, { task }));
    await world.run(2_000);
    const dead = world.store.view.all("task").filter((one) => stateOf(one) === TaskState.COMPLETE);
    const networkId = dead[0]?.networks[0]?.network?.id ?? "";
    const ended = new Set(dead.map((one) => one.networks[0]?.addresses[0]));
    assert.equal(ended.size, 2);
    world.clock.set(jump);
    const state = AllocatorState.of(world.store.view, world.clock);
    assert.ok(!ended.has(state.allocate(networkId, "new", world.clock.steady())));
    await world.run(61_000);
    const given = new Set<string | undefined>();
    for (let i = 0; i < 252; i++) given.add(state.allocate(networkId, `late-${i}`, world.clock.steady()));
    assert.ok(
      [...ended].every((address) => given.has(address)),
      `set by ${jump} ms`,
    );
    world.close();
  }
});
