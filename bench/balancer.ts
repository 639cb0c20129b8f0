/**
 * The balancer's tables: time to load 1,000 services of 10 tasks, to change one, and what packets cost at 10 and at 1,000
 * services: those of open connections, and the first of new ones (on loopback, in turns). Root, wrk, nginx.
 * Usage: node bench/balancer.ts [rounds]
 */
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { openConntrack } from "../src/kernel/conntrack.ts";
import { scratchNetNs } from "../src/kernel/netns.ts";
import { openNft } from "../src/kernel/nft.ts";
import { tcpConnectIn } from "../src/kernel/socket.ts";
import type { VipService } from "../src/network/balancer/types.ts";
import { renderVips, updateVip } from "../src/network/balancer/vip.ts";

const rounds = Number(process.argv[2] ?? 5);
const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] ?? 0;
const timed = (fn: () => void) => {
  const start = performance.now();
  fn();
  return performance.now() - start;
};

function services(count: number): VipService[] {
  return Array.from({ length: count }, (_, i) => ({
    id: `service${i}`,
    vip: `10.64.${i >> 8}.${i & 255}`,
    backends: Array.from({ length: 10 }, (_, j) => `10.65.${(i * 10 + j) >> 8}.${(i * 10 + j) & 255}`),
  }));
}

{
  using ns = scratchNetNs();
  using nft = openNft(ns);
  const all = services(1000);
  const text = timed(() => renderVips(all));
  const load = timed(() => nft.run(renderVips(all)));
  const changes: number[] = [];
  for (let i = 0; i < 20; i++) {
    const before = all[i * 40];
    if (!before) continue;
    changes.push(timed(() => nft.run(updateVip(before, { ...before, backends: before.backends.slice(1) }))));
  }
  const again = timed(() => nft.run(renderVips(all)));
  console.log(
    `1,000 services x 10 tasks: rendered ${text.toFixed(1)} ms, loaded ${load.toFixed(0)} ms, again ${again.toFixed(0)} ms`,
  );
  console.log(
    `one service changed: median ${median(changes).toFixed(2)} ms, worst ${Math.max(...changes).toFixed(2)} ms`,
  );
}

using ns = scratchNetNs();
const directory = mkdtempSync(join(tmpdir(), "bench-balancer-"));
writeFileSync(
  join(directory, "nginx.conf"),
  `daemon off; worker_processes 1; pid ${directory}/pid; error_log stderr crit; events {}
   http { access_log off; keepalive_requests 10000000; server { listen 127.0.0.1:8000; location / { return 200 "ok"; } } }`,
);
const inside = `--net=/proc/${process.pid}/fd/${ns.fd}`;
const nginx = spawn("nsenter", [inside, "nginx", "-c", join(directory, "nginx.conf")], { stdio: "inherit" });
const target = { id: "target", vip: "127.9.9.9", backends: ["127.0.0.1"] };

async function wrk(...more: string[]): Promise<number> {
  const args = [inside, "wrk", "-t1", "-c16", "-d1s", ...more, `http://${target.vip}:8000/`];
  const { stdout } = await promisify(execFile)("nsenter", args);
  return Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1] ?? Number.NaN);
}

async function connects(): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 200; i++) {
    const start = performance.now();
    const socket = tcpConnectIn(ns, target.vip, 8000);
    await new Promise((resolve) => socket.once("connect", resolve));
    times.push(performance.now() - start);
    socket.destroy();
  }
  return median(times) * 1000;
}

function isOpen(): Promise<boolean> {
  const socket = tcpConnectIn(ns, "127.0.0.1", 8000);
  return new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
  }).finally(() => socket.destroy());
}
while (!(await isOpen())) await new Promise((resolve) => setTimeout(resolve, 20));

const measures = {
  "requests/s on open connections": () => wrk(),
  "requests/s, each on a new connection": () => wrk("-H", "Connection: close"),
  "µs to connect": connects,
} as const;
using nft = openNft(ns);
using conntrack = openConntrack(ns);
const counts = [10, 1000] as const;
const results = new Map<string, Map<number, number[]>>();
try {
  for (let round = 0; round < rounds; round++) {
    for (const [what, measure] of Object.entries(measures)) {
      // In turns, and first the one, then the other.
      for (const count of round % 2 === 0 ? counts : counts.toReversed()) {
        nft.run(renderVips([...services(count), target]));
        const found = results.get(what) ?? new Map<number, number[]>();
        results.set(what, found.set(count, [...(found.get(count) ?? []), await measure()]));
        conntrack.flush({ family: 4 });
      }
    }
  }
} finally {
  const gone = new Promise((resolve) => nginx.once("exit", resolve));
  nginx.kill();
  await gone;
  rmSync(directory, { recursive: true });
}
for (const [what, found] of results) {
  const [few, many] = counts.map((count) => median(found.get(count) ?? []));
  if (few === undefined || many === undefined) continue;
  console.log(
    `${what}: ${few.toFixed(0)} among 10 services, ${many.toFixed(0)} among 1,000: × ${(many / few).toFixed(3)}`,
  );
}
