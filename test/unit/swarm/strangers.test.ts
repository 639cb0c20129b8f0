import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../../src/base/clock.ts";
import { createLogger } from "../../../src/base/log.ts";
import { BoundedWarning, Crowd } from "../../../src/swarm/manager/strangers.ts";

test("a crowd is small: in all, and from one address; who makes it large has to go, the first first", () => {
  const crowd = new Crowd(6, 4);
  const gone: string[] = [];
  const enter = (address: string, name: string) => crowd.enter(address, () => gone.push(name));
  const leave = ["a1", "a2", "a3", "a4"].map((name) => enter("10.0.0.1", name));
  enter("10.0.0.1", "a5");
  assert.deepEqual(gone, ["a1"], "four of one address");
  enter("10.0.0.2", "b1");
  enter("10.0.0.2", "b2");
  assert.deepEqual(gone, ["a1"]);
  enter("10.0.0.3", "c1");
  assert.deepEqual(gone, ["a1", "a2"], "six in all: the largest makes room");
  assert.equal(crowd.size, 6);
  leave[0]?.();
  leave[1]?.();
  assert.equal(crowd.size, 6, "who was turned out leaves once");
  leave[2]?.();
  leave[3]?.();
  enter("10.0.0.3", "c2");
  enter("10.0.0.3", "c3");
  assert.deepEqual(gone, ["a1", "a2"], "who left made room");
});

test("a flood from many addresses leaves a newcomer his time", () => {
  const crowd = new Crowd(512, 256);
  let served = true;
  for (let i = 0; i < 512; i++) crowd.enter(`10.1.${i % 4}.0`, () => {});
  crowd.enter("10.9.9.9", () => {
    served = false;
  });
  for (let i = 0; i < 10_000; i++) crowd.enter(`10.1.${i % 4}.0`, () => {});
  assert.ok(served);
  assert.equal(crowd.size, 512);
});

test("a flood of refusals is a line in ten seconds, with their number", async () => {
  const lines: string[] = [];
  const clock = new VirtualClock(0);
  const warning = new BoundedWarning(
    createLogger((line) => lines.push(line), "warn"),
    clock,
    "refused",
  );
  for (let i = 0; i < 1000; i++) warning.tell({ peer: i });
  assert.equal(lines.length, 1);
  await clock.advanceAsync(10_000);
  assert.equal(lines.length, 2);
  assert.match(lines[1] ?? "", /peer=999.* times=999/);
  await clock.advanceAsync(60_000);
  assert.equal(lines.length, 2, "nothing new, nothing told");
  for (let i = 0; i < 3; i++) warning.tell({ peer: i });
  warning.close();
  assert.equal(lines.length, 4);
  assert.match(lines[3] ?? "", /peer=2.* times=2/);
  warning.tell({ peer: 4 });
  await clock.advanceAsync(60_000);
  assert.equal(lines.length, 4, "closed: nothing waits to be told");
});
