/**
 * What services cost on the network: requests by a VIP and by the routing mesh beside another way of the same client to the
 * same task, on this host and on another. A lab of two hosts, nginx in the tasks, wrk as the client; the ways take turns, and
 * only the ratios within a group mean anything. What client and task take of the processor for a request depends least on what
 * else the machine does.
 *
 * - A client in a container: straight to the task's address, by the VIP, by the mesh of its own host.
 * - A program of the entry host itself, which has no address on an overlay: by the mesh of its host beside the container's
 *   straight way. Both are one machine's own programs; what lies between is the host and its leg in the ingress network.
 * - "Last leg": from the entry host's ingress_sbox to the task's ingress address.
 * - A client outside: the task's own host as the entry node beside another one. What lies between is the overlay. The same by an
 *   entry node with a task here.
 * - A client outside of a port with the PROXY protocol, beside one without, and beside HAProxy on the same host before the same
 *   task, where there is one. What the carrying process takes of the processor for each request says more than the rates: those
 *   are of a machine on which wrk and nginx want the same cores. And how long the daemon takes to answer meanwhile.
 * - A program of the host by IPv6, which the daemon carries, beside IPv4, which the kernel translates.
 *
 * Root, wrk. `bin/node bench/services.ts [rounds] [here elsewhere outside proxy ipv6 …]`
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { inside } from "../src/lab/host.ts";
import { hostOf } from "../src/lab/lab.ts";
import { run } from "../src/lab/process.ts";
import { eventually, TestLab } from "../test/support/lab.ts";
import { median } from "./support/rows.ts";

const rounds = Number(process.argv[2] ?? 5);
const chosen = process.argv.slice(3);
const [here, there] = ["here", "there"];
await using lab = await TestLab.up("bsv", "10.60.0.0/24", { names: [here, there], images: ["basic", "web"] });
await lab.swarm();
const docker = (...args: string[]) => lab.ok(here, ...args);

const page = (listen: string) => `daemon off; user root; worker_processes 1; pid /run/nginx.pid; error_log stderr crit;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 100000000; server { listen ${listen}; location / { return 200 "ok"; } } }`;
const file = `${lab.host(here).runDir}/nginx.conf`;
for (const [name, listen] of [
  ["page", "80"],
  ["headed", "80 proxy_protocol"],
] as const) {
  writeFileSync(file, page(listen));
  await docker("config", "create", name, file);
}
await docker("network", "create", "-d", "overlay", "--attachable", "net");
for (const [service, host, port, ...more] of [
  ["near", here, 8081],
  ["far", there, 8082],
  ["told", here, 8083, "--label", "skein.publish.proxy=v2"],
] as const) {
  const where = ["--constraint", `node.hostname==${host}`, "--network", "net", "--publish", `${port}:80`, ...more];
  const config = ["--config", `source=${service === "told" ? "headed" : "page"},target=/etc/nginx/nginx.conf`];
  await docker("service", "create", "-q", "--no-resolve-image", "--name", service, ...where, ...config, "nginx");
}
await docker("run", "-d", "--name", "client", "--network", "net", "skein/box", "sleep", "100000");
const pin = await docker("inspect", "--format", "{{.NetworkSettings.SandboxKey}}", "client");

async function addressOf(service: string, host: string, network = "net"): Promise<string> {
  const [id = ""] = (
    await lab.ok(host, "ps", "-q", "--filter", `label=com.docker.swarm.service.name=${service}`)
  ).split("\n");
  return lab.ok(host, "inspect", "--format", `{{.NetworkSettings.Networks.${network}.IPAddress}}`, id);
}
async function vipOf(service: string): Promise<string> {
  const shown: unknown = JSON.parse(
    await docker("network", "inspect", "--verbose", "--format", "{{json .Services}}", "net"),
  );
  const services = shown as Record<string, { VIP: string } | undefined>;
  return services[service]?.VIP ?? "";
}
await eventually("both services known", async () => (await vipOf("near")) !== "" && (await vipOf("far")) !== "");

const inClient = inside(hostOf(lab.lab, here).state, ["nsenter", `--net=${pin}`]);
const inSandbox = inside(hostOf(lab.lab, here).state, ["nsenter", "--net=/run/docker/netns/ingress_sbox"]);
const entry = lab.host(here).address;
const onHost = inside(hostOf(lab.lab, here).state, []);
const other = lab.host(there).address;
/** HAProxy before the task that wants the header, as somebody would run it on the host; undefined where there is none. */
async function startHaproxy(): Promise<ChildProcess | undefined> {
  if ((await run(["sh", "-c", "command -v haproxy"])).code !== 0) return undefined;
  const [id = ""] = (await docker("ps", "-q", "--no-trunc", "--filter", "name=told")).split("\n");
  const shown: unknown = JSON.parse(
    await docker("network", "inspect", "--format", "{{json .Containers}}", "docker_gwbridge"),
  );
  const [address] = (shown as Record<string, { IPv4Address: string }>)[id]?.IPv4Address.split("/") ?? [];
  const config = `${lab.host(here).runDir}/haproxy.cfg`;
  const lines = [
    "global\n maxconn 1000\n nbthread 1",
    "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s",
    `listen told\n bind ${entry}:8084\n server task ${address}:80 send-proxy-v2\n`,
  ];
  writeFileSync(config, lines.join("\n"));
  return spawn("nsenter", [`--net=${lab.host(here).netnsPath}`, "haproxy", "-f", config], { stdio: "ignore" });
}
const haproxy = await startHaproxy();
const daemon = hostOf(lab.lab, here).state.daemon?.pid;

/** First of each group: what the others are compared with. */
const groups = {
  here: {
    "container, task here, direct": { by: inClient, url: `http://${await addressOf("near", here)}/` },
    "container, task here, VIP": { by: inClient, url: `http://${await vipOf("near")}/` },
    "container, task here, mesh": { by: inClient, url: `http://${entry}:8081/` },
    "entry host, task here, mesh": { by: onHost, url: `http://${entry}:8081/` },
  },
  elsewhere: {
    "container, task elsewhere, direct": { by: inClient, url: `http://${await addressOf("far", there)}/` },
    "container, task elsewhere, VIP": { by: inClient, url: `http://${await vipOf("far")}/` },
    "last leg": { by: inSandbox, url: `http://${await addressOf("far", there, "ingress")}:8082/` },
    "entry host, task elsewhere, mesh": { by: onHost, url: `http://${entry}:8082/` },
    "container, task elsewhere, mesh": { by: inClient, url: `http://${entry}:8082/` },
  },
  outside: {
    "outside, entry at the task": { by: [], url: `http://${other}:8082/` },
    "outside, task elsewhere": { by: [], url: `http://${entry}:8082/` },
    "outside, another task here": { by: [], url: `http://${entry}:8081/` },
  },
  proxy: {
    "outside, task here, no header": { by: [], url: `http://${entry}:8081/`, carrier: daemon },
    "outside, task here, PROXY": { by: [], url: `http://${entry}:8083/`, carrier: daemon },
    ...(haproxy && { "the same by HAProxy": { by: [], url: `http://${entry}:8084/`, carrier: haproxy.pid } }),
  },
  ipv6: {
    "host, task here, IPv4": { by: onHost, url: "http://127.0.0.1:8081/", carrier: daemon },
    "host, task here, IPv6": { by: onHost, url: "http://[::1]:8081/", carrier: daemon },
  },
} as const;
interface Way {
  readonly name: string;
  readonly by: readonly string[];
  readonly url: string;
  /** The process that carries, if one does. */
  readonly carrier?: number | undefined;
}
const ways: Way[][] = Object.entries(groups)
  .filter(([name]) => chosen.length === 0 || chosen.includes(name))
  .map(([, group]) => Object.entries<Omit<Way, "name">>(group).map(([name, way]) => ({ name, ...way })));

const units: Record<string, number> = { us: 1, ms: 1_000, s: 1_000_000 };
async function wrk({ name, by, url }: Way, connections: number, ...more: string[]) {
  const timed = "TIMEFORMAT='Processor: %U %S'; time \"$@\"";
  const args = [...by, "bash", "-c", timed, "wrk", "wrk", "-t1", `-c${connections}`, "-d1s", ...more, url];
  const { code, stdout, stderr } = await run(args, { timeoutMs: 20_000 });
  const rate = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]);
  const [, time, unit = ""] = /Latency\s+([\d.]+)(us|ms|s)/.exec(stdout) ?? [];
  if (code !== 0 || !(rate > 0) || /Non-2xx|connect [1-9]/.test(stdout)) throw new Error(`${name}: ${stdout}${stderr}`);
  const requests = Number(/(\d+) requests in/.exec(stdout)?.[1]);
  const [, user = "", system = ""] = /Processor: ([\d.]+) ([\d.]+)/.exec(stderr) ?? [];
  const used = (Number(user) + Number(system)) * 1_000_000;
  return { rate, requests, used, latency: Number(time) * (units[unit] ?? Number.NaN) };
}

/** What the tasks of a host have had of the processor, in µs. */
async function usedByTasks(host: string): Promise<number> {
  const ids = (await lab.ok(host, "ps", "-q", "--no-trunc", "--filter", "label=com.docker.swarm.service.name")).split(
    "\n",
  );
  const uses = ids.map(async (id) => {
    const path = `/containers/${id}/stats?stream=false&one-shot=true`;
    const asked = request({ socketPath: lab.host(host).socket, path }).end();
    const [answer] = (await once(asked, "response")) as [IncomingMessage];
    const { cpu_stats } = JSON.parse(Buffer.concat(await answer.toArray()).toString()) as Stats;
    return cpu_stats.cpu_usage.total_usage / 1_000;
  });
  return (await Promise.all(uses)).reduce((sum, use) => sum + use, 0);
}
interface Stats {
  readonly cpu_stats: { readonly cpu_usage: { readonly total_usage: number } };
}
const usedByAllTasks = async () => (await usedByTasks(here)) + (await usedByTasks(there));

/** What a process has had of the processor, all its threads, in µs. */
function spent(pid: number): number {
  const of = (thread: string) => Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]);
  return readdirSync(`/proc/${pid}/task`).reduce((sum, thread) => sum + of(thread) / 1_000, 0);
}

/** How long the daemon takes to answer a question, in µs. */
async function answered(): Promise<number> {
  const start = performance.now();
  const asked = request({ socketPath: lab.host(here).socket, path: "/_ping" }).end();
  const [answer] = await once(asked, "response");
  answer.resume();
  return (performance.now() - start) * 1_000;
}

/** As `wrk`, with what it costs who carries, and the daemon's answers meanwhile. */
async function watched(way: Way, found: Figures): Promise<void> {
  const { carrier } = way;
  if (carrier === undefined) return;
  const before = spent(carrier);
  const running = wrk(way, 16);
  const over = running.then(() => true);
  while (!(await Promise.race([over, sleep(25, false)]))) found.answers.push(await answered());
  found.costs.push((spent(carrier) - before) / (await running).requests);
}

interface Figures {
  readonly rates: number[];
  readonly latencies: number[];
  readonly connections: number[];
  /** µs of client and task for a request. */
  readonly uses: number[];
  /** µs of the carrying process for a request, and of the daemon for a question meanwhile. */
  readonly costs: number[];
  readonly answers: number[];
}
const results = new Map<Way, Figures>();
for (const way of ways.flat()) {
  results.set(way, { rates: [], latencies: [], connections: [], uses: [], costs: [], answers: [] });
  await eventually(way.name, async () =>
    wrk(way, 16).then(
      () => true,
      () => false,
    ),
  );
}
for (let round = 0; round < rounds; round++) {
  for (const [way, found] of results) {
    const { rates, latencies, connections, uses } = found;
    const before = await usedByAllTasks();
    const { rate, used, requests } = await wrk(way, 16);
    uses.push((used + (await usedByAllTasks()) - before) / requests);
    rates.push(rate);
    latencies.push((await wrk(way, 1)).latency);
    connections.push((await wrk(way, 16, "-H", "Connection: close")).rate);
    await watched(way, found);
  }
}

const spread = (values: readonly number[], digits = 0) => {
  const [least, most] = [Math.min(...values), Math.max(...values)].map((value) => value.toFixed(digits));
  return `${median(values).toFixed(digits).padStart(6)} [${least}–${most}]`.padEnd(22);
};
/** Of the medians, and of what either reaches at its best: what else the machine does only ever takes. */
const times = (a: readonly number[], b: readonly number[]) =>
  `× ${(median(a) / median(b)).toFixed(2)}, best × ${(Math.max(...a) / Math.max(...b)).toFixed(2)}  `;
console.log(
  `${"".padEnd(35)}${"requests/s".padEnd(44)}${"latency of one at a time, µs".padEnd(34)}${"new connections/s".padEnd(44)}µs of client and task`,
);
for (const group of ways) {
  const base = group[0] && results.get(group[0]);
  for (const way of group) {
    const found = results.get(way);
    if (!base || !found) continue;
    const added = `+ ${(median(found.latencies) - median(base.latencies)).toFixed(0)} µs  `;
    console.log(
      `${way.name.padEnd(35)}${spread(found.rates)}${times(found.rates, base.rates)}` +
        `${spread(found.latencies)}${added.padEnd(12)}${spread(found.connections)}${times(found.connections, base.connections)}` +
        `${spread(found.uses, 1)}× ${(median(base.uses) / median(found.uses)).toFixed(3)}, least × ${(Math.min(...base.uses) / Math.min(...found.uses)).toFixed(3)}`,
    );
  }
}
for (const [way, { costs, answers }] of results) {
  if (costs.length === 0) continue;
  const late = answers.toSorted((x, y) => x - y)[Math.floor(answers.length * 0.95)] ?? Number.NaN;
  console.log(
    `${way.name.padEnd(35)}µs of the carrying process for a request: ${spread(costs)}` +
      `the daemon answers within, µs: ${spread(answers)}95 of 100 ${late.toFixed(0)}`,
  );
}
haproxy?.kill();
