import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { clone } from "@bufbuild/protobuf";
import { type Task, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { TaskRunner } from "../../../src/swarm/agent/task-runner.ts";
import { TaskFailed, TaskRetry } from "../../../src/swarm/types.ts";
import { FakeController, task } from "./support.ts";

function run(initial: Task, prepare: (controller: FakeController) => void = () => {}) {
  const clock = new VirtualClock();
  const controller = new FakeController();
  prepare(controller);
  const states: string[] = [];
  const runner = new TaskRunner({
    task: initial,
    controller,
    clock,
    log: nullLogger,
    report: ({ status }) => states.push(`${TaskState[status?.state ?? 0]}${status?.err ? ` ${status.err}` : ""}`),
    dependenciesKnown: async () => {},
  });
  const wanted = (desiredState: TaskState) => {
    const next = clone(TaskSchema, runner.task);
    next.desiredState = desiredState;
    runner.update(next);
  };
  return { clock, controller, runner, states, wanted, settle: () => clock.advanceAsync(0) };
}

describe("a task's runner", () => {
  it("makes one controller call per transition", async () => {
    const { controller, runner, settle, states } = run(task("t1"));
    await settle();
    assert.deepEqual(controller.calls, ["prepare", "start", "wait"]);
    controller.end("wait");
    await settle();
    assert.deepEqual(states, ["ACCEPTED", "PREPARING", "READY", "STARTING", "RUNNING", "COMPLETE"]);
    await runner.stop();
  });

  it("cuts a wait short to shut down, but not the shutdown itself", async () => {
    const { controller, runner, settle, states, wanted } = run(task("t1"), (c) => c.gate("shutdown"));
    await settle();
    wanted(TaskState.SHUTDOWN);
    await settle();
    wanted(TaskState.REMOVE);
    await settle();
    assert.deepEqual(controller.calls.slice(2), ["wait", "wait cut", "update SHUTDOWN", "shutdown"]);
    controller.end("shutdown");
    await settle();
    assert.equal(states.at(-1), "SHUTDOWN");
    assert.equal(controller.calls.at(-1), "update REMOVE");
    await runner.stop();
  });

  it("does not begin again what a change leaves wanted", async () => {
    const { controller, runner, settle, wanted } = run(task("t1", { desiredState: TaskState.READY }), (c) =>
      c.gate("prepare"),
    );
    await settle();
    wanted(TaskState.RUNNING);
    await settle();
    assert.deepEqual(controller.calls, ["prepare"]);
    controller.end("prepare");
    await settle();
    assert.deepEqual(controller.calls, ["prepare", "update RUNNING", "start", "wait"]);
    await runner.stop();
  });

  it("stops a preparation that is no longer wanted", async () => {
    const { controller, runner, settle, states, wanted } = run(task("t1"), (c) => c.gate("prepare"));
    await settle();
    wanted(TaskState.SHUTDOWN);
    await settle();
    assert.deepEqual(controller.calls, ["prepare", "prepare cut", "update SHUTDOWN", "shutdown"]);
    assert.equal(states.at(-1), "SHUTDOWN");
    await runner.stop();
  });

  it("does not lower the desired state", async () => {
    const { controller, runner, settle, wanted } = run(task("t1"));
    await settle();
    wanted(TaskState.READY);
    await settle();
    assert.equal(runner.task.desiredState, TaskState.RUNNING);
    assert.deepEqual(controller.calls, ["prepare", "start", "wait"]);
    await runner.stop();
  });

  it("ignores an update that says nothing new", async () => {
    const { controller, runner, settle } = run(task("t1"));
    await settle();
    runner.update(task("t1", { meta: { version: { index: 9n } } }));
    await settle();
    assert.deepEqual(controller.calls, ["prepare", "start", "wait"]);
    await runner.stop();
  });

  it("tries again after a second what may yet go well, and shows why", async () => {
    const { clock, controller, runner, settle, states } = run(task("t1"), (c) => c.gate("prepare"));
    await settle();
    controller.end("prepare", new TaskRetry("no address yet"));
    await settle();
    controller.open("prepare");
    await clock.advanceAsync(999);
    assert.deepEqual(states.slice(1), ["PREPARING", "PREPARING no address yet"]);
    await clock.advanceAsync(1);
    assert.equal(states.at(-1), "RUNNING");
    await runner.stop();
  });

  it("goes on waiting for a task that ran before a restart", async () => {
    const { controller, runner, settle, states } = run(task("t1", { status: { state: TaskState.RUNNING } }));
    await settle();
    controller.end("wait", new TaskFailed("task: non-zero exit (2)", 2));
    await settle();
    assert.deepEqual(controller.calls, ["wait"]);
    assert.deepEqual(states, ["FAILED task: non-zero exit (2)"]);
    await runner.stop();
  });

  it("stops without touching the task", async () => {
    const { controller, runner, settle, states } = run(task("t1"));
    await settle();
    await runner.stop();
    assert.equal(states.at(-1), "RUNNING");
    assert.deepEqual(controller.calls, ["prepare", "start", "wait", "wait cut"]);
  });

  it("shuts down before it removes what still runs", async () => {
    const { controller, runner, settle } = run(task("t1"));
    await settle();
    await runner.remove(new AbortController().signal);
    assert.deepEqual(controller.calls.slice(3), ["wait cut", "shutdown", "remove", "close"]);
  });
});
