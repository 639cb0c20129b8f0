import assert from "node:assert/strict";
import { test } from "node:test";
import { Doors } from "../../../src/network/overlay/doors.ts";
import { encodeDoor } from "../../../src/network/overlay/mesh.ts";

const value = (last: number) =>
  encodeDoor({ address: `10.0.0.${last}`, mac: `02:42:00:00:00:0${last}`, returns: true });
const create = (owner: string, key: string, last: number, networkId = "ingress") =>
  ({ kind: "create", networkId, key, owner, value: value(last) }) as const;
const end = (owner: string, key: string, networkId = "ingress") =>
  ({ kind: "delete", networkId, key, owner, value: new Uint8Array() }) as const;
const shown = (doors: Doors) =>
  [...doors.byNode()].map(([owner, { address }]) => `${owner} ${address.split(".")[3]}`).join(", ");

test("a door that was made anew stays when the end of the former one is heard late", () => {
  const doors = new Doors();
  assert.ok(doors.apply(create("a", "old", 1)));
  assert.ok(doors.apply(create("a", "new", 2)));
  assert.equal(shown(doors), "a 2");
  assert.ok(doors.apply(end("a", "old")));
  assert.equal(shown(doors), "a 2");
  assert.ok(doors.apply(end("a", "new")));
  assert.equal(shown(doors), "");
});

test("the end of another ingress network leaves the new one's doors, and so does the end of a namesake", () => {
  const doors = new Doors();
  doors.apply(create("a", "key", 1));
  doors.apply(create("a", "key", 2, "ingress2"));
  doors.apply(create("b", "key", 3, "ingress2"));
  assert.ok(doors.apply(end("a", "key")));
  assert.equal(shown(doors), "a 2, b 3");
  assert.equal(doors.apply(end("a", "key")), false, "said twice");
  assert.equal(doors.apply(create("b", "key", 3, "ingress2")), false, "said twice");
});

test("of two nodes that claim one address the later word comes last", () => {
  const doors = new Doors();
  doors.apply(create("a", "k", 1));
  doors.apply(create("b", "k", 2));
  doors.apply(create("a", "k2", 2));
  assert.equal(shown(doors), "b 2, a 2");
});

test("what is no door is none, and ends what was one", () => {
  const doors = new Doors();
  assert.equal(doors.apply({ ...create("a", "k", 1), value: Buffer.from("{}") }), false);
  doors.apply(create("a", "k", 1));
  assert.ok(doors.apply({ ...create("a", "k", 1), kind: "update", value: Buffer.from("{}") }));
  assert.equal(shown(doors), "");
});

test("resync takes the database's word for nodes that are there, and leaves the others to whoever judges them", () => {
  const doors = new Doors();
  doors.apply(create("gone", "k", 1));
  doors.apply(create("here", "stale", 2));
  doors.apply(create("other", "k", 4, "ingress2"));
  const entry = (owner: string, key: string, last: number) => ({
    key,
    owner,
    value: value(last),
    ownerAddress: "192.0.2.1",
    local: owner === "self",
  });
  const told = [entry("here", "k", 3), entry("missed", "k", 5), entry("self", "k", 6)];
  assert.equal(
    doors.resync("ingress", told, (owner) => owner !== "gone"),
    3,
  );
  assert.equal(shown(doors), "gone 1, other 4, here 3, missed 5");
  assert.equal(
    doors.resync("ingress", told, (owner) => owner !== "gone"),
    0,
  );
  assert.ok(doors.drop("gone"));
  assert.equal(doors.drop("gone"), false);
  const kept = doors.entries("ingress").map(({ owner, key }) => `${owner} ${key}`);
  assert.deepEqual(kept, ["here k", "missed k"]);
});
