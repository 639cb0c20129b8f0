/** Faults of a lab, drawn from a seed, and the state in which every run of them must end. */
import assert from "node:assert/strict";
import { sleep, systemClock } from "../../src/base/clock.ts";
import { startDaemon } from "../../src/lab/host.ts";
import { hostOf } from "../../src/lab/lab.ts";
import { end, isAlive } from "../../src/lab/process.ts";
import { saveState } from "../../src/lab/state.ts";
import { isPlugged, setCable } from "../../src/lab/switch.ts";
import {
  doorsOf,
  inconsistencies,
  legBackends,
  meshBackends,
  meshDoors,
  tasksOf,
  translations,
} from "./consistency.ts";
import { eventually, type TestLab } from "./lab.ts";

/** Uniform in [0,1), the same for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Kills a host's engine and gives it no time. */
export async function killDaemon(lab: TestLab, host: string): Promise<void> {
  const { daemon } = hostOf(lab.lab, host).state;
  if (daemon) assert.ok(await end(daemon, "SIGKILL", 10_000));
}

/** Starts a host's engine when it does not run. */
export async function ensureDaemon(lab: TestLab, host: string): Promise<void> {
  const { host: spec, state } = hostOf(lab.lab, host);
  if (isAlive(state.daemon)) return;
  lab.lab.state.running[host] = await startDaemon(spec, state, lab.lab.state.engines[host]);
  saveState(lab.lab.state);
}

/** Kills a program of a host by its name; it is for `skeind` to start it again. */
export async function killProgram(lab: TestLab, host: string, program: "containerd" | "etcd"): Promise<void> {
  await lab.in(host, "pkill", "-KILL", "-x", program);
}

/** Puts a host's state on a disk of its own, of this size; for a host that has nothing yet but images. */
export async function onSmallDisk(lab: TestLab, host: string, megabytes: number): Promise<void> {
  await killDaemon(lab, host);
  await killProgram(lab, host, "containerd");
  const dir = lab.host(host).stateDir;
  const script = `set -e
cp -a ${dir} /run/small-disk
mount -n -t tmpfs -o size=${megabytes}m tmpfs ${dir}
cp -a /run/small-disk/. ${dir}
rm -rf /run/small-disk`;
  const { code, stderr } = await lab.in(host, "sh", "-c", script);
  assert.equal(code, 0, stderr);
  await ensureDaemon(lab, host);
}

/** Takes the last byte of a small disk. */
export async function fillDisk(lab: TestLab, host: string): Promise<void> {
  const { stderr } = await lab.in(host, "dd", "if=/dev/zero", `of=${lab.host(host).stateDir}/filled`, "bs=4k");
  assert.match(stderr, /No space left on device/);
}

export async function freeDisk(lab: TestLab, host: string): Promise<void> {
  await lab.in(host, "rm", "-f", `${lab.host(host).stateDir}/filled`);
}

/** Kills the process of a random container of a service on a host. */
export async function killTask(lab: TestLab, host: string, random: () => number): Promise<void> {
  const { stdout } = await lab.try(host, "ps", "--quiet", "--filter", "label=com.docker.swarm.task.id");
  const ids = stdout.split("\n").filter(Boolean);
  const id = ids[Math.floor(random() * ids.length)];
  if (id) await lab.try(host, "kill", id);
}

export function cable(lab: TestLab, host: string, plugged: boolean): void {
  const spec = lab.host(host);
  if (isPlugged(spec) !== plugged) setCable(spec, plugged);
}

export interface Wanted {
  /** A replicated service on the network, published on port 8080 of every host. */
  readonly service: string;
  readonly replicas: number;
  /** A global service on the same network: a place on each host to look from. */
  readonly everywhere: string;
  readonly network: string;
}

/** What is not as it should be, one line each. */
export async function wrongs(lab: TestLab, wanted: Wanted): Promise<string[]> {
  const found: string[] = [];
  const hosts = lab.lab.spec.hosts.map(({ name }) => name);
  const asked = await lab.try(hosts[0] ?? "", "node", "ls", "--format", "{{.Hostname}} {{.Status}}");
  if (asked.code !== 0) return [`no answer: ${asked.stderr.trim()}`];
  const nodes = asked.stdout.trim().split("\n");
  for (const host of hosts) if (!nodes.includes(`${host} Ready`)) found.push(`${host} is not ready`);
  const running = new Set<string>();
  for (const [service, count] of [
    [wanted.service, wanted.replicas],
    [wanted.everywhere, hosts.length],
  ] as const) {
    const args = ["service", "ps", service, "--no-trunc", "--filter", "desired-state=running"];
    const { stdout } = await lab.try(hosts[0] ?? "", ...args, "--format", "{{.ID}} {{.Name}} {{.CurrentState}}");
    const lines = stdout.split("\n").filter(Boolean);
    if (lines.length !== count) found.push(`${service}: ${lines.length} tasks are wanted, not ${count}`);
    for (const line of lines) {
      if (!/ Running /.test(line)) found.push(`${service}: ${line}`);
      running.add(line.split(" ")[0] ?? "");
    }
    const slots = lines.map((line) => line.split(" ")[1]);
    if (new Set(slots).size !== slots.length) found.push(`${service}: two tasks in one slot: ${slots.sort()}`);
  }
  for (const host of hosts) found.push(...(await runningTwice(lab, host, running)));
  if (running.size > 0) found.push(`not in any containerd: ${[...running]}`);
  if (found.length > 0) return found;
  found.push(...(await givenTwice(lab, wanted.network)), ...(await disagreements(lab, wanted)));
  return found;
}

/** Containers of a host against the tasks that are to run; strikes off what it found. Looks at containerd's shims too. */
async function runningTwice(lab: TestLab, host: string, running: Set<string>): Promise<string[]> {
  const found: string[] = [];
  const format = '{{.ID}} {{.Label "com.docker.swarm.task.id"}}';
  const { stdout } = await lab.try(host, "ps", "--no-trunc", "--format", format);
  const containers = stdout.split("\n").filter(Boolean);
  for (const line of containers) {
    const [id = "", task = ""] = line.split(" ");
    if (!running.delete(task)) found.push(`${host}: container ${id.slice(0, 12)} runs for no task (${task})`);
  }
  const shown = new Set(containers.map((line) => line.split(" ")[0]));
  const { stdout: shims } = await lab.in(host, "pgrep", "-a", "-f", "^[^ ]*containerd-shim-runc-v2");
  for (const [, id = ""] of shims.matchAll(/ -id (\S+)/g)) {
    if (!shown.has(id)) found.push(`${host}: a shim of ${id.slice(0, 12)}, which is no running container`);
  }
  return found;
}

/** Addresses of the network that more than one endpoint has. */
async function givenTwice(lab: TestLab, network: string): Promise<string[]> {
  const owners = new Map<string, string[]>();
  for (const { name } of lab.lab.spec.hosts) {
    const { stdout } = await lab.try(name, "network", "inspect", network);
    const [shown] = JSON.parse(stdout) as { Containers: Record<string, { Name: string; IPv4Address: string }> }[];
    for (const { Name, IPv4Address } of Object.values(shown?.Containers ?? {})) {
      owners.set(IPv4Address, [...(owners.get(IPv4Address) ?? []), `${name}/${Name}`]);
    }
  }
  return [...owners].filter(([, of]) => of.length > 1).map(([address, of]) => `${address} belongs to ${of.join(", ")}`);
}

/** Kernel entries, balancers and names of all hosts against what runs. */
async function disagreements(lab: TestLab, { service, everywhere, network }: Wanted): Promise<string[]> {
  const found = [...(await inconsistencies(lab, network)), ...(await inconsistencies(lab, "ingress"))];
  const expected = {
    net: await tasksOf(lab, service, network),
    ingress: await tasksOf(lab, service, "ingress"),
    doors: await meshDoors(lab),
  };
  for (const { name: host } of lab.lab.spec.hosts) {
    const filter = `label=com.docker.swarm.service.name=${everywhere}`;
    const [id = ""] = (await lab.ok(host, "ps", "--quiet", "--filter", filter)).split("\n");
    const pin = await lab.ok(host, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", id);
    const compare = (what: string, have: string[], want: string[]) => {
      if (have.join() !== want.join()) found.push(`${host}: ${what} ${have}, not ${want}`);
    };
    compare("mesh", await meshBackends(lab, host), expected.ingress);
    compare("mesh by the host's leg", await legBackends(lab, host), expected.ingress);
    const mine = `label=com.docker.swarm.service.name=${service}`;
    const tasks = (await lab.ok(host, "ps", "--quiet", "--filter", mine)).split("\n").filter(Boolean);
    for (const task of tasks) compare(`doors of ${task}`, await doorsOf(lab, host, task), expected.doors);
    const vips = await translations(lab, host, pin, "skein-vips");
    for (const address of expected.net) if (!vips.includes(address)) found.push(`${host}: no VIP backend ${address}`);
    const query = ["dig", "+short", "+tries=1", "+time=2", "@127.0.0.11", `tasks.${service}`];
    const { stdout } = await lab.in(host, "nsenter", `--net=${pin}`, ...query);
    compare("names", stdout.split("\n").filter(Boolean).sort(), expected.net);
  }
  return found;
}

/** Entry host and task between which no connection comes about, for a failure to tell. */
export async function brokenPaths(lab: TestLab): Promise<string[]> {
  const broken: string[] = [];
  for (const { name } of lab.lab.spec.hosts) {
    for (const backend of new Set(await meshBackends(lab, name))) {
      const curl = ["curl", "-s", "-m", "1", "-o", "/dev/null", `http://${backend}:8080/`];
      const { code } = await lab.in(name, "nsenter", "--net=/run/docker/netns/ingress_sbox", ...curl);
      if (code !== 0) broken.push(`${name} to ${backend}: curl ${code}`);
    }
  }
  return broken;
}

/** Waits for the state without wrongs; gives the milliseconds it took. Fails with what is still wrong. */
export async function healed(lab: TestLab, wanted: Wanted, timeoutMs: number): Promise<number> {
  const began = Date.now();
  let last: string[] = [];
  await eventually(
    "everything is right again",
    async () => {
      last = await wrongs(lab, wanted).catch((error) => [String(error)]);
      if (last.length > 0) await sleep(systemClock, 200);
      return last.length === 0;
    },
    timeoutMs,
  ).catch((error) => {
    throw new Error(`${error.message}\n${last.join("\n")}`);
  });
  return Date.now() - began;
}
