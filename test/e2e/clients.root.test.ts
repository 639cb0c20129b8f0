/**
 * Clients that are not the stock command line: Compose, which keeps its projects on labels, links and checksums of the
 * engine's answers, and the Python SDK, with a swarm of its own.
 */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { run } from "../../src/lab/process.ts";
import { EngineHost } from "../support/engine.ts";
import { eventually } from "../support/lab.ts";

let host: EngineHost;
const lines = (text: string): string[] => text.split("\n").filter(Boolean);

before(async () => {
  host = await EngineHost.make("clients", "10.87.0.0/24");
});
afterEach(() => host.clear());
after(() => host?.[Symbol.asyncDispose]());

const project = `
version: "3.7"
services:
  web:
    image: skein/box
    command: httpd -f -p 80 -h /etc
    stop_signal: SIGKILL
    ports: ["8099:80"]
    networks: [front]
    volumes: ["data:/data"]
    depends_on: [cache]
    environment: { A: "1" }
  cache:
    image: skein/box
    command: sleep 1000
    stop_signal: SIGKILL
    networks:
      front:
        aliases: [store]
    healthcheck:
      test: ["CMD", "true"]
      interval: 1s
networks:
  front: {}
volumes:
  data: {}
`;

test("Compose: up, scale, run, restart, logs, down", async () => {
  const dir = join(host.scratch, "app");
  mkdirSync(dir, { recursive: true });
  writeFileSync(join(dir, "docker-compose.yml"), project);
  const env = { ...process.env, DOCKER_HOST: `unix://${host.host("host").socket}`, COMPOSE_ANSI: "never" };
  const compose = async (...args: string[]) => {
    const { code, stdout, stderr } = await run(
      ["docker-compose", "--project-directory", dir, "-f", join(dir, "docker-compose.yml"), ...args],
      { env, timeoutMs: 60_000 },
    );
    assert.equal(code, 0, `docker-compose ${args.join(" ")}: ${stderr}${stdout}`);
    return stdout;
  };
  await compose("up", "-d");
  const page = () => run(["curl", "-sf", "-m", "3", `http://${host.address}:8099/hostname`]);
  await eventually("the page", async () => (await page()).code === 0);
  assert.match(await compose("exec", "-T", "web", "nslookup", "store"), /Address.*172\./);
  const [first] = lines(await compose("ps", "-q", "web"));
  assert.match(await compose("up", "-d", "--scale", "cache=3"), /^/);
  assert.equal(lines(await compose("ps", "-q", "cache")).length, 3);
  assert.deepEqual(lines(await compose("ps", "-q", "web")), [first], "what did not change is not made anew");
  assert.equal(await compose("run", "--rm", "web", "sh", "-c", "ping -c 1 -w 3 cache >/dev/null && echo $A"), "1\n");
  await compose("restart", "-t", "0", "web");
  await eventually("the page again", async () => (await page()).code === 0);
  writeFileSync(join(dir, "docker-compose.yml"), project.replace('A: "1"', 'A: "2"'));
  await compose("up", "-d");
  assert.notDeepEqual(lines(await compose("ps", "-q", "web")), [first], "what changed is");
  await compose("down", "-v", "-t", "0");
  assert.equal(await host.docker("ps", "-aq"), "");
  assert.equal(await host.docker("volume", "ls", "-q"), "");
  assert.equal(await host.docker("network", "ls", "-q", "--filter", "type=custom"), "");
});

test("the Python SDK: a swarm, services, containers, secrets, errors", async () => {
  const script = new URL("../support/sdk.py", import.meta.url).pathname;
  // Debian's own interpreter: the SDK is a package of the system.
  const { code, stdout, stderr } = await run(
    ["/usr/bin/python3", script, `unix://${host.host("host").socket}`, host.address],
    { timeoutMs: 60_000 },
  );
  assert.equal(code, 0, stderr + stdout);
  const told = lines(stdout).map((line): unknown => JSON.parse(line));
  const { found, tar, ...container } = told[2] as { found: number; tar: number };
  assert.ok(found >= 3 && tar > 1024, `${found} tasks, ${tar} bytes ${stderr}`);
  told[2] = container;
  assert.deepEqual(told, [
    { step: "swarm", state: "active", nodes: ["ready"] },
    { step: "service", mode: { Replicated: { Replicas: 3 } }, labels: { a: "b" } },
    { step: "container", code: 0, usage: true, file: "hostname" },
    { step: "ended", code: 137 },
    { step: "once", output: "once\n" },
    { step: "kept", secrets: ["s"], config: "c" },
    { step: "volume", name: "vol" },
    { step: "missing", words: "No such container: nosuch" },
    { step: "left", state: "inactive" },
  ]);
});
