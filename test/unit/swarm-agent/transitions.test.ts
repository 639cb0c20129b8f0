import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { create } from "@bufbuild/protobuf";
import { type ContainerStatus, TaskState, type TaskStatus, TaskStatusSchema } from "#proto/docker/swarmkit/types_pb.js";
import { nextStep, type Outcome, rejected, settle } from "../../../src/swarm/agent/transitions.ts";

const status = (state: TaskState): TaskStatus => create(TaskStatusSchema, { state });
const runtime = { containerId: "c1", pid: 7, exitCode: 0, ports: [] };

/** Runs a task to rest: "STATE message" of each state it comes through. */
function life(from: TaskState, desired: TaskState, outcomes: Record<string, Outcome> = {}): string[] {
  let now = status(from);
  const seen: string[] = [];
  for (;;) {
    const step = nextStep(now.state, desired);
    if (step.kind === "rest") return seen;
    const outcome = step.kind === "call" ? (outcomes[step.call] ?? { kind: "done" }) : ({ kind: "done" } as const);
    now = settle(now, step, outcome, { nowMs: 0 });
    seen.push(`${TaskState[now.state]} ${now.err || now.message}`);
  }
}

describe("the table of task states", () => {
  it("leads a task from its assignment to its end", () => {
    assert.deepEqual(life(TaskState.ASSIGNED, TaskState.RUNNING), [
      "ACCEPTED accepted",
      "PREPARING preparing",
      "READY prepared",
      "STARTING starting",
      "RUNNING started",
      "COMPLETE finished",
    ]);
  });

  it("pauses a task that is only wanted ready", () => {
    assert.equal(life(TaskState.ASSIGNED, TaskState.READY).at(-1), "READY prepared");
    assert.deepEqual(life(TaskState.READY, TaskState.READY), []);
  });

  it("refuses before the start and fails from then on", () => {
    const failed: Outcome = { kind: "failed", error: "no" };
    assert.equal(life(TaskState.ASSIGNED, TaskState.RUNNING, { prepare: failed }).at(-1), "REJECTED no");
    assert.equal(life(TaskState.ASSIGNED, TaskState.RUNNING, { start: failed }).at(-1), "FAILED no");
    assert.equal(life(TaskState.ASSIGNED, TaskState.RUNNING, { wait: failed }).at(-1), "FAILED no");
  });

  it("shuts down from every state that is not an end, and leaves ends alone", () => {
    for (const state of [TaskState.ASSIGNED, TaskState.PREPARING, TaskState.READY, TaskState.RUNNING]) {
      for (const desired of [TaskState.SHUTDOWN, TaskState.REMOVE]) {
        assert.deepEqual(life(state, desired), ["SHUTDOWN shutdown"]);
      }
    }
    for (const state of [TaskState.COMPLETE, TaskState.SHUTDOWN, TaskState.FAILED, TaskState.REJECTED]) {
      assert.deepEqual(life(state, TaskState.REMOVE), []);
      assert.deepEqual(life(state, TaskState.RUNNING), []);
    }
  });

  it("never goes back, whatever comes", () => {
    const outcomes: Outcome[] = [
      { kind: "done" },
      { kind: "failed", error: "x" },
      { kind: "retry", error: "x" },
      { kind: "cancelled" },
    ];
    const states = Object.values(TaskState).filter((value): value is TaskState => typeof value === "number");
    for (const state of states) {
      for (const desired of states) {
        for (const outcome of outcomes) {
          const after = settle(status(state), nextStep(state, desired), outcome, { nowMs: 0 });
          assert.ok(after.state >= state, `${TaskState[state]} -> ${TaskState[after.state]}`);
        }
      }
    }
  });

  it("tells of the container from STARTING on, and of the exit code of a failure", () => {
    const ready = settle(
      status(TaskState.PREPARING),
      nextStep(TaskState.PREPARING, TaskState.RUNNING),
      { kind: "done" },
      { nowMs: 0, runtime },
    );
    assert.equal(ready.runtimeStatus.case, undefined);
    const failed = settle(
      status(TaskState.RUNNING),
      nextStep(TaskState.RUNNING, TaskState.RUNNING),
      { kind: "failed", error: "task: non-zero exit (9)", exitCode: 9 },
      { nowMs: 1500, runtime },
    );
    assert.equal(failed.runtimeStatus.case, "container");
    const { containerId, pid, exitCode } = failed.runtimeStatus.value as ContainerStatus;
    assert.deepEqual({ containerId, pid, exitCode }, { containerId: "c1", pid: 7, exitCode: 9 });
    assert.equal(failed.timestamp?.nanos, 500_000_000);
  });

  it("shows why it waits, and clears that once it goes on", () => {
    const step = nextStep(TaskState.PREPARING, TaskState.RUNNING);
    const waiting = settle(status(TaskState.PREPARING), step, { kind: "retry", error: "no network yet" }, { nowMs: 0 });
    assert.equal(waiting.err, "no network yet");
    assert.equal(settle(waiting, step, { kind: "retry", error: "no network yet" }, { nowMs: 1 }), waiting);
    assert.equal(settle(waiting, step, { kind: "done" }, { nowMs: 2 }).err, "");
  });

  it("gives a task without a controller its end", () => {
    assert.equal(rejected(status(TaskState.ASSIGNED), "no", 0).state, TaskState.REJECTED);
    assert.equal(rejected(status(TaskState.RUNNING), "no", 0).state, TaskState.FAILED);
    const complete = status(TaskState.COMPLETE);
    assert.equal(rejected(complete, "no", 0), complete);
  });
});
