import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { LogSubscriptionOptionsSchema } from "#proto/docker/swarmkit/logbroker_pb.js";
import { SkeinError } from "../../../src/base/errors.ts";
import { type TaskFailed, TaskRetry } from "../../../src/swarm/types.ts";
import { FakeHost, makeTask } from "./host.ts";

const never = new AbortController().signal;
const settle = () => new Promise((resolve) => setImmediate(resolve));

async function running() {
  const fake = new FakeHost();
  const controller = fake.controller(makeTask());
  await controller.prepare(never);
  await controller.start(never);
  return { fake, controller };
}

test("a task's life, in order", async () => {
  const { fake, controller } = await running();
  assert.equal(controller.status()?.pid, 42);
  const wait = controller.wait(never);
  wait.catch(() => {});
  const shutdown = controller.shutdown(never);
  await settle();
  assert.deepEqual(fake.calls.slice(-2), ["draining", "told"], "withdrawn first, and known to be");
  await fake.clock.advanceAsync(150);
  await shutdown;
  await assert.rejects(
    wait,
    (error: TaskFailed) => error.exitCode === 143 && error.message === "task: non-zero exit (143)",
  );
  await controller.remove(never);
  assert.deepEqual(fake.calls, [
    "create web.1.task1",
    "start",
    "active",
    "told",
    "draining",
    "told",
    "stop 10",
    "remove",
  ]);
  assert.equal(fake.containers.size, 0);
  assert.equal(controller.status()?.exitCode, 143, "the last status is still told after the container is gone");
});

test("a container that cannot be stopped is tried again: its task is not over while it runs", async () => {
  const { fake, controller } = await running();
  fake.stopError = new Error("ENOSPC: no space left on device, write");
  const first = assert.rejects(controller.shutdown(never), (error) => error instanceof TaskRetry);
  await settle();
  await fake.clock.advanceAsync(150);
  await first;
  fake.stopError = undefined;
  const second = controller.shutdown(never);
  await settle();
  await fake.clock.advanceAsync(150);
  await second;
  assert.equal(fake.find("web.1.task1").status, "exited");
});

test("a task is announced when it listens on its published ports, or after five seconds", async () => {
  for (const listens of [true, false]) {
    const fake = new FakeHost();
    fake.listening = false;
    const controller = fake.controller(makeTask());
    await controller.prepare(never);
    const start = controller.start(never);
    await settle();
    await fake.clock.advanceAsync(4_000);
    assert.equal(fake.calls.at(-1), "start");
    fake.listening = listens;
    await fake.clock.advanceAsync(listens ? 50 : 1_000);
    await start;
    assert.deepEqual(fake.calls.slice(-2), ["active", "told"]);
  }
});

test("busy connections are waited for, as long as the stop grace period", async () => {
  const { fake, controller } = await running();
  fake.busy = 1;
  const shutdown = controller.shutdown(never);
  await settle();
  await fake.clock.advanceAsync(5_000);
  assert.equal(fake.calls.at(-1), "told");
  fake.busy = 0;
  await fake.clock.advanceAsync(100);
  fake.busy = 1;
  await fake.clock.advanceAsync(4_800);
  assert.equal(fake.calls.at(-1), "told", "it was not quiet for long enough");
  await fake.clock.advanceAsync(150);
  await shutdown;
  assert.equal(fake.calls.at(-1), "stop 10");
});

test("a clean exit is success", async () => {
  const { fake, controller } = await running();
  const wait = controller.wait(never);
  fake.exit("web.1.task1", 0);
  await wait;
});

test("a wait obeys its signal", async () => {
  const { controller } = await running();
  const abort = new AbortController();
  const wait = controller.wait(abort.signal);
  abort.abort(new Error("enough"));
  await assert.rejects(wait, /enough/);
});

test("prepare adopts a container that an earlier daemon made", async () => {
  const { fake } = await running();
  const again = fake.controller(makeTask());
  await again.prepare(never);
  await again.start(never);
  assert.deepEqual(fake.calls, ["create web.1.task1", "start", "active", "told", "active", "told"]);
  const wait = again.wait(never);
  fake.exit("web.1.task1", 3);
  await assert.rejects(wait, /task: non-zero exit \(3\)/);
});

test("a container of another task with our name is not ours", async () => {
  const { fake } = await running();
  const other = fake.controller(makeTask({ id: "task2", annotations: { name: "web.1.task1" } }));
  await assert.rejects(other.prepare(never), /already in use/);
  assert.equal(other.status(), undefined);
  await other.remove(never);
  assert.equal(fake.containers.size, 1);
});

test("a missing image is pulled; when no registry answers it is missing", async () => {
  const fake = new FakeHost();
  fake.hasImage = false;
  await fake.controller(makeTask()).prepare(never);
  const failing = new FakeHost();
  failing.hasImage = false;
  Object.assign(failing.host.images, {
    pull: () => {
      throw new SkeinError("internal", "dial tcp: network is unreachable");
    },
  });
  await assert.rejects(failing.controller(makeTask()).prepare(never), /^SkeinError: No such image: nginx:latest$/);
});

test("start waits for health, and only then joins discovery", async () => {
  const fake = new FakeHost();
  fake.startHealth = "starting";
  const controller = fake.controller(makeTask());
  await controller.prepare(never);
  const start = controller.start(never);
  await settle();
  assert.ok(!fake.calls.includes("active"));
  fake.health("web.1.task1", "healthy");
  await start;
  assert.deepEqual(fake.calls.slice(-2), ["active", "told"]);
});

test("ill before it was ever well", async () => {
  const fake = new FakeHost();
  fake.startHealth = "starting";
  const controller = fake.controller(makeTask());
  await controller.prepare(never);
  const start = controller.start(never);
  start.catch(() => {});
  await settle();
  fake.health("web.1.task1", "unhealthy");
  await settle();
  await fake.clock.advanceAsync(1000);
  await assert.rejects(start, /^TaskFailed: task: non-zero exit \(143\): unhealthy container$/);
});

test("an end before good health is told by wait", async () => {
  const fake = new FakeHost();
  fake.startHealth = "starting";
  const controller = fake.controller(makeTask());
  await controller.prepare(never);
  const start = controller.start(never);
  await settle();
  fake.exit("web.1.task1", 5);
  await start;
  assert.ok(!fake.calls.includes("active"));
  await assert.rejects(controller.wait(never), /non-zero exit \(5\)/);
});

test("ill while running: stopped, and the reason told", async () => {
  const fake = new FakeHost();
  fake.startHealth = "healthy";
  fake.stopCode = 0;
  const controller = fake.controller(makeTask());
  await controller.prepare(never);
  await controller.start(never);
  const wait = controller.wait(never);
  wait.catch(() => {});
  await settle();
  fake.health("web.1.task1", "unhealthy");
  await settle();
  await fake.clock.advanceAsync(1000);
  await assert.rejects(wait, /task: non-zero exit \(0\): unhealthy container/);
});

test("a start that fails says so", async () => {
  const fake = new FakeHost();
  fake.startError = new Error("exec: no such file");
  const controller = fake.controller(makeTask());
  await controller.prepare(never);
  await assert.rejects(controller.start(never), /^TaskFailed: starting container failed: exec: no such file$/);
});

test("what was never started is removed without a drain", async () => {
  const fake = new FakeHost();
  const controller = fake.controller(makeTask());
  await controller.shutdown(never);
  await controller.prepare(never);
  await controller.shutdown(never);
  await controller.remove(never);
  assert.deepEqual(fake.calls, ["create web.1.task1", "remove"]);
});

test("host ports that are really bound", async () => {
  const { fake, controller } = await running();
  fake.published = [
    { protocol: "udp", containerPort: 53, hostIp: "0.0.0.0", hostPort: 5353 },
    { protocol: "udp", containerPort: 53, hostIp: "::", hostPort: 5353 },
  ];
  assert.deepEqual(
    controller.status()?.ports.map((port) => [port.protocol, port.targetPort, port.publishedPort, port.publishMode]),
    [[1, 53, 5353, 1]],
  );
});

test("logs carry their nanoseconds", async () => {
  const { controller } = await running();
  const options = create(LogSubscriptionOptionsSchema, { tail: -3n });
  const messages = await Array.fromAsync(controller.logs(options, never));
  assert.deepEqual(
    messages.map(({ stream, data, timestamp }) => [stream, String(data), timestamp?.nanos]),
    [[2, "hi\n", 7]],
  );
});

test("a task that has not started yet is followed from its start", async () => {
  const fake = new FakeHost();
  const controller = fake.controller(makeTask());
  let lines = 0;
  const options = create(LogSubscriptionOptionsSchema, { follow: true });
  const reading = (async () => {
    for await (const _ of controller.logs(options, never)) lines++;
  })();
  await controller.prepare(never);
  await settle();
  assert.equal(lines, 0, "there is nothing to read of a container that was only created");
  await controller.start(never);
  await reading;
  assert.equal(lines, 1);
});
