import assert from "node:assert/strict";
import { test } from "node:test";
import { AsyncQueue, Emitter, KeyedMutex, Mutex } from "../../../src/base/async.ts";

test("a mutex runs jobs one after another, past failures", async () => {
  const mutex = new Mutex();
  const seen: string[] = [];
  const slow = mutex.run(async () => {
    await new Promise((resolve) => setImmediate(resolve));
    seen.push("slow");
    throw new Error("no");
  });
  const fast = mutex.run(() => seen.push("fast"));
  await assert.rejects(slow, /no/);
  await fast;
  assert.deepEqual(seen, ["slow", "fast"]);
});

test("different keys do not wait for each other", async () => {
  const mutex = new KeyedMutex();
  const seen: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const held = mutex.run("a", () => promise.then(() => seen.push("a")));
  await mutex.run("b", () => seen.push("b"));
  resolve();
  await held;
  assert.deepEqual(seen, ["b", "a"]);
});

test("a listener that throws does not hurt the others", () => {
  const errors: unknown[] = [];
  const emitter = new Emitter<number>((error) => errors.push(error));
  const seen: number[] = [];
  emitter.on(() => {
    throw new Error("bad listener");
  });
  const off = emitter.on((value) => seen.push(value));
  emitter.emit(1);
  off();
  emitter.emit(2);
  assert.deepEqual(seen, [1]);
  assert.equal(errors.length, 2);
});

test("a queue gives what was pushed before and after the reader came, then ends", async () => {
  const queue = new AsyncQueue<number>();
  queue.push(1);
  setImmediate(() => {
    queue.push(2);
    queue.end();
    queue.push(3);
  });
  assert.deepEqual(await Array.fromAsync(queue), [1, 2]);
});

test("a queue that nobody reads fails at its limit instead of growing", async () => {
  const queue = new AsyncQueue<number>(2);
  for (let i = 0; i < 3; i++) queue.push(i);
  await assert.rejects(Array.fromAsync(queue), /too slow/);
});
