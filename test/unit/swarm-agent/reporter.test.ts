import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create, toBinary } from "@bufbuild/protobuf";
import { TaskState, TaskStatusSchema } from "#proto/docker/swarmkit/types_pb.js";
import { deferred } from "../../../src/base/async.ts";
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { Reporter, type StatusUpdate } from "../../../src/swarm/agent/reporter.ts";

const status = (state: TaskState) => create(TaskStatusSchema, { state });
const text = (updates: StatusUpdate[]) => updates.map((u) => `${u.taskId}:${TaskState[u.status.state]}`).join(" ");
const turn = () => new Promise((resolve) => setImmediate(resolve));

/** A session whose calls the test answers itself. */
function session() {
  const calls: { updates: string; answer: ReturnType<typeof deferred<void>> }[] = [];
  const send = (updates: StatusUpdate[]) => {
    const answer = deferred<void>();
    calls.push({ updates: text(updates), answer });
    return answer.promise;
  };
  return { calls, send, updates: () => calls.map((call) => call.updates) };
}

describe("the status reporter", () => {
  it("has one call under way at a time, and then sends the newest only", async () => {
    const { calls, send, updates } = session();
    const reporter = new Reporter(new VirtualClock(), nullLogger);
    reporter.connect(send);
    reporter.report("t1", status(TaskState.ACCEPTED));
    reporter.report("t1", status(TaskState.PREPARING));
    reporter.report("t2", status(TaskState.ACCEPTED));
    reporter.report("t1", status(TaskState.RUNNING));
    await turn();
    assert.deepEqual(updates(), ["t1:ACCEPTED"]);
    calls[0]?.answer.resolve();
    await turn();
    assert.deepEqual(updates(), ["t1:ACCEPTED", "t2:ACCEPTED t1:RUNNING"]);
  });

  it("lets states on the way wait for the next one, but not long, and tells them with whatever is told before", async () => {
    const { calls, send, updates } = session();
    const clock = new VirtualClock();
    const reporter = new Reporter(clock, nullLogger);
    reporter.connect(send);
    const goOn = async (ms: number) => {
      await turn();
      for (const { answer } of calls) answer.resolve();
      clock.advance(ms);
      await turn();
    };
    reporter.report("t1", status(TaskState.ACCEPTED), true);
    reporter.report("t1", status(TaskState.PREPARING), true);
    await goOn(150);
    reporter.report("t2", status(TaskState.ACCEPTED), true);
    await goOn(99);
    assert.deepEqual(updates(), []);
    await goOn(1);
    assert.deepEqual(updates(), ["t1:PREPARING t2:ACCEPTED"]);
    await goOn(1000);
    reporter.report("t1", status(TaskState.STARTING), true);
    await goOn(200);
    reporter.report("t2", status(TaskState.RUNNING));
    await goOn(1000);
    assert.deepEqual(updates(), ["t1:PREPARING t2:ACCEPTED", "t1:STARTING t2:RUNNING"]);
  });

  it("tells a state on the way although the clock was set back", async () => {
    const { send, updates } = session();
    const clock = new VirtualClock(1e12);
    const reporter = new Reporter(clock, nullLogger);
    reporter.connect(send);
    reporter.report("t1", status(TaskState.PREPARING), true);
    await turn();
    clock.set(-3_600_000);
    await clock.advanceAsync(1000);
    assert.deepEqual(updates(), ["t1:PREPARING"]);
  });

  it("keeps what was not taken for the next session, unless something newer is there", async () => {
    const first = session();
    const reporter = new Reporter(new VirtualClock(), nullLogger);
    reporter.connect(first.send);
    reporter.report("t1", status(TaskState.ACCEPTED));
    await turn();
    reporter.report("t2", status(TaskState.RUNNING));
    reporter.report("t1", status(TaskState.FAILED));
    first.calls[0]?.answer.reject(new Error("gone"));
    await turn();
    assert.equal(first.calls.length, 1);
    assert.equal(reporter.pending, 2);
    const second = session();
    reporter.connect(second.send);
    await turn();
    assert.deepEqual(second.updates(), ["t2:RUNNING t1:FAILED"]);
  });

  it("tells thousands of tasks in calls that a manager takes, and of a long error its beginning", async () => {
    const reporter = new Reporter(new VirtualClock(), nullLogger);
    for (let i = 0; i < 3000; i++) {
      const err = "e".repeat(i % 10 === 0 ? 1_000_000 : 10);
      reporter.report(`t${i}`, create(TaskStatusSchema, { state: TaskState.FAILED, err }));
    }
    const calls: number[] = [];
    const told = new Set<string>();
    reporter.connect(async (updates) => {
      const bytes = updates.map(
        (update) => toBinary(TaskStatusSchema, update.status).length + update.taskId.length + 8,
      );
      calls.push(bytes.reduce((a, b) => a + b));
      for (const { taskId } of updates) told.add(taskId);
    });
    while (reporter.pending > 0) await turn();
    assert.equal(told.size, 3000);
    assert.ok(Math.max(...calls) < 512 << 10, `${Math.max(...calls)} bytes in a call`);
    assert.ok(calls.length < 50, `${calls.length} calls`);
  });

  it("says nothing of a task that is gone", async () => {
    const first = session();
    const reporter = new Reporter(new VirtualClock(), nullLogger);
    reporter.connect(first.send);
    reporter.report("t1", status(TaskState.ACCEPTED));
    await turn();
    reporter.forget("t1");
    first.calls[0]?.answer.reject(new Error("gone"));
    await turn();
    assert.equal(reporter.pending, 0);
  });
});
