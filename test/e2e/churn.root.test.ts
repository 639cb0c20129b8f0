/**
 * Daemons that restart, are killed, services that grow and shrink meanwhile: what is running stays connected, and
 * afterwards no host has anything of what is gone.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startDaemon } from "../../src/lab/host.ts";
import { hostOf } from "../../src/lab/lab.ts";
import { end } from "../../src/lab/process.ts";
import { saveState } from "../../src/lab/state.ts";
import { inconsistencies, legBackends, meshBackends, tasksOf, translations } from "../support/consistency.ts";
import { eventually, TestLab } from "../support/lab.ts";

const hosts = ["manager", "worker-1", "worker-2"] as const;
const boxes = { manager: "box-m", "worker-1": "box-1", "worker-2": "box-2" };
let lab: TestLab;
let vip = "";

before(async () => {
  lab = await TestLab.up("ovc", "10.76.0.0/24");
  await lab.swarm();
  await lab.ok("manager", "network", "create", "--driver", "overlay", "--attachable", "net");
  const script = "mkdir /tmp/www && dd if=/dev/zero of=/tmp/www/big bs=1M count=4 && exec httpd -f -p 80 -h /tmp/www";
  const service = ["--name", "web", "--network", "net", "--publish", "8080:80", "--stop-signal", "KILL"];
  await lab.ok("manager", "service", "create", ...service, "--replicas", "3", "skein/box", "sh", "-c", script);
  for (const host of hosts) {
    await lab.ok(host, "run", "--detach", "--tty", "--name", boxes[host], "--network", "net", "skein/box");
  }
  await settled("at first", 3);
  const { stdout } = await lab.in(
    "manager",
    "nsenter",
    `--net=${await pinOf("manager")}`,
    "dig",
    "+short",
    "@127.0.0.11",
    "web",
  );
  vip = stdout.trim();
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

async function restart(host: string, signal: "SIGTERM" | "SIGKILL"): Promise<void> {
  const { host: spec, state } = hostOf(lab.lab, host);
  assert.ok(state.daemon && (await end(state.daemon, signal, 15_000)));
  lab.lab.state.running[host] = await startDaemon(spec, state);
  saveState(lab.lab.state);
}

const pinOf = (host: (typeof hosts)[number]) =>
  lab.ok(host, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", boxes[host]);

/** What is not yet as it should be: entries, backends, names. */
async function wrongs(tasks: number): Promise<string[]> {
  const found = [...(await inconsistencies(lab, "net")), ...(await inconsistencies(lab, "ingress"))];
  const expected = { net: await tasksOf(lab, "web", "net"), ingress: await tasksOf(lab, "web", "ingress") };
  if (expected.net.length !== tasks) found.push(`${expected.net.length} tasks, not ${tasks}`);
  for (const host of hosts) {
    const pin = await pinOf(host);
    const compare = (what: string, have: string[], want: string[]) => {
      if (have.join() !== want.join()) found.push(`${host}: ${what} ${have}, not ${want}`);
    };
    compare("mesh", await meshBackends(lab, host), expected.ingress);
    compare("mesh by the host's leg", await legBackends(lab, host), expected.ingress);
    compare("vip", await translations(lab, host, pin, "skein-vips"), expected.net);
    const { stdout } = await lab.in(host, "nsenter", `--net=${pin}`, "dig", "+short", "@127.0.0.11", "tasks.web");
    compare("names", stdout.split("\n").filter(Boolean).sort(), expected.net);
  }
  return found;
}

/** Waits until all is right; gives the milliseconds. */
async function settled(when: string, tasks: number, timeoutMs = 8_000): Promise<number> {
  const began = Date.now();
  let last: string[] = [];
  await eventually(
    `${when}: all hosts agree`,
    async () => {
      last = await wrongs(tasks);
      return last.length === 0;
    },
    timeoutMs,
  ).catch((error) => {
    throw new Error(`${error.message}\n${last.join("\n")}`);
  });
  return Date.now() - began;
}

/** Runs `during` while every host's box pings all tasks and reads slowly through the VIP; nothing may break. */
async function undisturbed(during: () => Promise<void>): Promise<void> {
  const tasks = await tasksOf(lab, "web", "net");
  const pins = new Map(await Promise.all(hosts.map(async (host) => [host, await pinOf(host)] as const)));
  const readers = hosts.map((host) =>
    lab.in(
      host,
      ...["nsenter", `--net=${pins.get(host)}`, "curl", "-s", "--limit-rate", "600k", "-o", "/dev/null"],
      ...["-w", "%{size_download}", `http://${vip}/big`],
    ),
  );
  const pingers = hosts.flatMap((host) =>
    tasks.map((task) =>
      lab.in(host, "nsenter", `--net=${pins.get(host)}`, "ping", "-q", "-i", "0.1", "-w", "8", "-W", "1", task),
    ),
  );
  await during();
  for (const [i, { stdout }] of (await Promise.all(readers)).entries()) {
    assert.equal(stdout.trim(), String(4 << 20), `reader on ${hosts[i]}`);
  }
  for (const { stdout } of await Promise.all(pingers)) {
    const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(stdout) ?? [];
    // The last answer may be cut off by the time limit.
    assert.ok(Number(sent) - Number(received) <= 1, stdout);
  }
}

for (const signal of ["SIGTERM", "SIGKILL"] as const) {
  test(`${signal} and a new start of each daemon: connections stay, entries agree`, async (t) => {
    for (const host of hosts) {
      const containers = await lab.ok(host, "ps", "--quiet", "--no-trunc");
      await undisturbed(() => restart(host, signal));
      assert.equal(await lab.ok(host, "ps", "--quiet", "--no-trunc"), containers);
      t.diagnostic(`${host}: agreed ${await settled(`${host} restarted`, 3)} ms after the reader's end`);
    }
  });
}

test("all daemons restarted one after another, at once scaled to 4 and to 2: nothing stale", async (t) => {
  for (const host of hosts) await restart(host, "SIGTERM");
  await lab.ok("manager", "service", "scale", "web=4");
  await lab.ok("manager", "service", "scale", "web=2");
  t.diagnostic(`agreed after ${await settled("scaled", 2)} ms`);
});

test("scaled down while a daemon is away: nothing stale when it is back", async (t) => {
  await lab.ok("manager", "service", "scale", "web=4");
  await settled("four", 4);
  const { host, state } = hostOf(lab.lab, "worker-2");
  assert.ok(state.daemon && (await end(state.daemon, "SIGKILL", 15_000)));
  await lab.ok("manager", "service", "scale", "--detach", "web=1");
  await delay(2_000);
  lab.lab.state.running["worker-2"] = await startDaemon(host, state);
  saveState(lab.lab.state);
  t.diagnostic(`agreed after ${await settled("scaled meanwhile", 1, 15_000)} ms`);
});
