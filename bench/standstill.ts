/**
 * What a manager's `skeind` that stands still (SIGSTOP; its etcd runs on) does to the lead: three managers, stops of half a
 * second to a second and a half, of the leader and of another; then leaders that stay frozen until another one leads.
 * Root. `bin/node bench/standstill.ts [turns]`, default 4 each; three minutes.
 */
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { signal } from "../src/lab/process.ts";
import { eventually, TestLab } from "../test/support/lab.ts";
import { median } from "./support/rows.ts";

const turns = Number(process.argv[2] ?? 4);
const names = ["m1", "m2", "m3"];
/** Until an election that a stop began would be over. */
const settleMs = 1_500;
await using lab = await TestLab.up("stst", "10.187.0.0/24", { names, images: [] });
const addr = (host: string) => lab.host(host).address;
await lab.ok("m1", "swarm", "init", "--advertise-addr", addr("m1"));
const token = await lab.ok("m1", "swarm", "join-token", "-q", "manager");
for (const host of ["m2", "m3"]) await lab.ok(host, "swarm", "join", "--token", token, `${addr("m1")}:2377`);

/** How often any of the managers took the lead so far. */
const reigns = () =>
  names.flatMap((host) => readFileSync(lab.host(host).logFile, "utf8").match(/"this manager leads the swarm"/g) ?? [])
    .length;

const leader = () =>
  eventually("somebody leads", async () => {
    for (const host of names) {
      const { stdout } = await lab.try(host, "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}");
      const line = stdout.split("\n").find((text) => text.endsWith("Leader"));
      if (line) return line.split(" ")[0];
    }
    return undefined;
  });

function daemonOf(host: string) {
  const daemon = lab.lab.state.running[host]?.daemon;
  if (!daemon) throw new Error(`no skeind runs on ${host}`);
  return daemon;
}

await delay(settleMs);
for (const leads of [true, false]) {
  for (const ms of [500, 800, 1000, 1200, 1500]) {
    let changes = 0;
    for (let turn = 0; turn < turns; turn++) {
      const now = await leader();
      const stopped = daemonOf(leads ? now : (names.find((name) => name !== now) ?? now));
      const before = reigns();
      signal(stopped, "SIGSTOP");
      await delay(ms);
      signal(stopped, "SIGCONT");
      await delay(settleMs);
      changes += reigns() - before;
    }
    console.log(
      `${leads ? "the leader" : "another one"} stands still for ${ms} ms: ${changes} new reigns in ${turns} turns`,
    );
  }
}

const took: number[] = [];
for (let turn = 0; turn < 2 * turns; turn++) {
  const frozen = daemonOf(await leader());
  const before = reigns();
  const began = performance.now();
  signal(frozen, "SIGSTOP");
  await eventually("another one leads", async () => reigns() > before);
  took.push(Math.round(performance.now() - began));
  signal(frozen, "SIGCONT");
  await delay(settleMs);
}
console.log(`a frozen leader is replaced after ${median(took)} ms [${Math.min(...took)}–${Math.max(...took)}]`);
