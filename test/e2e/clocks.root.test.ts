/**
 * Hosts whose clocks are an hour off, jump by an hour, or are past a certificate's end (libfaketime before `skeind`). etcd
 * keeps the machine's time, so a manager's clock goes no further than a certificate bears.
 * `SKEIN_CLOCKS=18` lives through half a day of certificates that hold for an hour, in so many steps of forty minutes (each
 * takes half a minute), and then beyond the end of one.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { SkeinError } from "../../src/base/errors.ts";
import { hasOwnClock, setClock } from "../../src/lab/clock.ts";
import { setCable } from "../../src/lab/switch.ts";
import { ensureDaemon, killDaemon } from "../support/faults.ts";
import { eventually, TestLab } from "../support/lab.ts";

const hosts = ["manager", "worker"] as const;
type Host = (typeof hosts)[number];
const steps = Number(process.env.SKEIN_CLOCKS ?? 0);
let lab: TestLab;
let without = "";

before(async () => {
  lab = await TestLab.up("clk", "10.151.0.0/24", { names: hosts });
  try {
    setClock(lab.host("manager"), "+0m");
    setClock(lab.host("worker"), "-1h");
  } catch (error) {
    if (!(error instanceof SkeinError && error.code === "notFound")) throw error;
    without = error.message;
    return;
  }
  await Promise.all(hosts.map(restart));
  await lab.swarm();
});
after(() => lab?.[Symbol.asyncDispose]());

async function restart(host: Host): Promise<void> {
  await killDaemon(lab, host);
  await ensureDaemon(lab, host);
}

/** By how many minutes a host's clock is off. */
async function offBy(host: Host): Promise<number> {
  const time = await lab.ok(host, "info", "--format", "{{.SystemTime}}");
  return Math.round((Date.parse(time) - Date.now()) / 60_000) + 0;
}

async function jump(offsets: Partial<Record<Host, string>>): Promise<void> {
  for (const host of hosts) {
    const offset = offsets[host];
    if (offset === undefined) continue;
    assert.ok(hasOwnClock(lab.host(host)));
    setClock(lab.host(host), offset);
  }
  const minutes = (text: string) => Number(text.slice(0, -1)) * ({ h: 60, d: 1440 }[text.at(-1) ?? ""] ?? 1);
  for (const [host, offset] of Object.entries(offsets)) {
    await eventually(`${host}'s clock`, async () => (await offBy(host as Host)) === minutes(offset), 5_000);
  }
}

const ready = async () =>
  (await lab.ok("manager", "node", "ls", "--format", "{{.Status}}")).split("\n").sort().join(" ");
const logged = (host: Host) => readFileSync(lab.host(host).logFile, "utf8").split("\n");
const info = async (host: Host) => (await lab.try(host, "info", "--format", "{{json .Swarm}}")).stdout;
const certificate = async (host: Host) =>
  (
    await lab.in(
      host,
      "openssl",
      "x509",
      "-noout",
      "-enddate",
      "-in",
      `${lab.host(host).stateDir}/swarm/certificates/swarm-node.crt`,
    )
  ).stdout;

const join = async (host: Host) => {
  const token = await lab.ok("manager", "swarm", "join-token", "-q", "worker");
  return lab.try(host, "swarm", "join", "--token", token, `${lab.host("manager").address}:2377`);
};
const update = (value: number) => lab.ok("manager", "service", "update", "--env-add", `A=${value}`, "web");

test("a host an hour behind joins and runs tasks; a clock that jumps ends no session and holds nothing up", async (t) => {
  if (without) return t.skip(without);
  assert.deepEqual(await Promise.all(hosts.map(offBy)), [0, -60]);
  const service = ["--name", "web", "--mode", "global", "--update-delay", "0s", "--update-monitor", "500ms"];
  await lab.ok("manager", "service", "create", ...service, "--update-parallelism", "2", "skein/hello");
  const seen = Object.fromEntries(hosts.map((host) => [host, logged(host).length]));
  await jump({ manager: "-1h", worker: "+1h" });
  await update(1);
  await jump({ manager: "+1h", worker: "-1h" });
  await update(2);
  await jump({ manager: "+0m" });
  assert.equal(
    await lab.ok("manager", "service", "inspect", "--format", "{{.UpdateStatus.State}}", "web"),
    "completed",
  );
  assert.equal(await ready(), "Ready Ready");
  for (const host of hosts) {
    const lines = logged(host).slice(seen[host]);
    assert.deepEqual(
      lines.filter((line) => /session|registered|is lost|renew the cert|refused/.test(line)),
      [],
    );
    assert.ok(lines.length < 60, `${host} wrote ${lines.length} lines`);
  }
});

test("a node whose certificate ended while it was off says so, and comes back when only its clock was wrong", async (t) => {
  if (without) return t.skip(without);
  await jump({ worker: "+100d" });
  await restart("worker");
  assert.match(
    await info("worker"),
    /"LocalNodeState":"error".*Swarm certificates have expired. To replace them, leave the swarm/,
  );
  assert.match((await join("worker")).stderr, /already part of a swarm/);
  // An hour ahead, it takes up its part as well.
  await jump({ worker: "+1h" });
  await eventually("it is back", async () => (await info("worker")).includes('"LocalNodeState":"active"'), 15_000);
  await eventually("all are ready", async () => (await ready()) === "Ready Ready", 15_000);
});

test("certificates that hold for an hour", { skip: steps === 0 }, async (t) => {
  if (without) return t.skip(without);
  await jump({ worker: "+0m" });
  await lab.ok("manager", "swarm", "update", "--cert-expiry", "1h");
  await lab.ok("worker", "swarm", "leave");
  assert.equal((await join("worker")).code, 0);
  const both = async () => (await ready()).split(" ").filter((status) => status === "Ready").length === 2;
  let offset = 0;
  const step = async (minutes: number) => {
    offset += minutes;
    await jump({ manager: `+${offset}m`, worker: `+${offset}m` });
  };
  for (let i = 0; i < steps; i++) {
    const before = await certificate("worker");
    await step(40);
    await eventually("it has another certificate", async () => (await certificate("worker")) !== before, 60_000);
    await eventually("both are ready", both, 15_000);
  }
  // Cut off beyond its end: managers refuse it, it says what to do, and joins anew.
  setCable(lab.host("worker"), false);
  await step(80);
  setCable(lab.host("worker"), true);
  const says = (host: Host, words: RegExp) =>
    eventually(`${host} says so`, async () => logged(host).some((line) => words.test(line)), 120_000);
  await says("manager", /refused.*certificate has expired/);
  assert.match(await info("worker"), /Swarm certificates have expired/);
  await says("worker", /this node's certificate has expired: leave the swarm and join again/);
  await lab.ok("worker", "swarm", "leave");
  assert.equal((await join("worker")).code, 0);
  await eventually("it is back", both, 15_000);
});
