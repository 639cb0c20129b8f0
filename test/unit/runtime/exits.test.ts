import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { Status } from "#proto/containerd/v1/types/task_pb.js";
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import type { Containerd } from "../../../src/runtime/containerd/client.ts";
import { Exits } from "../../../src/runtime/tasks/exits.ts";

test("an end of which no event ever comes is found by looking", async () => {
  const asked: string[] = [];
  const silent = (async function* () {
    await new Promise(() => {});
    yield { topic: "" };
  })();
  const containerd = {
    namespace: "skein",
    call: () => ({}),
    events: { subscribe: () => silent },
    tasks: {
      get: async ({ containerId }: { containerId: string }) => {
        asked.push(containerId);
        return { process: { status: Status.STOPPED, exitStatus: 5 } };
      },
    },
  } as unknown as Containerd;
  const clock = new VirtualClock();
  const exits = new Exits(containerd, nullLogger, clock);
  await clock.advanceAsync(1_000);
  const ended = exits.expect("ended");
  exits.started("ended", "", spawnSync("true").pid);
  void exits.expect("runs");
  exits.started("runs", "", process.pid);
  await clock.advanceAsync(10_000);
  assert.equal((await ended).exitCode, 5);
  assert.deepEqual(asked, ["ended"], "who is there is not asked after");
  exits.dispose();
});
