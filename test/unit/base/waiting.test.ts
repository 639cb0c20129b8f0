import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../../src/base/clock.ts";
import { createLogger } from "../../../src/base/log.ts";
import { waitFor } from "../../../src/base/waiting.ts";

test("a long wait is told again and again, a short one never", async () => {
  const clock = new VirtualClock();
  const lines: string[] = [];
  const log = createLogger((line) => lines.push(line), "info");
  const { promise, resolve } = Promise.withResolvers<string>();
  const result = waitFor("containerd", promise, log, clock);
  clock.advance(3_000);
  assert.deepEqual(lines, []);
  clock.advance(6_000);
  assert.equal(lines.length, 2);
  assert.match(lines[1] ?? "", /still waiting.*for=containerd seconds=8/);
  resolve("done");
  assert.equal(await result, "done");
  clock.advance(60_000);
  assert.equal(lines.length, 2);
});
