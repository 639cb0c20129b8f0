/** Where a service's tasks may be is changed: those that are in a right place stay, the others move. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { PlacementSchema } from "#proto/docker/swarmkit/types_pb.js";
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
