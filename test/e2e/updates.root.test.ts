/**
 * Updates that drop nothing: closed loops of requests through the published port of all three nodes, on fresh and on
 * kept connections, while a service is updated in both orders, scaled, and its nodes are drained. Not one may fail.
 * SKEIN_TEST_REQUESTS says how many requests there are to be at least (default 20000).
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { run } from "../../src/lab/process.ts";
import { eventually, TestLab } from "../support/lab.ts";
import { Load } from "../support/load.ts";

const wanted = Number(process.env.SKEIN_TEST_REQUESTS ?? 20_000);
let lab: TestLab;

before(async () => {
  lab = await TestLab.up("upd", "10.68.0.0/24", { images: ["web"] });
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

/** nginx that wants the PROXY protocol, and says whom it was told. */
const proxied = `daemon off;
user root;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr;
events { worker_connections 256; }
http {
  access_log off;
  server {
    listen 80 proxy_protocol;
    location / { return 200 "client $proxy_protocol_addr\\n"; }
  }
}
`;

test("with the PROXY protocol tasks are told their clients, and an update loses no request", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "skein-proxied-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  writeFileSync(join(dir, "nginx.conf"), proxied);
  await lab.ok("manager", "config", "create", "proxied", join(dir, "nginx.conf"));
  const config = ["--config", "source=proxied,target=/etc/nginx/nginx.conf"];
  const publish = ["--publish", "8081:80", "--label", "skein.publish.proxy=v2", "--update-monitor", "200ms"];
  await service("create", "-q", "--name", "proxied", "--replicas", "2", ...publish, ...config, "nginx");
  const client = async (target: string) => (await run(["curl", "-s", "-m", "3", `http://${target}/`])).stdout;
  for (const { name, address } of lab.lab.spec.hosts) {
    const told = /^client (.*)$/m.exec(await client(`${address}:8080`))?.[1];
    assert.equal(await client(`${address}:8081`), `client ${told}\n`, "as without it");
    const six = await lab.in(name, "curl", "-s", "-m", "3", "http://[::1]:8081/");
    assert.equal(six.stdout, "client ::1\n", "over IPv6, which the mesh cannot carry as itself");
  }
  await using load = new Load({
    targets: lab.lab.spec.hosts.map(({ address }) => `${address}:8081`),
    keepAlive: 4,
    fresh: 4,
  });
  await service("update", "-q", "--force", "--update-order", "start-first", "proxied");
  const { requests, failures } = await load.stop();
  t.diagnostic(`${failures.length} failed of ${requests}`);
  assert.deepEqual(failures, []);
  assert.ok(requests > 100);
});
