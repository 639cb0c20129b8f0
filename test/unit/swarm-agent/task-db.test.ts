import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, it } from "node:test";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { nullLogger } from "../../../src/base/log.ts";
import { openTaskDb } from "../../../src/swarm/agent/task-db.ts";
import { task } from "./support.ts";

describe("the stored tasks", () => {
  let dir = "";
  const open = () => openTaskDb(dir, nullLogger);
  const shown = () =>
    open()
      .load()
      .map(({ task: t, removing }) => `${t.id} ${TaskState[t.status?.state ?? 0]}${removing ? " removing" : ""}`);

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "skein-tasks-"));
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  it("come back as they were last written", () => {
    const db = open();
    db.put(task("t1"));
    db.put(task("t2"));
    db.put(task("t1", { status: { state: TaskState.RUNNING } }));
    assert.deepEqual(shown(), ["t1 RUNNING", "t2 ASSIGNED"]);
    db.put(task("t2"), true);
    assert.deepEqual(shown(), ["t1 RUNNING", "t2 ASSIGNED removing"]);
    db.delete("t1");
    db.delete("t2");
    assert.deepEqual(readdirSync(dir), []);
  });

  it("do not stumble over what a crash left half written", () => {
    open().put(task("t1"));
    writeFileSync(join(dir, "t2.task"), "");
    writeFileSync(join(dir, "t3.task"), "\xff\xff garbage");
    writeFileSync(join(dir, "t1.task.new"), "half");
    assert.deepEqual(shown(), ["t1 ASSIGNED"]);
    assert.deepEqual(readdirSync(dir), ["t1.task"]);
  });
});
