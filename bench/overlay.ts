/**
 * Overlay networks beside the real Docker Engine of this machine: two hosts of each in one lab, on one switch, in turns.
 * Root, iperf3. `bin/node bench/overlay.ts [throughput] [ping] [names]`, without words all of them.
 */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { dockerOk } from "../src/lab/docker.ts";
import { inside } from "../src/lab/host.ts";
import { down, hostOf, up } from "../src/lab/lab.ts";
import { run } from "../src/lab/process.ts";
import { makeImages } from "../src/lab/tour.ts";
import { TestLab } from "../test/support/lab.ts";
import { inTurns, median, row, timed } from "./support/rows.ts";

const words = process.argv.slice(2);
const asked = (word: string) => words.length === 0 || words.includes(word);
const name = "ovb";
const network = "net";
const image = "skein/box";

interface Pair {
  readonly a: string;
  readonly b: string;
}
const ours: Pair = { a: "skein-a", b: "skein-b" };
const theirs: Pair = { a: "docker-a", b: "docker-b" };

await down(name);
const names = [ours.a, ours.b, theirs.a, theirs.b];
const made = await up({ name, subnet: "10.88.0.0/24", names, dockerd: [theirs.a, theirs.b] });
await using lab = new TestLab(made);
await makeImages(made, "basic");
for (const pair of [ours, theirs]) await swarm(pair);
if (asked("throughput")) await throughput();
if (asked("ping")) await pings();
if (asked("names")) await reaching();

async function swarm({ a, b }: Pair): Promise<void> {
  const at = lab.host(a).address;
  await dockerOk(lab.host(a), ["swarm", "init", "--advertise-addr", at]);
  const token = await dockerOk(lab.host(a), ["swarm", "join-token", "-q", "worker"]);
  await dockerOk(lab.host(b), ["swarm", "join", "--token", token, `${at}:2377`]);
  await dockerOk(lab.host(a), ["network", "create", "-d", "overlay", "--attachable", network]);
  await start(a, "near", network);
  await start(b, "far", network);
  await delay(2_000);
}

async function start(host: string, container: string, on: string): Promise<void> {
  await dockerOk(lab.host(host), ["run", "-d", "--name", container, "--network", on, image, "sleep", "100000"]);
}

function keyOf(host: string, container: string): Promise<string> {
  return dockerOk(lab.host(host), ["inspect", "--format", "{{.NetworkSettings.SandboxKey}}", container]);
}

function addressOf(host: string, container: string): Promise<string> {
  const format = `{{.NetworkSettings.Networks.${network}.IPAddress}}`;
  return dockerOk(lab.host(host), ["inspect", "--format", format, container]);
}

/** A program of the machine in a container's network, or in the host's own. */
async function command(host: string, container: string | undefined, args: string[]): Promise<string[]> {
  const enter = container === undefined ? [] : ["nsenter", `--net=${await keyOf(host, container)}`];
  return inside(hostOf(made, host).state, [...enter, ...args]);
}

/** Gb/s that arrive at `target` within some seconds. */
async function flow(pair: Pair, over: "overlay" | "bare", streams: number, seconds = 4): Promise<number> {
  const [near, far] = over === "overlay" ? (["near", "far"] as const) : [undefined, undefined];
  const target = far ? await addressOf(pair.b, far) : lab.host(pair.b).address;
  const [program = "", ...args] = await command(pair.b, far, ["iperf3", "--server", "--one-off"]);
  const server = spawn(program, args, { stdio: "ignore" });
  const ended = new Promise((resolve) => server.once("close", resolve));
  await delay(300);
  const client = ["iperf3", "--json", "--client", target, "--time", String(seconds), "--parallel", String(streams)];
  const { stdout } = await run(await command(pair.a, near, client));
  await ended;
  const report: unknown = JSON.parse(stdout);
  const bits = /"sum_received":\s*\{[^}]*"bits_per_second":\s*([\d.e+]+)/.exec(JSON.stringify(report))?.[1];
  if (bits === undefined) throw new Error(stdout);
  return Number(bits) / 1e9;
}

async function throughput(): Promise<void> {
  for (const streams of [1, 4]) {
    const [mine, docker] = await inTurns(
      6,
      () => flow(ours, "overlay", streams),
      () => flow(theirs, "overlay", streams),
    );
    const [bare] = await inTurns(4, () => flow(ours, "bare", streams, 3));
    row(`TCP between hosts, ${streams} stream${streams > 1 ? "s" : ""}`, "Gb/s", mine, docker);
    row("  bare path between the hosts", "Gb/s", bare);
    const share = (values: number[]) => `${((100 * median(values)) / median(bare)).toFixed(0)} %`;
    console.log(`  share of the bare path: skein ${share(mine)}, docker ${share(docker)}`);
  }
}

async function pings(): Promise<void> {
  const ping = async (pair: Pair): Promise<number> => {
    const target = await addressOf(pair.b, "far");
    const { stdout } = await run(await command(pair.a, "near", ["ping", "-q", "-i", "0.002", "-c", "500", target]));
    return Number(/= [\d.]+\/([\d.]+)\//.exec(stdout)?.[1]) * 1000;
  };
  row(
    "ping, average of 500",
    "µs",
    ...(await inTurns(
      10,
      () => ping(ours),
      () => ping(theirs),
    )),
  );
}

/** Times from `docker run` on one host until a container of the other knows the name, reaches it, and `run` returned. */
async function once(pair: Pair, container: string, on: string, watcher: string) {
  const script = new URL("support/watch-name.ts", import.meta.url).pathname;
  const [program = "", ...args] = await command(pair.a, watcher, [process.execPath, script, container]);
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await lines.next();
  const began = Date.now();
  const returned = timed(() => start(pair.b, container, on));
  const [known = 0, reached = 0] = String((await lines.next()).value)
    .split(" ")
    .map(Number);
  return { known: known - began, reached: reached - began, returned: await returned };
}

async function reaching(): Promise<void> {
  const measure = async (title: string, times: number, job: (pair: Pair, turn: number) => ReturnType<typeof once>) => {
    const found: Record<"known" | "reached" | "returned", [number[], number[]]> = {
      known: [[], []],
      reached: [[], []],
      returned: [[], []],
    };
    for (let turn = 0; turn < times; turn++) {
      for (const [index, pair] of [ours, theirs].entries()) {
        const result = await job(pair, turn);
        for (const key of ["known", "reached", "returned"] as const) found[key][index === 0 ? 0 : 1].push(result[key]);
      }
    }
    row(`${title}: run issued → name known elsewhere`, "ms", ...found.known);
    row(`${title}: run issued → reached from there`, "ms", ...found.reached);
    row(`${title}: docker run -d itself`, "ms", ...found.returned);
  };
  await measure("warm", 10, async (pair, turn) => {
    const result = await once(pair, `w${turn}`, network, "near");
    await dockerOk(lab.host(pair.b), ["rm", "-f", `w${turn}`]);
    return result;
  });
  await measure("cold", 6, async (pair, turn) => {
    const fresh = `fresh${turn}`;
    await dockerOk(lab.host(pair.a), ["network", "create", "-d", "overlay", "--attachable", fresh]);
    await start(pair.a, `watch${turn}`, fresh);
    await delay(500);
    const result = await once(pair, `c${turn}`, fresh, `watch${turn}`);
    await dockerOk(lab.host(pair.b), ["rm", "-f", `c${turn}`]);
    await dockerOk(lab.host(pair.a), ["rm", "-f", `watch${turn}`]);
    return result;
  });
}
