/** The REPLICAS column. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ServiceSchema, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { serviceStatuses } from "../../../src/api/swarm/status.ts";

const task = (id: string, serviceId: string, desiredState: TaskState, state: TaskState) =>
  create(TaskSchema, { id, serviceId, desiredState, status: { state } });

test("a job wants as many tasks at a time as may run, also when all are done", () => {
  const spec = { mode: { case: "replicatedJob", value: { maxConcurrent: 2n, totalCompletions: 4n } } } as const;
  const tasks = ["1", "2", "3"].map((id) => task(id, "j", TaskState.COMPLETE, TaskState.COMPLETE));
  const running = task("4", "j", TaskState.COMPLETE, TaskState.RUNNING);
  const of = (...all: typeof tasks) => serviceStatuses([create(ServiceSchema, { id: "j", spec })], all, []).get("j");
  assert.deepEqual(of(...tasks, running), { RunningTasks: 1, DesiredTasks: 2, CompletedTasks: 3 });
  const done = { ...running, status: tasks[0]?.status };
  assert.deepEqual(of(...tasks, done), { RunningTasks: 0, DesiredTasks: 2, CompletedTasks: 4 });
});

test("tasks that still stop do not make a global service run more than it wants", () => {
  const { RUNNING, SHUTDOWN } = TaskState;
  const services = [
    create(ServiceSchema, { id: "g", spec: { mode: { case: "global", value: {} } } }),
    create(ServiceSchema, { id: "r", spec: { mode: { case: "replicated", value: { replicas: 1n } } } }),
  ];
  const tasks = [
    task("1", "g", RUNNING, RUNNING),
    task("2", "g", SHUTDOWN, RUNNING),
    task("3", "r", RUNNING, RUNNING),
    task("4", "r", SHUTDOWN, RUNNING),
  ];
  const statuses = serviceStatuses(services, tasks, []);
  assert.deepEqual(statuses.get("g"), { RunningTasks: 1, DesiredTasks: 1, CompletedTasks: 0 });
  assert.deepEqual(statuses.get("r"), { RunningTasks: 2, DesiredTasks: 1, CompletedTasks: 0 });
});
