/**
 * Updates that drop nothing: closed loops of requests through the published port of all three nodes, on fresh and on
 * kept connections, while a service is updated in both orders, scaled, and its nodes are drained. Not one may fail.
 * SKEIN_TEST_REQUESTS says how many requests there are to be at least (default 20000).
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually, TestLab } from "../support/lab.ts";
import { Load } from "../support/load.ts";

const wanted = Number(process.env.SKEIN_TEST_REQUESTS ?? 20_000);
let lab: TestLab;

before(async () => {
  lab = await TestLab.up("upd", "10.68.0.0/24", { images: ["tutorials"] });
  await lab.swarm();
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

const service = (...args: string[]) => lab.ok("manager", "service", ...args);
const running = async () =>
  (await service("ps", "web", "--filter", "desired-state=running", "--format", "{{.Node}} {{.CurrentState}}"))
    .split("\n")
    .filter((line) => line.includes(" Running"));

test("updates of both orders, scaling and draining lose no request", async (t) => {
  const publish = ["--publish", "8080:80", "--update-monitor", "200ms"];
  await service("create", "--quiet", "--name", "web", "--replicas", "3", ...publish, "nginx");
  const targets = lab.lab.spec.hosts.map(({ address }) => `${address}:8080`);
  await using load = new Load({ targets, keepAlive: 6, fresh: 6 });
  const steps: [string, () => Promise<unknown>][] = [
    ["stop-first", () => service("update", "-q", "--force", "--update-order", "stop-first", "web")],
    ["start-first", () => service("update", "-q", "--force", "--update-order", "start-first", "web")],
    ["scale up", () => service("scale", "web=5")],
    ["scale down", () => service("scale", "web=2")],
    [
      "drain",
      async () => {
        await service("scale", "web=3");
        await lab.ok("manager", "node", "update", "--availability", "drain", "worker-1");
        await eventually("moved", async () => {
          const tasks = await running();
          return tasks.length === 3 && tasks.every((task) => !task.startsWith("worker-1"));
        });
        // The drained task is still stopping when its replacement runs.
        await eventually("stopped", async () => (await lab.ok("worker-1", "ps", "--quiet")) === "", 25_000);
        await lab.ok("manager", "node", "update", "--availability", "active", "worker-1");
      },
    ],
  ];
  for (let round = 1; ; round++) {
    for (const [name, step] of steps) {
      const before = await load.count();
      const began = Date.now();
      await step();
      const now = await load.count();
      t.diagnostic(
        `${name}: ${now.failed - before.failed} failed of ${now.requests - before.requests} (${Date.now() - began} ms)`,
      );
    }
    const { requests, failed } = await load.count();
    if (failed > 0 || (round >= 1 && requests >= wanted)) break;
  }
  const { requests, failed, connections, failures } = await load.stop();
  t.diagnostic(`${failed} failed of ${requests} requests on ${connections} connections`);
  assert.deepEqual(failures, []);
  assert.equal(failed, 0);
  assert.ok(requests >= wanted);
});
