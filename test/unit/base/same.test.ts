import assert from "node:assert/strict";
import { test } from "node:test";
import { create, equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import { TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { sameData } from "../../../src/base/same.ts";

const task = (image: string) =>
  create(TaskSchema, {
    id: "t",
    slot: 3n,
    spec: { runtime: { case: "container", value: { image, env: ["A=1"], labels: { a: "b" } } } },
    status: { state: 512, runtimeStatus: { case: "container", value: { containerId: "c", pid: 4 } } },
    networks: [{ network: { id: "n", spec: { annotations: { name: "net" } } }, addresses: ["10.0.0.2/24"] }],
  });

test("messages that say the same are the same, also when one came over the wire", () => {
  const one = task("alpine");
  assert.ok(sameData(one, task("alpine")));
  assert.ok(sameData(one, fromBinary(TaskSchema, toBinary(TaskSchema, one))));
  assert.ok(sameData({ ...one, meta: undefined }, one));
});

test("one difference anywhere is one", () => {
  const one = task("alpine");
  const others = [
    task("nginx"),
    { ...one, slot: 4n },
    { ...one, status: undefined },
    { ...one, networks: [] },
    { ...one, networks: [...one.networks, ...one.networks] },
    { ...one, annotations: { ...create(TaskSchema, { annotations: { name: "x" } }).annotations } },
  ];
  for (const other of others) {
    assert.equal(sameData(one, other), false);
    assert.equal(sameData(other, one), false);
  }
  assert.equal(sameData(Uint8Array.of(1, 2), Uint8Array.of(1, 3)), false);
  assert.ok(sameData(Uint8Array.of(1, 2), Buffer.of(1, 2)));
  assert.equal(sameData([1], { 0: 1, length: 1 }), false);
  assert.equal(sameData(null, {}), false);
});

test("what is inherited is not taken for what is set", () => {
  const inherited = Object.create({ a: 1 });
  assert.equal(sameData(inherited, { a: 2 }), false);
  assert.equal(sameData({ a: 1 }, inherited), false);
});

test("what is the same here is equal to protobuf, too", () => {
  const one = task("alpine");
  const decoded = fromBinary(TaskSchema, toBinary(TaskSchema, one));
  assert.equal(sameData(one, decoded), equals(TaskSchema, one, decoded));
});
