/**
 * Clients that are not the stock command line: Compose, which keeps its projects on labels, links and checksums of the
 * engine's answers, and the Python SDK, with a swarm of its own.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, afterEach, before, test } from "node:test";
import Docker from "dockerode";
import { run } from "../../src/lab/process.ts";
import { control, EngineHost, skipControl } from "../support/engine.ts";
import { eventually } from "../support/lab.ts";
import { differences, type Shape, shapeOf } from "../support/shape.ts";

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

// Real Docker conflicts with what its own managers write to a service meanwhile ("update out of sequence").
test("the Python SDK: a swarm, services, containers, secrets, errors", skipControl, async () => {
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

/** What Docker 20.10 has not: fields of newer versions, which older clients do not look at. */
const newer = [
  /^\+ .*NetworkSettings\.Networks\.\*\.(DNSNames|GwPriority)$/,
  /^\+ (\[\])?\.EnableIPv4$/,
  // The default bridge's gateway, which 20.10 tells only where it was asked for.
  /^\+ \.IPAM\.Config\[\]\.Gateway$/,
];

/** The golden file was made with cgroup v1; what v2 does not count, or cannot do, is not there. */
const unified = existsSync("/sys/fs/cgroup/cgroup.controllers")
  ? [/^- .*(max_usage|percpu_usage)$/, /^. .*OomKillDisable/, /^- \.blkio_stats/]
  : [];

const golden = new URL("../support/docker-20.10-shapes.json", import.meta.url);

test("documents have the keys and types of Docker's, by the versions of the API", async () => {
  const socketPath = host.host("host").socket;
  const ask = (version: string, path: string, method = "GET", body?: object): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const headers = body ? { "Content-Type": "application/json" } : {};
      const call = request({ socketPath, path: `/v${version}${path}`, method, headers }, (response) => {
        // Of a stream the first document.
        text(response).then((all) => resolve(JSON.parse(all.split("\n")[0] ?? "")), reject);
      });
      call.on("error", reject);
      call.end(body && JSON.stringify(body));
    });
  await host.docker("volume", "create", "--label", "a=b", "shapes");
  await host.docker("network", "create", "--label", "a=b", "shapes");
  const options = [
    "--name",
    "full",
    "-l",
    "x=y",
    "-p",
    "8123:80",
    "-v",
    "shapes:/v",
    "-v",
    "/tmp:/t:ro",
    "-v",
    "/anonymous",
  ];
  const more = ["--mount", "type=tmpfs,dst=/m", "-m", "100m", "--network", "shapes", "--network-alias", "alias"];
  const health = [
    "--health-cmd",
    "true",
    "--health-interval",
    "100ms",
    "--restart",
    "on-failure:3",
    "--add-host",
    "a:1.2.3.4",
  ];
  await host.docker(
    "run",
    "-d",
    ...options,
    ...more,
    ...health,
    "alpine",
    "sh",
    "-c",
    "echo x > /new; exec sleep 1000",
  );
  await host.docker("create", "--name", "bare", "alpine");
  await host.attempt("run", "--name", "ended", "alpine", "sh", "-c", "exit 3");
  await eventually("healthy", async () => (await host.inspect("full", "{{.State.Health.Status}}")) === "healthy");
  const shapes: Record<string, Shape> = {};
  for (const version of ["1.41", "1.24"]) {
    const { Id: exec } = (await ask(version, "/containers/full/exec", "POST", { Cmd: ["true"], User: "0" })) as {
      Id: string;
    };
    const documents = {
      ...{ full: "/containers/full/json?size=1", bare: "/containers/bare/json", ended: "/containers/ended/json" },
      ...{ list: "/containers/json?all=1&size=1", top: "/containers/full/top", changes: "/containers/full/changes" },
      ...{
        stats: "/containers/full/stats?stream=0",
        idle: "/containers/bare/stats?stream=0",
        exec: `/exec/${exec}/json`,
      },
      ...{ image: "/images/alpine/json", images: "/images/json?all=1", history: "/images/alpine/history" },
      ...{ network: "/networks/shapes", bridge: "/networks/bridge", networks: "/networks", volume: "/volumes/shapes" },
      ...{ volumes: "/volumes", info: "/info", version: "/version", usage: "/system/df" },
      events: `/events?since=0&until=${Math.ceil(Date.now() / 1000)}&filters={"event":["start"],"container":["full"]}`,
    };
    for (const [name, path] of Object.entries(documents)) {
      shapes[`${name} ${version}`] = shapeOf(await ask(version, encodeURI(path)));
    }
  }
  await host.clear();
  await host.docker("network", "rm", "shapes");
  await host.docker("volume", "rm", "shapes");
  if (control) {
    if (process.env.SKEIN_GOLDEN === "1") writeFileSync(golden, `${JSON.stringify(shapes, undefined, 1)}\n`);
  }
  const theirs = JSON.parse(readFileSync(golden, "utf8")) as Record<string, Shape>;
  const found = Object.entries(shapes).flatMap(([name, shape]) =>
    differences(theirs[name] ?? {}, shape)
      .filter((line) => ![...newer, ...unified].some((pattern) => pattern.test(line)))
      .map((line) => `${name}: ${line}`),
  );
  assert.deepEqual(found, []);
});

/** The oldest and the newest version; with `SKEIN_CLIS=all` two between as well. */
const newest = control ? "1.41" : "1.51";
const versions = ["1.24", ...(process.env.SKEIN_CLIS === "all" ? ["1.30", "1.40"] : []), newest];

test("the Python SDK by old and new versions of the API finds the same", async () => {
  const script = new URL("../support/sdk-versions.py", import.meta.url).pathname;
  const { code, stdout, stderr } = await run(
    ["/usr/bin/python3", script, `unix://${host.host("host").socket}`, ...versions],
    { timeoutMs: 90_000 },
  );
  assert.equal(code, 0, stderr + stdout);
  for (const [index, line] of lines(stdout).entries()) {
    const version = versions[index] ?? "";
    assert.deepEqual(JSON.parse(line), {
      ...{ version, status: "running", network: ["old"], port: "8098", mount: ["/v"], memory: 67108864 },
      ...{ exec: [4, "1\n", "bad\n"], archive: ["put", 4], listed: ["old"], summary: ["old"], stats: 67108864, top: 1 },
      ...{ logs: ["cried", "said"], wait: 137, tags: ["old:made"], info: "linux", missing: 404, events: [] },
      // Fields that were given up go to those who may look for them.
      image: [
        "Config",
        ...(version === "1.51" ? [] : ["Container"]),
        "Id",
        "RootFS",
        ...(version === "1.51" ? [] : ["VirtualSize"]),
      ],
      df:
        version === "1.24"
          ? []
          : [
              "BuildCache",
              ...(version === "1.51" ? [] : ["BuilderSize"]),
              "Containers",
              "Images",
              "LayersSize",
              "Volumes",
            ],
    });
  }
});

test("dockerode by old and new versions of the API; versions that are not spoken", async () => {
  for (const version of versions) {
    const docker = new Docker({ socketPath: host.host("host").socket, version: `v${version}` });
    const container = await docker.createContainer({
      Image: "alpine",
      name: "dv",
      Tty: true,
      Cmd: ["sh", "-c", "echo hi"],
    });
    const stream = await container.attach({ stream: true, stdout: true, stderr: true });
    const heard = text(stream);
    const waiting = container.wait();
    await container.start();
    assert.equal((await waiting).StatusCode, 0, version);
    assert.equal(await heard, "hi\r\n", version);
    assert.equal((await container.logs({ stdout: true })).toString(), "hi\r\n", version);
    assert.equal((await container.inspect()).State.ExitCode, 0, version);
    await container.remove();
  }
  const socketPath = host.host("host").socket;
  for (const [version, words] of [
    // 20.10 spoke versions down to 1.12.
    [control ? "1.11" : "1.23", /client version 1\.\d+ is too old\. Minimum supported API version is 1\.\d+/],
    ["1.99", /client version 1\.99 is too new\. Maximum supported API version is 1\.\d+/],
  ] as const) {
    await assert.rejects(new Docker({ socketPath, version: `v${version}` }).version(), (error: Error) => {
      assert.match(error.message, words);
      return true;
    });
  }
});
