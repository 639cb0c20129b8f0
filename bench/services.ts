/**
 * What services cost on the network: requests by a VIP and by the routing mesh beside another way of the same client to the
 * same task, on this host and on another. A lab of two hosts, nginx in the tasks, wrk as the client; the ways take turns, and
 * only the ratios within a group mean anything.
 *
 * - A client in a container: straight to the task's address, by the VIP, by the mesh of its own host.
 * - A program of the entry host itself, which has no address on an overlay: by the mesh of its host beside the container's
 *   straight way. Both are one machine's own programs; what lies between is the host, docker_gwbridge and ingress_sbox.
 * - "Last leg": from the entry host's ingress_sbox to the task's ingress address.
 * - A client outside: the task's own host as the entry node beside another one. What lies between is the overlay. The same by an
 *   entry node with a task here.
 *
 * Root, wrk. `bin/node bench/services.ts [rounds]`
 */
import { writeFileSync } from "node:fs";
import { inside } from "../src/lab/host.ts";
import { hostOf } from "../src/lab/lab.ts";
import { run } from "../src/lab/process.ts";
import { eventually, TestLab } from "../test/support/lab.ts";
import { median } from "./support/rows.ts";

const rounds = Number(process.argv[2] ?? 5);
const [here, there] = ["here", "there"];
await using lab = await TestLab.up("bsv", "10.60.0.0/24", { names: [here, there], images: ["basic", "web"] });
await lab.swarm();
const docker = (...args: string[]) => lab.ok(here, ...args);

const page = `daemon off; user root; worker_processes 1; pid /run/nginx.pid; error_log stderr crit;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 100000000; server { listen 80; location / { return 200 "ok"; } } }`;
const file = `${lab.host(here).runDir}/nginx.conf`;
writeFileSync(file, page);
await docker("config", "create", "page", file);
await docker("network", "create", "-d", "overlay", "--attachable", "net");
for (const [service, host, port] of [
  ["near", here, 8081],
  ["far", there, 8082],
] as const) {
  const where = ["--constraint", `node.hostname==${host}`, "--network", "net", "--publish", `${port}:80`];
  const config = ["--config", "source=page,target=/etc/nginx/nginx.conf"];
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
/** First of each group: what the others are compared with. */
const groups = [
  {
    "container, task here, direct": { by: inClient, url: `http://${await addressOf("near", here)}/` },
    "container, task here, VIP": { by: inClient, url: `http://${await vipOf("near")}/` },
    "container, task here, mesh": { by: inClient, url: `http://${entry}:8081/` },
    "entry host, task here, mesh": { by: onHost, url: `http://${entry}:8081/` },
  },
  {
    "container, task elsewhere, direct": { by: inClient, url: `http://${await addressOf("far", there)}/` },
    "container, task elsewhere, VIP": { by: inClient, url: `http://${await vipOf("far")}/` },
    "last leg": { by: inSandbox, url: `http://${await addressOf("far", there, "ingress")}:8082/` },
    "entry host, task elsewhere, mesh": { by: onHost, url: `http://${entry}:8082/` },
    "container, task elsewhere, mesh": { by: inClient, url: `http://${entry}:8082/` },
  },
  {
    "outside, entry at the task": { by: [], url: `http://${other}:8082/` },
    "outside, task elsewhere": { by: [], url: `http://${entry}:8082/` },
    "outside, another task here": { by: [], url: `http://${entry}:8081/` },
  },
] as const;
interface Way {
  readonly name: string;
  readonly by: readonly string[];
  readonly url: string;
}
const ways: Way[][] = groups.map((group) => Object.entries(group).map(([name, way]) => ({ name, ...way })));

const units: Record<string, number> = { us: 1, ms: 1_000, s: 1_000_000 };
async function wrk({ name, by, url }: Way, connections: number, ...more: string[]) {
  const args = [...by, "wrk", "-t1", `-c${connections}`, "-d1s", ...more, url];
  const { code, stdout, stderr } = await run(args, { timeoutMs: 20_000 });
  const rate = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]);
  const [, time, unit = ""] = /Latency\s+([\d.]+)(us|ms|s)/.exec(stdout) ?? [];
  if (code !== 0 || !(rate > 0) || /Non-2xx|connect [1-9]/.test(stdout)) throw new Error(`${name}: ${stdout}${stderr}`);
  return { rate, latency: Number(time) * (units[unit] ?? Number.NaN) };
}

interface Figures {
  readonly rates: number[];
  readonly latencies: number[];
  readonly connections: number[];
}
const results = new Map<Way, Figures>();
for (const way of ways.flat()) {
  results.set(way, { rates: [], latencies: [], connections: [] });
  await eventually(way.name, async () =>
    wrk(way, 16).then(
      () => true,
      () => false,
    ),
  );
}
for (let round = 0; round < rounds; round++) {
  for (const [way, { rates, latencies, connections }] of results) {
    rates.push((await wrk(way, 16)).rate);
    latencies.push((await wrk(way, 1)).latency);
    connections.push((await wrk(way, 16, "-H", "Connection: close")).rate);
  }
}

const spread = (values: readonly number[]) =>
  `${median(values).toFixed(0).padStart(6)} [${Math.min(...values).toFixed(0)}–${Math.max(...values).toFixed(0)}]`.padEnd(
    22,
  );
/** Of the medians, and of what either reaches at its best: what else the machine does only ever takes. */
const times = (a: readonly number[], b: readonly number[]) =>
  `× ${(median(a) / median(b)).toFixed(2)}, best × ${(Math.max(...a) / Math.max(...b)).toFixed(2)}  `;
console.log(`${"".padEnd(35)}${"requests/s".padEnd(44)}${"latency of one at a time, µs".padEnd(34)}new connections/s`);
for (const group of ways) {
  const base = group[0] && results.get(group[0]);
  for (const way of group) {
    const found = results.get(way);
    if (!base || !found) continue;
    const added = `+ ${(median(found.latencies) - median(base.latencies)).toFixed(0)} µs  `;
    console.log(
      `${way.name.padEnd(35)}${spread(found.rates)}${times(found.rates, base.rates)}` +
        `${spread(found.latencies)}${added.padEnd(12)}${spread(found.connections)}${times(found.connections, base.connections)}`,
    );
  }
}
