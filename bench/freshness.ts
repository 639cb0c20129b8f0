/**
 * How soon `tasks.web` is right on all hosts after a task started, or ended without a word: three hosts, one container
 * asking on each, tasks killed on one after the other. Beside it the same with real Docker, in turns, in the same lab.
 * Root. `bin/node bench/freshness.ts [kills]`, default 30 each; about three minutes.
 *
 * A sample is the time from the container's own StartedAt, or FinishedAt, to the last of the three answers being right.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { dockerOk } from "../src/lab/docker.ts";
import { inside } from "../src/lab/host.ts";
import { down, hostOf, up } from "../src/lab/lab.ts";
import { makeImages } from "../src/lab/tour.ts";
import { TestLab } from "../test/support/lab.ts";
import { median, row } from "./support/rows.ts";

const kills = Number(process.argv[2] ?? 30);
const name = "frb";
const replicas = 6;
const image = "skein/box";
const patienceMs = 15_000;
const swarms = {
  skein: ["skein-a", "skein-b", "skein-c"],
  docker: ["docker-a", "docker-b", "docker-c"],
} as const;
type Engine = keyof typeof swarms;

await down(name);
const made = await up({
  name,
  subnet: "10.89.7.0/24",
  names: [...swarms.skein, ...swarms.docker],
  dockerd: [...swarms.docker],
});
await using lab = new TestLab(made);
await makeImages(made, "basic");
const ok = (host: string, ...args: string[]) => dockerOk(lab.host(host), args);

interface Sight {
  readonly at: number;
  readonly addresses: ReadonlySet<string>;
}

/** What one host's containers were answered, and when. */
class Watch {
  readonly sights: Sight[] = [];
  readonly #child: ChildProcess;

  constructor(command: readonly string[]) {
    const [program = "", ...args] = command;
    this.#child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    if (this.#child.stdout === null) throw new Error("no output");
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      const [at = "", text = ""] = line.split(" ");
      this.sights.push({ at: Number(at), addresses: new Set(text.split(",").filter((address) => address !== "")) });
    });
  }

  get now(): ReadonlySet<string> {
    return this.sights.at(-1)?.addresses ?? new Set();
  }

  /** When the address came, or went, for the first time after a moment. */
  when(address: string, there: boolean, after: number): number | undefined {
    return this.sights.find((sight) => sight.at >= after && sight.addresses.has(address) === there)?.at;
  }

  async end(): Promise<void> {
    this.#child.stdin?.end();
    await once(this.#child, "close");
  }
}

async function until(what: string, done: () => Promise<boolean> | boolean): Promise<void> {
  const end = Date.now() + patienceMs;
  while (!(await done())) {
    if (Date.now() > end) throw new Error(`not within ${patienceMs} ms: ${what}`);
    await delay(20);
  }
}

interface Ready {
  readonly watches: readonly Watch[];
  readonly started: number[];
  readonly ended: number[];
}

async function prepare(engine: Engine): Promise<Ready> {
  const [manager = "", ...workers] = swarms[engine];
  const at = lab.host(manager).address;
  await ok(manager, "swarm", "init", "--advertise-addr", at);
  const token = await ok(manager, "swarm", "join-token", "-q", "worker");
  for (const worker of workers) await ok(worker, "swarm", "join", "--token", token, `${at}:2377`);
  await ok(manager, "network", "create", "-d", "overlay", "--attachable", "net");
  const watches: Watch[] = [];
  for (const host of swarms[engine]) {
    await ok(host, "run", "-d", "--name", "watch", "--network", "net", image, "sleep", "100000");
    const key = await ok(host, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", "watch");
    const script = new URL("support/watch-tasks.ts", import.meta.url).pathname;
    const command = ["nsenter", `--net=${key}`, process.execPath, script, "tasks.web"];
    watches.push(new Watch(inside(hostOf(made, host).state, command)));
  }
  const options = ["--name", "web", "--network", "net", "--replicas", `${replicas}`, "--restart-delay", "0s"];
  await ok(manager, "service", "create", "-d", ...options, image, "sleep", "100000");
  await until(`all tasks of ${engine}`, () => watches.every((watch) => watch.now.size === replicas));
  await delay(2_000);
  return { watches, started: [], ended: [] };
}

interface Running {
  readonly host: string;
  readonly id: string;
  readonly address: string;
  readonly startedAt: number;
}

async function tasks(engine: Engine): Promise<Running[]> {
  const perHost = swarms[engine].map(async (host) => {
    const ids = (await ok(host, "ps", "-q", "--no-trunc", "--filter", "name=web.")).split("\n").filter(Boolean);
    if (ids.length === 0) return [];
    const format = "{{.Id}} {{.NetworkSettings.Networks.net.IPAddress}} {{.State.StartedAt}}";
    const lines = (await ok(host, "inspect", "--format", format, ...ids)).split("\n");
    return lines.map((line) => {
      const [id = "", address = "", startedAt = ""] = line.split(" ");
      return { host, id, address, startedAt: Date.parse(startedAt) };
    });
  });
  return (await Promise.all(perHost)).flat();
}

/** Kills a task, and waits until its successor is known everywhere. */
async function turn(engine: Engine, { watches, started, ended }: Ready, round: number): Promise<void> {
  const before = await tasks(engine);
  const victim = before.filter(({ host }) => host === swarms[engine][round % 3])[0] ?? before[0];
  if (!victim) throw new Error(`no task of ${engine}`);
  const asked = Date.now();
  await ok(victim.host, "kill", victim.id);
  const all = (address: string, there: boolean) => watches.map((watch) => watch.when(address, there, asked));
  await until(`${victim.address} is gone`, () => all(victim.address, false).every((at) => at !== undefined));
  const finishedAt = Date.parse(await ok(victim.host, "inspect", "--format", "{{.State.FinishedAt}}", victim.id));
  ended.push(Math.max(...all(victim.address, false).map((at) => at ?? Number.NaN)) - finishedAt);
  const known = new Set(before.map(({ id }) => id));
  let next: Running | undefined;
  await until("a new task", async () => {
    next = (await tasks(engine)).find(({ id, address }) => !known.has(id) && address !== "");
    return next !== undefined;
  });
  if (!next) return;
  const { address, startedAt } = next;
  await until(`${address} is known`, () => all(address, true).every((at) => at !== undefined));
  started.push(Math.max(...all(address, true).map((at) => at ?? Number.NaN)) - startedAt);
}

const ready = { skein: await prepare("skein"), docker: await prepare("docker") };
for (let round = 0; round < kills; round++) {
  for (const engine of ["skein", "docker"] as const) await turn(engine, ready[engine], round);
}
for (const engine of ["skein", "docker"] as const) for (const watch of ready[engine].watches) await watch.end();
const p95 = (all: readonly number[]) => [...all].sort((a, b) => a - b)[Math.ceil(all.length * 0.95) - 1] ?? Number.NaN;
for (const [title, kind] of [
  ["task started → in the answers on all hosts", "started"],
  ["task ended → in none", "ended"],
] as const) {
  row(title, "ms", ready.skein[kind], ready.docker[kind]);
  console.log(`  95 of 100: skein ${p95(ready.skein[kind])} ms, docker ${p95(ready.docker[kind])} ms`);
}
console.log(`medians: ${median(ready.skein.started)} and ${median(ready.skein.ended)} ms`);
