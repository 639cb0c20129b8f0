import assert from "node:assert/strict";
import { test } from "node:test";
import { Backlog, Flow } from "../../../src/engine/containers/flow.ts";

function io() {
  const calls: string[] = [];
  return {
    calls,
    onOutput: () => () => {},
    drained: Promise.resolve(),
    stdin: undefined,
    closeStdin: async () => {},
    pause: () => void calls.push("pause"),
    resume: () => void calls.push("resume"),
  };
}

test("a process is held up by its slowest reader and goes on when none is behind", () => {
  const process = io();
  const flow = new Flow(process);
  const [a, b] = [new Backlog(() => flow, 100), new Backlog(() => flow, 100)];
  a.add(100);
  assert.deepEqual(process.calls, []);
  a.add(1);
  b.add(200);
  assert.deepEqual(process.calls, ["pause"]);
  a.done(101);
  assert.deepEqual(process.calls, ["pause"], "b is still behind");
  b.done(100);
  assert.deepEqual(process.calls, ["pause"], "the low mark is a quarter of the high one");
  b.close();
  assert.deepEqual(process.calls, ["pause", "resume"]);
});

test("after its end nothing holds the rest of the output back", () => {
  const process = io();
  const flow = new Flow(process);
  const reader = new Backlog(() => flow, 1);
  reader.add(5);
  flow.open();
  reader.add(5);
  assert.deepEqual(process.calls, ["pause", "resume"]);
});
