import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { Status } from "#proto/containerd/v1/types/task_pb.js";
import { nullLogger } from "../../../src/base/log.ts";
import { connectContainerd } from "../../../src/runtime/containerd/client.ts";
import { roomAt } from "../../../src/runtime/images/room.ts";
import { startRuntime } from "../../../src/runtime/runtime.ts";
import { processAny, readRecord } from "../../../src/runtime/tasks/encode.ts";
import { makeFifos } from "../../../src/runtime/tasks/stdio.ts";
import { eventually } from "../../support/lab.ts";
import { bench } from "./support.ts";

test("a daemon dies while a command is being started: its shim waits for a reader, and the container is adopted all the same", async () => {
  await using b = await bench();
  const { pid } = await b.runtime.start(b.spec("busy", ["sleep", "100"]));
  const dir = `${b.dir}/run/io/busy-exec/cut`;
  {
    // The dead daemon's part: nobody has the other end of these open.
    const containerd = connectContainerd(`${b.dir}/run/containerd/containerd.sock`, "skein", roomAt(b.dir));
    const { containers, tasks } = containerd;
    const record = readRecord((await containers.get({ id: "busy" }, containerd.call())).container?.spec);
    assert.ok(record);
    const spec = processAny({ ...record.process, args: ["sh", "-c", "echo said"] });
    const fifos = makeFifos(dir, { stdin: false, tty: false });
    await tasks.exec({ containerId: "busy", execId: "cut", ...fifos, spec }, containerd.call());
    const death = new AbortController();
    const started = tasks.start({ containerId: "busy", execId: "cut" }, containerd.call({ signal: death.signal }));
    const cut = assert.rejects(started);
    await eventually("the shim is stuck", async () => {
      const { process } = await tasks.get({ containerId: "busy" }, containerd.call());
      return process?.status === Status.UNKNOWN;
    });
    death.abort();
    await cut;
    containerd.close();
  }
  const address = `${b.dir}/run/containerd/containerd.sock`;
  const options = { root: `${b.dir}/root`, run: `${b.dir}/run`, cgroupParent: b.cgroupParent, address };
  await using again = await startRuntime(options, nullLogger);
  assert.deepEqual(await again.list(), [{ id: "busy", running: true, paused: false, silent: false, task: true, pid }]);
  assert.equal((await again.adopt("busy"))?.pid, pid);
  await eventually("the command is over and cleared away", async () => !existsSync(dir));
});
