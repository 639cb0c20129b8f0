import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { sleep, systemClock } from "../../../src/base/clock.ts";
import { readFileIfAny } from "../../../src/base/file.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { startRuntime } from "../../../src/runtime/runtime.ts";
import { shims } from "../../../src/runtime/tasks/shims.ts";
import { bench, output, specOf } from "./support.ts";

const parentOf = (pid: number): number =>
  Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);

test("two runtimes side by side do not see each other", async () => {
  await using one = await bench();
  await using two = await bench();
  const [first, second] = await Promise.all([
    one.runtime.start(one.spec("same", ["sleep", "100"])),
    two.runtime.start(two.spec("same", ["sleep", "100"])),
  ]);
  assert.notEqual(first.pid, second.pid);
  await one.runtime.remove("same");
  assert.equal((await first.exit).exitCode, 137);
  assert.deepEqual(await two.runtime.list(), [
    { id: "same", running: true, paused: false, silent: false, task: true, pid: second.pid },
  ]);
  assert.match(readFileSync(`/proc/${second.pid}/cgroup`, "utf8"), new RegExp(`${two.cgroupParent}/same`));
});

test("dispose stops containerd and lets containers go on; the next start finds them", async () => {
  await using b = await bench();
  const options = { root: `${b.dir}/root`, run: `${b.dir}/run`, cgroupParent: b.cgroupParent };
  const process = await b.runtime.start(b.spec("stays", ["sh", "-c", "read x; exit 8"], { openStdin: true }));
  await b.stop();
  assert.ok(!existsSync(`${b.dir}/run/containerd/containerd.pid`));
  assert.ok(existsSync(`/proc/${process.pid}`));
  await using again = await startRuntime(options, nullLogger);
  const adopted = await again.adopt("stays");
  assert.equal(adopted?.pid, process.pid);
  adopted.io.stdin?.write("\n");
  assert.equal((await output(adopted)).code, 8);
  await again.remove("stays");
});

test("pointed at a containerd it uses that, in its own namespace, and leaves it running", async () => {
  await using b = await bench();
  const address = `${b.dir}/run/containerd/containerd.sock`;
  const options = { root: `${b.dir}/other`, run: `${b.dir}/otherrun`, cgroupParent: `${b.cgroupParent}/other` };
  {
    await using guest = await startRuntime({ ...options, address, namespace: "guest" }, nullLogger);
    assert.deepEqual(await guest.list(), []);
    assert.deepEqual(await guest.images.list(), []);
  }
  assert.equal((await output(await b.runtime.start(b.spec("still", ["true"])))).code, 0);
  await assert.rejects(startRuntime({ ...options, address: `${b.dir}/nobody.sock` }, nullLogger), {
    code: "unavailable",
  });
});

test("a containerd that cannot start says why", async () => {
  await using b = await bench();
  // Its state directory's name is taken by a file.
  mkdirSync(`${b.dir}/bad/containerd`, { recursive: true });
  writeFileSync(`${b.dir}/bad/containerd/io.containerd.content.v1.content`, "");
  const options = { root: `${b.dir}/bad`, run: `${b.dir}/x` };
  await assert.rejects(startRuntime(options, nullLogger), { code: "unavailable" });
});

test("a shim that is killed takes its container's end with it, and the container can be started again", async () => {
  await using b = await bench();
  const spec = specOf(b.image, "orphan", ["sleep", "100"]);
  const first = await b.runtime.start(spec);
  process.kill(parentOf(first.pid), "SIGKILL");
  assert.equal((await first.exit).exitCode, 137);
  const second = await b.runtime.start(spec);
  assert.ok(existsSync(`/proc/${second.pid}`));
  // Gone, or a zombie that whoever inherited it has not buried yet.
  const state = readFileIfAny(`/proc/${first.pid}/status`)?.match(/^State:\s*(\w)/m)?.[1];
  assert.ok(state === undefined || state === "Z" || state === "X", state);
  await b.runtime.remove("orphan");
});

test("containerd is killed while tasks are made: what it leaves half-made is ended", async () => {
  await using b = await bench();
  const of = () => shims(`${b.dir}/run/containerd/containerd.sock`, "skein").map(({ id }) => id);
  const ids = Array.from({ length: 6 }, (_, index) => `half${index}`);
  const starts = Promise.allSettled(ids.map((id) => b.runtime.start(b.spec(id, ["sleep", "100"]))));
  while (of().length === 0) await sleep(systemClock, 2);
  b.killContainerd();
  await starts;
  const until = Date.now() + 25_000;
  for (;;) {
    const list = await b.runtime.list().catch(() => undefined);
    const running = list?.filter((one) => one.running).map(({ id }) => id);
    const lost = running && of().filter((id) => !running.includes(id));
    if (lost?.length === 0) break;
    assert.ok(Date.now() < until, `shims that nobody knows: ${lost}`);
    await sleep(systemClock, 100);
  }
  await Promise.all(ids.map((id) => b.runtime.remove(id).catch(() => {})));
  assert.deepEqual(of(), []);
});
