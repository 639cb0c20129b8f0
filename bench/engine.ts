/**
 * One host beside the real Docker Engine of this machine, each on a lab host of its own, in turns.
 * Root. `bin/node bench/engine.ts [run] [network] [dns] [adopt]`, without words all of them.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { dockerOk } from "../src/lab/docker.ts";
import { type HostState, inside } from "../src/lab/host.ts";
import { down, hostOf, up } from "../src/lab/lab.ts";
import { end, processRef, run } from "../src/lab/process.ts";
import type { HostSpec } from "../src/lab/spec.ts";
import { TestLab } from "../test/support/lab.ts";
import { inTurns, row, timed } from "./support/rows.ts";

const words = process.argv.slice(2);
const asked = (word: string) => words.length === 0 || words.includes(word);
const lab = { name: "peers", subnet: "10.74.0.0/24", names: ["skein", "docker"], dockerd: ["docker"] };
const image = "bench:1";
const sleeper = ["sleep", "100000"];

await down(lab.name);
await using test = new TestLab(await up(lab));
const ours = test.host("skein");
const theirs = test.host("docker");
const docker = (host: HostSpec, ...args: string[]) => dockerOk(host, args);
await importImage();

const both = (times: number, job: (host: HostSpec, turn: number) => Promise<number>) =>
  inTurns(
    times,
    (turn) => job(ours, turn),
    (turn) => job(theirs, turn),
  );

if (asked("run")) await runs();
if (asked("network")) await networks();
if (asked("dns")) await names();
if (asked("adopt")) await adoption();

/** The same root file system for both, as one layer. */
async function importImage(): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), "skein-bench-"));
  try {
    const script = `set -e
mkdir -p ${scratch}/root/bin ${scratch}/root/etc ${scratch}/root/tmp
echo root:x:0:0:root:/:/bin/sh > ${scratch}/root/etc/passwd
cp $(command -v busybox) ${scratch}/root/bin/
for lib in $(ldd $(command -v busybox) | grep -o '/[^ ]*' || true); do cp -L --parents $lib ${scratch}/root; done
for name in sh true sleep cat; do ln -s busybox ${scratch}/root/bin/$name; done
tar -C ${scratch}/root -cf ${scratch}/image.tar .`;
    const made = await run(["sh", "-c", script]);
    if (made.code !== 0) throw new Error(made.stderr);
    for (const host of [ours, theirs]) await docker(host, "import", `${scratch}/image.tar`, image);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

async function runs(): Promise<void> {
  for (const network of ["bridge", "none", "host"]) {
    const args = ["run", "--rm", "--network", network, image, "true"];
    row(
      `docker run --rm --network ${network} true`,
      "ms",
      ...(await both(10, (host) => timed(() => docker(host, ...args)))),
    );
  }
  for (const host of [ours, theirs]) await docker(host, "run", "-d", "--name", "target", image, ...sleeper);
  row("docker exec true", "ms", ...(await both(10, (host) => timed(() => docker(host, "exec", "target", "true")))));
  for (const host of [ours, theirs]) await docker(host, "rm", "-f", "target");
  const steps: [string, (name: string) => string[]][] = [
    ["docker create", (name) => ["create", "--name", name, image, ...sleeper]],
    ["docker start", (name) => ["start", name]],
    ["docker stop -t 0", (name) => ["stop", "-t", "0", name]],
    ["docker rm", (name) => ["rm", name]],
  ];
  for (const [name, args] of steps) {
    row(name, "ms", ...(await both(8, (host, turn) => timed(() => docker(host, ...args(`c${turn}`))))));
  }
}

async function networks(): Promise<void> {
  const create = (turn: number) => ["network", "create", `n${turn}`];
  row("docker network create", "ms", ...(await both(8, (host, turn) => timed(() => docker(host, ...create(turn))))));
  row(
    "docker network rm",
    "ms",
    ...(await both(8, (host, turn) => timed(() => docker(host, "network", "rm", `n${turn}`)))),
  );
}

/** Questions per second from one container's own namespace, for the name of another. */
async function names(): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), "skein-bench-"));
  const questions = join(scratch, "questions");
  writeFileSync(questions, "other A\n");
  const pids = new Map<HostSpec, string>();
  for (const host of [ours, theirs]) {
    await docker(host, "network", "create", "names");
    await docker(host, "run", "-d", "--network", "names", "--name", "other", image, ...sleeper);
    await docker(host, "run", "-d", "--network", "names", "--name", "asker", image, ...sleeper);
    pids.set(host, await docker(host, "inspect", "-f", "{{.State.Pid}}", "asker"));
  }
  let lost = 0;
  const perf = async (host: HostSpec, ...how: string[]) => {
    const command = ["dnsperf", "-s", "127.0.0.11", "-d", questions, "-l", "3", ...how];
    const { stdout, stderr } = await run(
      inside(hostOf(test.lab, host.name).state, ["nsenter", "-t", pids.get(host) ?? "", "-n", "--", ...command]),
    );
    const rate = Number(/Queries per second:\s+([\d.]+)/.exec(stdout)?.[1]);
    if (!Number.isFinite(rate)) throw new Error(`dnsperf: ${stderr}${stdout}`);
    if (host === ours) lost += Number(/Queries lost:\s+(\d+)/.exec(stdout)?.[1] ?? 0);
    return rate;
  };
  row(
    "names, one client, one question at a time",
    "1/s",
    ...(await both(3, (host) => perf(host, "-c", "1", "-q", "1"))),
  );
  row("names, one client, 100 questions open", "1/s", ...(await both(3, (host) => perf(host, "-c", "1", "-q", "100"))));
  row(
    "names, 10 clients, 100 questions open",
    "1/s",
    ...(await both(3, (host) => perf(host, "-c", "10", "-q", "100"))),
  );
  console.log(`answers of skein's that were lost: ${lost}`);
  for (const host of [ours, theirs]) {
    await docker(host, "rm", "-f", "asker", "other");
    await docker(host, "network", "rm", "names");
  }
  rmSync(scratch, { recursive: true });
}

/** Resident megabytes with 30 containers, then the way back with 100 after a kill. dockerd would end them. */
async function adoption(): Promise<void> {
  const start = (host: HostSpec, from: number, to: number) =>
    Promise.all(
      [0, 1, 2, 3].map(async (worker) => {
        for (let i = from + worker; i < to; i += 4)
          await docker(host, "run", "-d", "--name", `a${i}`, image, ...sleeper);
      }),
    );
  const resident = async (what: string, one: HostSpec, other?: HostSpec) => {
    // Both give back some of what they only needed for a moment.
    await delay(5_000);
    row(what, "MB", [residentOf(one)], other ? [residentOf(other)] : []);
  };
  await resident("megabytes without containers", ours, theirs);
  await Promise.all([start(ours, 0, 30), start(theirs, 0, 30)]);
  await resident("megabytes with 30 containers", ours, theirs);
  await start(ours, 30, 100);
  const times: number[] = [];
  for (let i = 0; i < 3; i++) {
    const { daemon } = stateOf(ours);
    const alive = daemon && processRef(daemon.pid);
    if (alive) await end(alive, "SIGKILL", 5000);
    times.push(await timed(async () => void (await up(lab))));
    const running = (await docker(ours, "ps", "-q")).split("\n").length;
    if (running !== 100) throw new Error(`${running} of 100 containers were adopted`);
  }
  row("ready again after kill -9, 100 containers", "ms", times);
  await resident("megabytes with 100 containers, restarted", ours);
}

function stateOf(host: HostSpec): HostState {
  const file: { running: Record<string, HostState> } = JSON.parse(
    readFileSync(`/run/skein/${lab.name}/lab.json`, "utf8"),
  );
  const state = file.running[host.name];
  if (!state) throw new Error(`no host ${host.name}`);
  return state;
}

function residentOf(host: HostSpec): number {
  const status = readFileSync(`/proc/${stateOf(host).daemon?.pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}
