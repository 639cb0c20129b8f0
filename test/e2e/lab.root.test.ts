/** The lab as a newcomer meets it: idempotent, honest about what is in its way, and gone without a trace. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { run } from "../../src/lab/process.ts";
import { labSpec } from "../../src/lab/spec.ts";
import { eventually } from "../support/lab.ts";

const name = "labt";
const subnet = "10.79.0.0/24";
const spec = labSpec({ name, subnet });
const skein = (...args: string[]) => run(["bin/skein", ...args]);
const up = (...args: string[]) => skein("lab", "up", "--name", name, "--subnet", subnet, ...args);

async function leftovers(): Promise<string[]> {
  const { stdout } = await run([
    "sh",
    "-c",
    `ip -br link; ip netns; nft list tables; cat /proc/mounts; ps ax -o args; find /sys/fs/cgroup -maxdepth 3 -name 'skein-${name}*'`,
  ]);
  const found = stdout.split("\n").filter((line) => /skein[-/]labt|sklabt\d/.test(line) && !line.startsWith("sh -c"));
  for (const path of [spec.runDir, spec.stateDir]) if (existsSync(path)) found.push(path);
  return found;
}

before(() => skein("lab", "down", "--name", name));
after(() => skein("lab", "down", "--name", name));

test("without root it says so", async () => {
  for (const command of [
    ["bin/setup", "start"],
    ["bin/skein", "lab", "up"],
  ]) {
    const { code, stderr } = await run([
      "setpriv",
      "--reuid",
      "65534",
      "--regid",
      "65534",
      "--clear-groups",
      ...command,
    ]);
    assert.notEqual(code, 0);
    assert.match(stderr, /root/);
  }
});

test("a subnet in use is refused by name, and nothing is half-made", async () => {
  await skein("lab", "down", "--name", name);
  await run(["ip", "link", "add", "sklabtx", "type", "veth", "peer", "name", "sklabty"]);
  try {
    await run(["ip", "addr", "add", "10.79.0.200/25", "dev", "sklabtx"]);
    await run(["ip", "link", "set", "sklabtx", "up"]);
    const { code, stderr } = await up();
    assert.equal(code, 1);
    assert.match(stderr, /subnet 10\.79\.0\.0\/24 overlaps 10\.79\.0\.128\/25 on sklabtx/);
    assert.match(stderr, /--subnet/);
  } finally {
    await run(["ip", "link", "del", "sklabtx"]);
  }
  assert.deepEqual(await leftovers(), []);
});

for (const [what, args, message] of [
  ["a subnet that is none", ["--subnet", "nonsense"], /nonsense/],
  ["too many hosts", ["--hosts", "51"], /1 to 50 hosts/],
  ["a negative number", ["--hosts", "-1"], /positive whole number/],
  ["an engine that does not exist", ["--engine", "podman"], /skeind and dockerd/],
  ["dockerd on a host that is not there", ["--engine", "nix=dockerd"], /no host "nix"/],
] as const) {
  test(`refused: ${what}`, async () => {
    const { code, stderr } = await up(...args);
    assert.notEqual(code, 0);
    assert.match(stderr, message);
  });
}

/** What shows that a lab of two hosts has got so far. */
const [firstHost, lastHost] = labSpec({ name, subnet, hosts: ["manager", "worker-1"] }).hosts;
const steps: [string, () => boolean][] = [
  ["its state is written", () => existsSync(`${spec.runDir}/lab.json`)],
  ["the last host is plugged in", () => existsSync(lastHost?.netnsPath ?? "")],
  ["a host's processes are noted", () => /"pid"/.test(readIfAny(`${spec.runDir}/lab.json`))],
  ["an engine listens", () => existsSync(firstHost?.socket ?? "")],
];
const readIfAny = (path: string) => (existsSync(path) ? readFileSync(path, "utf8") : "");

test("killed at any step, going up or down, it leaves nothing that the next `down` does not find", async (t) => {
  const args = ["lab", "up", "--name", name, "--subnet", subnet, "--hosts", "2"];
  for (const [what, reached] of steps) {
    const child = spawn("bin/skein", args, { stdio: "ignore" });
    await eventually(what, async () => reached());
    child.kill("SIGKILL");
    const began = Date.now();
    // The first is killed, too.
    const going = spawn("bin/skein", ["lab", "down", "--name", name], { stdio: "ignore" });
    await delay(400);
    going.kill("SIGKILL");
    const { code, stderr } = await skein("lab", "down", "--name", name);
    assert.equal(code, 0, `${what}: ${stderr}`);
    assert.deepEqual(
      await eventually(`nothing left of "${what}"`, async () => {
        const left = await leftovers();
        return left.length === 0 ? left : undefined;
      }).catch(leftovers),
      [],
      what,
    );
    t.diagnostic(`${what}: gone after ${Date.now() - began} ms`);
  }
});

test("a set-up killed in the middle is recovered by the next one", async () => {
  const child = spawn("bin/skein", ["lab", "up", "--name", name, "--subnet", subnet], { stdio: "ignore" });
  await eventually("a half-made lab", async () => existsSync(spec.hosts[0]?.netnsPath ?? ""));
  child.kill("SIGKILL");
  const second = await up();
  assert.equal(second.code, 0, second.stderr);
  const { stdout } = await skein("lab", "ls", "--name", name, "--json");
  assert.deepEqual(
    JSON.parse(stdout).map((host: Record<string, string>) => [host.name, host.state, host.cable]),
    [
      ["manager", "running", "plugged"],
      ["worker-1", "running", "plugged"],
      ["worker-2", "running", "plugged"],
    ],
  );
});

test("up again changes nothing; another shape of the same lab is refused", async () => {
  const state = () => JSON.parse(readFileSync(`${spec.runDir}/lab.json`, "utf8"));
  const before = state();
  assert.equal((await up()).code, 0);
  assert.deepEqual(state(), before);
  assert.match((await up("--hosts", "2")).stderr, /other hosts is up/);
  assert.match(
    (await skein("lab", "up", "--name", name, "--subnet", "10.68.0.0/24")).stderr,
    /has subnet 10\.79\.0\.0\/24/,
  );
  assert.match((await up("--engine", "worker-1=dockerd")).stderr, /runs dockerd on no host\n.*lab down --name labt/);
  assert.match((await up("--registry-mirror", "http://10.0.0.5:5000")).stderr, /asks no mirror/);
});

test("a host's name, its devices and its docker, seen from inside", async () => {
  const { stdout } = await skein(
    ...[
      "lab",
      "exec",
      "--name",
      name,
      "worker-1",
      "--",
      "sh",
      "-c",
      "hostname; ls /sys/class/net; docker info -f '{{.Name}}'",
    ],
  );
  assert.deepEqual(stdout.trim().split(/\s+/), ["worker-1", "docker0", "eth0", "lo", "worker-1"]);
});

test("env points docker at a host", async () => {
  const { stdout } = await skein("lab", "env", "--name", name, "worker-2");
  assert.equal(stdout.trim(), `export DOCKER_HOST=unix://${spec.runDir}/worker-2/docker.sock`);
});

test("the cable", async () => {
  const ping = () => run(["ping", "-c", "1", "-W", "1", "10.79.0.12"]);
  assert.equal((await ping()).code, 0);
  await skein("lab", "unplug", "--name", name, "worker-1");
  assert.notEqual((await ping()).code, 0);
  assert.match((await skein("lab", "ls", "--name", name)).stdout, /worker-1 .*unplugged/);
  await skein("lab", "plug", "--name", name, "worker-1");
  await eventually("ping", async () => (await ping()).code === 0);
});

test("what the kernel cannot do to a cable is refused by name", async () => {
  const { code, stderr } = await skein("lab", "slow", "--name", name, "worker-1", "--delay", "10");
  if (code !== 0) assert.match(stderr, /netem/);
  assert.equal((await skein("lab", "slow", "--name", name, "worker-1")).code, 0);
});

test("a frozen skeind is told as such", async () => {
  const state = async () => /worker-2 +\S+ +skeind +(\S+)/.exec((await skein("lab", "ls", "--name", name)).stdout)?.[1];
  await skein("lab", "pause", "--name", name, "worker-2");
  assert.equal(await state(), "paused");
  await skein("lab", "resume", "--name", name, "worker-2");
  assert.equal(await state(), "running");
});

test("a killed skeind is started again by up; a second daemon on its socket is refused", async () => {
  await skein("lab", "kill", "--name", name, "worker-1");
  await eventually("no engine", async () =>
    /worker-1 .*no engine/.test((await skein("lab", "ls", "--name", name)).stdout),
  );
  const again = await up();
  assert.equal(again.code, 0, again.stderr);
  assert.match(again.stdout, /starting skeind on worker-1/);
  const socket = `${spec.runDir}/worker-1/docker.sock`;
  const second = await skein(
    ...["lab", "exec", "--name", name, "worker-1", "--", `${process.cwd()}/bin/skeind`],
    ...["--host", `unix://${socket}`, "--data-root", "/tmp/skein-labt-x", "--run-dir", "/tmp/skein-labt-x/run"],
  );
  assert.notEqual(second.code, 0);
  assert.match(second.stderr, /docker\.sock/);
  await run(["rm", "-rf", "/tmp/skein-labt-x"]);
});

test("a port of the host that is in use is a clear error, and no container stays", async () => {
  const docker = ["docker", "-H", `unix://${spec.runDir}/worker-1/docker.sock`];
  const listener = spawn("bin/skein", ["lab", "exec", "--name", name, "worker-1", "--", "nc", "-l", "-p", "9123"], {
    stdio: "ignore",
  });
  await eventually("the listener", async () => {
    return (await skein("lab", "exec", "--name", name, "worker-1", "--", "ss", "-ltn")).stdout.includes(":9123");
  });
  await run([...docker, "load", "-q", "-i", ".cache/images/basic.tar"]);
  const { code, stderr } = await run([...docker, "run", "--rm", "-p", "9123:80", "skein/hello"]);
  listener.kill("SIGKILL");
  await skein("lab", "exec", "--name", name, "worker-1", "--", "busybox", "pkill", "-x", "nc");
  assert.equal(code, 125);
  assert.match(stderr, /9123.*(in use|allocated)/);
  await eventually("no container", async () => (await run([...docker, "ps", "-aq"])).stdout === "");
});

test("unknown hosts and labs are told with what there is", async () => {
  assert.match((await skein("lab", "unplug", "--name", name, "nix")).stderr, /its hosts: manager, worker-1, worker-2/);
  assert.match((await skein("lab", "ls", "--name", "nolab")).stderr, /there is no lab "nolab"/);
});

test("down takes everything along, twice is no error", async () => {
  assert.match((await skein("lab", "down", "--name", name)).stdout, /is gone/);
  assert.deepEqual(await leftovers(), []);
  assert.match((await skein("lab", "down", "--name", name)).stdout, /there was no lab/);
});
