/**
 * What many entries on one network cost: nodes in processes of their own on loopback, real sockets, real time.
 * `bin/node bench/networkdb-entries.ts [entries] [nodes]`, default 100,000 and 4; about four minutes.
 *
 * A container has two entries, as Docker's: its endpoint and where it is. All nodes publish at once; then nothing happens
 * for a while; then single changes; then a node comes that knows nothing. Printed: times, CPU, memory, the longest that a
 * node computed without a break, and every counter that tells of a limit.
 *
 * `SKEIN_BENCH_PROFILE=dir` writes CPU profiles.
 */
import { sleep, systemClock } from "../src/base/clock.ts";
import { Child } from "./support/process.ts";

const [entries = 100_000, count = 4] = process.argv.slice(2).map(Number);
const profiles = process.env.SKEIN_BENCH_PROFILE;
const port = 27_946;
const idleSeconds = 122;
const addressOf = (index: number) => `127.0.9.${index + 1}`;
interface NodeUsage {
  readonly cpuMs: number;
  readonly rssMb: number;
  readonly heapMb: number;
  readonly busiestMs: number;
}
interface State {
  readonly known: number;
  readonly changedAt: number;
  readonly peers: number;
}

// Nodes mind their memory as skeind does.
Object.assign(process.env, {
  NODE_OPTIONS: "--max-semi-space-size=1",
  MALLOC_ARENA_MAX: "1",
  MALLOC_TRIM_THRESHOLD_: "65536",
});

const now = () => performance.timeOrigin + performance.now();
const wait = (ms: number) => sleep(systemClock, ms);
const percentile = (values: readonly number[], share: number) =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? Number.NaN;

await using stack = new AsyncDisposableStack();
const nodes: Child[] = [];
const start = (index: number) => {
  const node = stack.use(new Child("./gossip-node.ts", [addressOf(index), String(port)]));
  nodes.push(node);
  return node;
};
const states = () => Promise.all(nodes.map((node) => node.ask<State>("state")));
const usages = () => Promise.all(nodes.map((node) => node.ask<NodeUsage>("usage")));

async function until(what: string, done: () => Promise<boolean>, patienceMs = 180_000): Promise<void> {
  const began = now();
  while (!(await done())) {
    if (now() - began > patienceMs) {
      const stats = await Promise.all(nodes.map((node) => node.ask("stats")));
      throw new Error(`gave up waiting for ${what}: ${JSON.stringify([await states(), stats])}`);
    }
    await wait(100);
  }
}

/** Runs a phase and prints what each node used for it, averaged, and the worst pause of any. */
async function phase(name: string, job: () => Promise<string>): Promise<void> {
  const before = await usages();
  const began = now();
  if (profiles) await Promise.all(nodes.map((node) => node.ask("profile", "")));
  const text = await job();
  const after = await usages();
  if (profiles) {
    const file = (index: number) => `${profiles}/${name.replaceAll(/\W+/g, "-")}-${index}.cpuprofile`;
    await Promise.all(nodes.map((node, index) => node.ask("profile", file(index))));
  }
  const seconds = (now() - began) / 1000;
  const cpu = after.map(({ cpuMs }, index) => cpuMs - (before[index]?.cpuMs ?? 0));
  const mean = (values: readonly number[]) => Math.round(values.reduce((sum, value) => sum + value, 0) / values.length);
  const worst = Math.max(...after.map(({ busiestMs }) => busiestMs));
  console.log(
    `${name}: ${text}; CPU per node ${(mean(cpu) / 1000).toFixed(2)} s in ${seconds.toFixed(1)} s`,
    `(${(mean(cpu) / seconds / 10).toFixed(1)} %), at most ${worst} ms at a time,`,
    `RSS ${mean(after.map((u) => u.rssMb))} MB, heap ${mean(after.map((u) => u.heapMb))} MB`,
  );
}

for (let index = 0; index < count; index++) start(index);
await Promise.all(nodes.map((node, index) => node.ask("join", index === 0 ? [] : [addressOf(0)])));
await until("all members", async () => (await states()).every(({ peers }) => peers === count));
await phase("empty", async () => {
  await wait(10_000);
  return "nothing published";
});

const total = Math.floor(entries / 2 / count) * 2 * count;
await phase("published at once", async () => {
  const began = now();
  await Promise.all(nodes.map((node) => node.ask("publish", total / 2 / count)));
  await until("all entries everywhere", async () => (await states()).every(({ known }) => known === total));
  const last = Math.max(...(await states()).map(({ changedAt }) => changedAt));
  return `${total} entries on ${count} nodes known everywhere after ${((last - began) / 1000).toFixed(1)} s`;
});
await phase("idle", async () => {
  await wait(idleSeconds * 1000);
  return `${total} entries, nothing changes`;
});

let extra = 0;
await phase("single changes", async () => {
  const times: number[] = [];
  for (let i = 0; i < 40; i++) {
    const [writer, ...others] = nodes.toSpliced(0, i % count).concat(nodes.slice(0, i % count));
    const key = `awaited${i}`;
    const at = (await writer?.ask<number>("one", key)) ?? 0;
    extra += 2;
    const all = async () => Promise.all(others.map((node) => node.ask<number | undefined>("seen", key)));
    await until(key, async () => (await all()).every((seen) => seen !== undefined));
    times.push(...(await all()).map((seen) => (seen ?? 0) - at));
    await wait(300);
  }
  return `a change is known elsewhere after ${percentile(times, 0.5).toFixed(0)} ms (p95 ${percentile(times, 0.95).toFixed(0)} ms)`;
});

await phase("a node joins", async () => {
  const began = now();
  const node = start(count);
  await node.ask("join", [addressOf(0)]);
  await until("the newcomer knows all", async () => (await node.ask<State>("state")).known === total + extra);
  return `knows all after ${((now() - began) / 1000).toFixed(1)} s, its process's start included`;
});

for (const node of nodes) {
  const stats = await node.ask<Record<string, number>>("stats");
  const told = Object.entries(stats).filter(
    ([name, value]) => /dropped|ignored|Failures|full|sync|queue/i.test(name) && value,
  );
  console.log(Object.fromEntries(told));
}
