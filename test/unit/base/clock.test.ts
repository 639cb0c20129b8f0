import assert from "node:assert/strict";
import { test } from "node:test";
import { sleep, VirtualClock } from "../../../src/base/clock.ts";

test("timers fire in order of time, then of creation", () => {
  const clock = new VirtualClock();
  const seen: string[] = [];
  clock.after(20, () => seen.push("b"));
  clock.after(10, () => seen.push("a"));
  clock.after(20, () => seen.push("c"));
  clock.advance(15);
  assert.deepEqual(seen, ["a"]);
  clock.advance(5);
  assert.deepEqual(seen, ["a", "b", "c"]);
  assert.equal(clock.now(), 20);
});

test("a period goes on until cancelled, and a timer may set another within the same step", () => {
  const clock = new VirtualClock(1000);
  let ticks = 0;
  const cancel = clock.every(10, () => ticks++);
  clock.after(5, () => clock.after(5, () => ticks++));
  clock.advance(35);
  assert.equal(ticks, 4);
  cancel();
  clock.advance(100);
  assert.equal(ticks, 4);
});

test("sleep ends with time, or with the signal's reason", async () => {
  const clock = new VirtualClock();
  let done = false;
  const first = sleep(clock, 50).then(() => {
    done = true;
  });
  await clock.advanceAsync(49);
  assert.equal(done, false);
  await clock.advanceAsync(1);
  await first;
  const abort = new AbortController();
  const second = sleep(clock, 50, abort.signal);
  abort.abort(new Error("enough"));
  await assert.rejects(second, /enough/);
  await assert.rejects(sleep(clock, 50, abort.signal), /enough/);
});
