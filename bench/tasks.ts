/**
 * Tasks of a service on three hosts beside the real Docker Engine of this machine: two swarms of three hosts in one lab,
 * in turns. Root. `bin/node bench/tasks.ts [create] [overlay] [replace] [--turns 3] [--sizes 3,30,90] [--only skein|docker]`, without
 * words all of them.
 *
 * Measured from the request to the manager's API: until all tasks are Running; until no container of theirs is left on
 * any host; from the end of a task's process until its slot has a running task again (`--restart-delay 0s`).
 */
import { request } from "node:http";
import { parseArgs } from "node:util";
import { sleep, systemClock } from "../src/base/clock.ts";
import { dockerOk } from "../src/lab/docker.ts";
import { down, up } from "../src/lab/lab.ts";
import type { HostSpec } from "../src/lab/spec.ts";
import { makeImages } from "../src/lab/tour.ts";
import { TestLab } from "../test/support/lab.ts";
import { inTurns, row } from "./support/rows.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    turns: { type: "string", default: "3" },
    only: { type: "string" },
    sizes: { type: "string", default: "3,30,90" },
  },
});
const asked = (word: string) => positionals.length === 0 || positionals.includes(word);
const turns = Number(values.turns);
const filter = (of: Record<string, string[]>) => encodeURIComponent(JSON.stringify(of));
const sizes = values.sizes.split(",").map(Number);
const LOOK_MS = 15;
const PATIENCE_MS = 60_000;
const name = "tsk";
const ours = ["skein-a", "skein-b", "skein-c"];
const theirs = ["docker-a", "docker-b", "docker-c"];

await down(name);
const parts = [" create → all Running", " rm → no container left"];
const made = await up({ name, subnet: "10.139.0.0/24", names: [...ours, ...theirs], dockerd: theirs });
await using lab = new TestLab(made);
await makeImages(made, "basic");
for (const hosts of [ours, theirs]) await swarm(hosts);

async function swarm([first = "", ...others]: string[]): Promise<void> {
  const manager = lab.host(first);
  await dockerOk(manager, ["swarm", "init", "--advertise-addr", manager.address]);
  const token = await dockerOk(manager, ["swarm", "join-token", "-q", "worker"]);
  for (const host of others) {
    await dockerOk(lab.host(host), ["swarm", "join", "--token", token, `${manager.address}:2377`]);
  }
  await dockerOk(manager, ["network", "create", "-d", "overlay", "net"]);
  // The first service of a swarm pays for its ingress network.
  await service(hostsOf([first, ...others]), 3, true);
}

function hostsOf(names: readonly string[]): HostSpec[] {
  return names.map((one) => lab.host(one));
}

function api<T>(host: HostSpec, path: string, method = "GET", body?: unknown): Promise<T> {
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json" };
    const call = request({ socketPath: host.socket, path: `/v1.41${path}`, method, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part) => {
        text += part;
      });
      response.on("end", () => {
        if ((response.statusCode ?? 500) >= 300) reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`));
        else resolve((text === "" ? undefined : JSON.parse(text)) as T);
      });
    });
    call.on("error", reject);
    call.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

interface Task {
  readonly ID: string;
  readonly NodeID: string;
  readonly DesiredState: string;
  readonly Status: { readonly State: string; readonly ContainerStatus?: { readonly ContainerID: string } };
}

async function running(manager: HostSpec): Promise<Task[]> {
  const tasks = await api<Task[]>(manager, `/tasks?filters=${filter({ service: ["bench"] })}`);
  return tasks.filter(({ DesiredState, Status }) => DesiredState === "running" && Status.State === "running");
}

/** Milliseconds until it is so. */
async function until(what: string, done: () => Promise<boolean>): Promise<number> {
  const start = performance.now();
  while (!(await done())) {
    if (performance.now() - start > PATIENCE_MS) throw new Error(`gave up waiting for ${what}`);
    await sleep(systemClock, LOOK_MS);
  }
  return performance.now() - start;
}

async function create(manager: HostSpec, replicas: number, overlay: boolean): Promise<number> {
  const start = performance.now();
  await api(manager, "/services/create", "POST", {
    Name: "bench",
    Mode: { Replicated: { Replicas: replicas } },
    TaskTemplate: {
      ContainerSpec: { Image: "skein/box", Command: ["sleep", "100000"], StopSignal: "SIGKILL" },
      RestartPolicy: { Condition: "any", Delay: 0 },
      ...(overlay ? { Networks: [{ Target: "net" }] } : {}),
    },
  });
  await until(`${replicas} tasks`, async () => (await running(manager)).length === replicas);
  return performance.now() - start;
}

async function remove(hosts: readonly HostSpec[]): Promise<number> {
  const [manager] = hosts;
  if (!manager) throw new Error("no hosts");
  const start = performance.now();
  await api(manager, "/services/bench", "DELETE");
  await until("no containers", async () => {
    const lists = await Promise.all(hosts.map((host) => api<unknown[]>(host, "/containers/json?all=1")));
    return lists.every((list) => list.length === 0);
  });
  return performance.now() - start;
}

/** From create to Running, then away with it: the times of both. */
async function service(hosts: readonly HostSpec[], replicas: number, overlay: boolean): Promise<[number, number]> {
  const [manager] = hosts;
  if (!manager) throw new Error("no hosts");
  const made = await create(manager, replicas, overlay);
  await sleep(systemClock, 500);
  const removed = await remove(hosts);
  await sleep(systemClock, 500);
  return [made, removed];
}

async function replaced(hosts: readonly HostSpec[]): Promise<number> {
  const [manager] = hosts;
  if (!manager) throw new Error("no hosts");
  await create(manager, 3, true);
  const [victim] = await running(manager);
  const id = victim?.Status.ContainerStatus?.ContainerID ?? "";
  const nodes = await Promise.all(hosts.map((host) => api<{ Swarm: { NodeID: string } }>(host, "/info")));
  const at = hosts[nodes.findIndex(({ Swarm }) => Swarm.NodeID === victim?.NodeID)] ?? manager;
  await sleep(systemClock, 500);
  await api(at, `/containers/${id}/kill`, "POST");
  const took = await until("a replacement", async () => {
    const tasks = await running(manager);
    return tasks.length === 3 && tasks.every(({ ID }) => ID !== victim?.ID);
  });
  await remove(hosts);
  return took;
}

async function sideBySide(
  what: string,
  job: (hosts: readonly HostSpec[]) => Promise<readonly number[]>,
  parts: string[],
) {
  const results: [number[][], number[][]] = [[], []];
  const sides = [values.only === "docker" ? [] : ours, values.only === "skein" ? [] : theirs];
  await inTurns(
    turns,
    ...sides.map((names, side) => async () => {
      if (names.length > 0) results[side]?.push([...(await job(hostsOf(names)))]);
      return 0;
    }),
  );
  for (const [at, part] of parts.entries()) {
    const seconds = (side: 0 | 1) => results[side].map((times) => (times[at] ?? 0) / 1000);
    row(`${what}${part}`, "s", seconds(0), seconds(1));
  }
}

for (const [word, overlay, amounts] of [
  ["create", false, sizes],
  ["overlay", true, sizes.filter((size) => size < 90)],
] as const) {
  if (!asked(word)) continue;
  for (const replicas of amounts) {
    const what = `${replicas} tasks${overlay ? " on an overlay," : ","}`;
    await sideBySide(what, (hosts) => service(hosts, replicas, overlay), parts);
  }
}
if (asked("replace")) await sideBySide("a killed task", async (hosts) => [await replaced(hosts)], [" replaced"]);
