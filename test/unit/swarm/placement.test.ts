/** Where a service's tasks may be is changed: those that are in a right place stay, the others move. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { NodeSchema, type Service, ServiceSchema, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { type TaskSpec, TaskSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { NodeStatus_State, PlacementSchema, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { misplaced } from "../../../src/swarm/manager/orchestrator/enforcer.ts";
import { versionOf } from "../../../src/swarm/store/objects.ts";
import { createWorld, service, type World } from "./support/world.ts";

async function place(world: World, id: string, ...constraints: string[]): Promise<void> {
  const current = world.control.service(id);
  assert.ok(current?.spec?.task);
  const spec = structuredClone(current.spec);
  if (spec.task) spec.task.placement = create(PlacementSchema, { constraints });
  await world.control.updateService(id, versionOf(current), spec, false);
  await world.run(20_000);
}

const places = (world: World, id: string) =>
  world
    .wanted(id)
    .map((task) => `${task.id} ${task.nodeId}`)
    .sort();

for (const [mode, replicas] of [
  ["global", 0],
  ["replicated", 3],
] as const) {
  test(`${mode}: tasks whose node fits the new constraints are left alone, in whatever order they come`, async () => {
    const world = await createWorld();
    for (const id of ["n1", "n2", "n3"]) await world.addNode(id);
    const spec = service(replicas, mode === "global" ? { mode: { case: "global", value: {} } } : {});
    const { id } = await world.control.createService(spec);
    await world.run(5_000);
    const first = places(world, id);
    assert.equal(first.length, 3);

    await place(world, id, "node.id!=n3");
    const kept = first.filter((one) => !one.endsWith(" n3"));
    const second = places(world, id);
    assert.deepEqual(
      second.filter((one) => kept.includes(one)),
      kept,
    );
    assert.equal(second.length, mode === "global" ? 2 : 3);
    assert.ok(second.every((one) => !one.endsWith(" n3")));

    // What was made by the former spec still obeys the present one: n2 loses what it must have.
    await world.control.updateNode("n2", ...labelled(world, "n2", { disk: "ssd" }));
    await world.control.updateNode("n1", ...labelled(world, "n1", { disk: "ssd" }));
    await place(world, id, "node.labels.disk==ssd");
    assert.deepEqual(places(world, id), second);
    await world.control.updateNode("n2", ...labelled(world, "n2", {}));
    await world.run(20_000);
    const third = places(world, id);
    assert.ok(third.every((one) => one.endsWith(" n1")));
    assert.ok(kept.filter((one) => one.endsWith(" n1")).every((one) => third.includes(one)));
    // Nothing of it was an update where no task had to move by it.
    if (mode === "global") assert.equal(world.control.service(id)?.updateStatus, undefined);
  });
}

function labelled(world: World, id: string, labels: Record<string, string>) {
  const node = world.control.node(id);
  assert.ok(node?.spec);
  const spec = structuredClone(node.spec);
  if (spec.annotations) spec.annotations.labels = labels;
  return [versionOf(node), spec] as const;
}

test("what must leave a node is told by the service's present placement, not by that under which a task was made", () => {
  const of = (...constraints: string[]) => create(TaskSpecSchema, { placement: { constraints } });
  const node = create(NodeSchema, { id: "n1", spec: {}, description: {}, status: { state: NodeStatus_State.READY } });
  const task = create(TaskSchema, {
    ...{ id: "t1", serviceId: "s1", nodeId: "n1", spec: of("node.id==n1"), desiredState: TaskState.RUNNING },
    status: { state: TaskState.RUNNING },
  });
  const by = (service: Service | undefined) => misplaced(node, [task], () => service).map(({ id }) => id);
  const withSpec = (spec: TaskSpec) => create(ServiceSchema, { id: "s1", spec: { task: spec } });
  assert.deepEqual(by(withSpec(of("node.id!=n1"))), ["t1"]);
  assert.deepEqual(by(withSpec(of())), []);
  assert.deepEqual(by(undefined), []);
  const elsewhere = create(TaskSchema, { ...task, spec: of("node.id!=n1") });
  assert.deepEqual(
    misplaced(node, [elsewhere], () => withSpec(of())),
    [],
  );
  assert.deepEqual(misplaced(node, [elsewhere], () => undefined).length, 1);
});
