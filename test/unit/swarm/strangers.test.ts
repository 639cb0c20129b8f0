import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../../src/base/clock.ts";
import { createLogger } from "../../../src/base/log.ts";
import { BoundedWarning, Strangers } from "../../../src/swarm/manager/strangers.ts";

test("strangers are few: in all, and from one address", () => {
  const strangers = new Strangers();
  const inside = Array.from({ length: 300 }, () => strangers.enter("10.0.0.1")).filter((leave) => leave !== undefined);
  assert.equal(inside.length, 256);
  const others = Array.from({ length: 300 }, (_, i) => strangers.enter(`10.0.1.${i}`)).filter(Boolean);
  assert.equal(others.length, 256, "512 in all");
  for (const leave of inside) leave();
  assert.ok(strangers.enter("10.0.0.1"), "who left makes room");
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
});
