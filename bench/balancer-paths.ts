/**
 * Requests per second (wrk, nginx, keep-alive) by each way to a task on a switch: directly, through its VIP, and
 * through the mesh beside its last leg alone. Interleaved; only ratios mean anything. Root.
 * Usage: node bench/balancer-paths.ts [rounds] [seconds]
 */
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { writeSysctl } from "../src/kernel/sysctl.ts";
import type { NetNs } from "../src/kernel/types.ts";
import { meshHostSysctls, meshHostTable } from "../src/network/balancer/mesh-host.ts";
import { meshSandboxTable } from "../src/network/balancer/mesh-sandbox.ts";
import { planMeshTask } from "../src/network/balancer/mesh-task.ts";
import { renderVips } from "../src/network/balancer/vip.ts";
import { replaceScript } from "../src/network/plan/table.ts";
import { Lab } from "../test/unit/network/balancer/wires.ts";

const rounds = Number(process.argv[2] ?? 3);
const seconds = process.argv[3] ?? "2";
await using lab = new Lab();
const inside = (ns: NetNs) => `--net=/proc/${process.pid}/fd/${ns.fd}`;

const [lan, ingress, overlay, client, host, sandbox, task, caller] = Array.from({ length: 8 }, () => lab.namespace());
if (!lan || !ingress || !overlay || !client || !host || !sandbox || !task || !caller) throw new Error("no namespaces");
lab.bridge(lan, "br0");
lab.bridge(ingress, "br0");
lab.bridge(overlay, "br0");
lab.plug(client, "eth0", ["192.168.50.100/24"], lan, "br0");
lab.plug(host, "eth0", ["192.168.50.1/24"], lan, "br0");
lab.bridge(host, "docker_gwbridge", "172.18.0.1/16");
const mac = "02:f7:3c:91:aa:01";
lab.plug(sandbox, "eth0", ["10.0.0.2/24"], ingress, "br0", mac);
lab.plug(sandbox, "eth1", ["172.18.0.2/16"], host, "docker_gwbridge");
lab.route(sandbox, "172.18.0.1");
lab.plug(task, "eth0", ["10.0.0.5/24"], ingress, "br0");
lab.plug(task, "eth1", ["172.18.0.3/16"], host, "docker_gwbridge");
lab.plug(task, "eth2", ["10.0.1.5/24"], overlay, "br0");
lab.route(task, "172.18.0.1");
lab.plug(caller, "eth0", ["10.0.1.6/24"], overlay, "br0");
const ports = [{ protocol: "tcp", publishedPort: 8080, targetPort: 80 }] as const;
lab.nft(
  host,
  replaceScript(
    meshHostTable({
      bridge: "docker_gwbridge",
      bridgeSubnet: "172.18.0.0/16",
      ingressSubnet: "10.0.0.0/24",
      sandbox: "172.18.0.2",
      ports,
    }),
  ),
);
for (const [key, value] of Object.entries(meshHostSysctls({ bridge: "docker_gwbridge" })))
  writeSysctl(key, value, host);
const backends = [{ address: "10.0.0.5", returnsToEntry: true }];
lab.nft(
  sandbox,
  replaceScript(
    meshSandboxTable({
      ingressDevice: "eth0",
      ingressAddress: "10.0.0.2",
      gatewayDevice: "eth1",
      gatewaySubnet: "172.18.0.0/16",
      ports: ports.map((port) => ({ ...port, backends })),
    }),
  ),
);
lab.apply(
  task,
  planMeshTask({
    ingressDevice: "eth0",
    ingressAddress: "10.0.0.5",
    ingressSubnet: "10.0.0.0/24",
    defaultSource: "172.18.0.3",
    ports,
    headed: [],
    entries: [{ address: "10.0.0.2", mac }],
    egressHook: true,
  }),
);
lab.nft(caller, renderVips([{ id: "web", vip: "10.0.1.2", backends: ["10.0.1.5"] }]));

const directory = mkdtempSync(join(tmpdir(), "bench-paths-"));
writeFileSync(
  join(directory, "nginx.conf"),
  `daemon off; worker_processes 1; pid ${directory}/pid; error_log stderr crit; events {}
   http { access_log off; keepalive_requests 10000000; server { listen 80; location / { return 200 "ok"; } } }`,
);
const nginx = spawn("nsenter", [inside(task), "nginx", "-c", join(directory, "nginx.conf")], { stdio: "inherit" });
await new Promise((resolve) => setTimeout(resolve, 500));

const ways = {
  "direct to the task": [caller, "http://10.0.1.5/"],
  "through its VIP": [caller, "http://10.0.1.2/"],
  "the mesh's last leg": [sandbox, "http://10.0.0.5:8080/"],
  "through the mesh": [client, "http://192.168.50.1:8080/"],
} as const;
const results = new Map<string, number[]>();
try {
  for (let round = 0; round < rounds; round++) {
    for (const [name, [ns, url]] of Object.entries(ways)) {
      const args = [inside(ns), "wrk", "-t1", "-c16", `-d${seconds}s`, url];
      const { stdout } = await promisify(execFile)("nsenter", args);
      const rate = Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1] ?? 0);
      results.set(name, [...(results.get(name) ?? []), rate]);
    }
  }
} finally {
  const gone = new Promise((resolve) => nginx.once("exit", resolve));
  nginx.kill();
  await gone;
  rmSync(directory, { recursive: true });
}
for (const [name, rates] of results) {
  const median = [...rates].sort((a, b) => a - b)[rates.length >> 1] ?? 0;
  console.log(`${median.toFixed(0).padStart(8)} req/s  [${rates.map((rate) => rate.toFixed(0)).join(" ")}]  ${name}`);
}
