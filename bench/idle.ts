/**
 * What a lab costs that does nothing: the tour's three hosts with their swarm, service and container, left alone. CPU time
 * and memory (proportional share) by program. `bin/node bench/idle.ts [seconds]`.
 */
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as wait } from "node:timers/promises";
import { down } from "../src/lab/lab.ts";
import { childrenOf } from "../src/lab/process.ts";
import { tour } from "../src/lab/tour.ts";

const seconds = Number(process.argv[2] ?? 60);
const TICK_MS = 10;

interface Cost {
  readonly program: string;
  readonly cpuMs: number;
  readonly pssMb: number;
}

function costOf(pid: number): Cost | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const program = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
    const pss = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? "0";
    return { program, cpuMs: (Number(fields[11]) + Number(fields[12])) * TICK_MS, pssMb: Number(pss) / 1024 };
  } catch {
    return undefined;
  }
}

/** Every process whose PID namespace is one of these: what runs in the hosts. */
function processesIn(namespaces: ReadonlySet<string>): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && namespaces.has(pidNamespace(Number(name)) ?? ""))
    .map(Number);
}

function pidNamespace(pid: number): string | undefined {
  try {
    // Containers have PID namespaces of their own below the host's; a process of one is counted by its shim's.
    const ids = /^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]?.split(/\s+/) ?? [];
    return ids.length > 1 ? rootOf(pid) : undefined;
  } catch {
    return undefined;
  }
}

/** The oldest ancestor that is still inside a host: process 1 of it. */
function rootOf(pid: number): string {
  let at = pid;
  for (;;) {
    const parent = Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${at}/status`, "utf8"))?.[1] ?? 0);
    const inside = /^NSpid:\s+(.*)$/m.exec(readFileSync(`/proc/${parent}/status`, "utf8"))?.[1]?.split(/\s+/) ?? [];
    if (inside.length < 2) return String(at);
    at = parent;
  }
}

await down("idle");
try {
  const { lab } = await tour({ name: "idle", subnet: "10.92.0.0/24", say: () => {} });
  const roots = new Set<string>();
  for (const { holder, init, daemon } of Object.values(lab.state.running)) {
    for (const pid of [init.pid, daemon?.pid, ...childrenOf(holder.pid)]) if (pid) roots.add(String(pid));
  }
  await wait(20_000);
  const before = new Map(processesIn(roots).map((pid) => [pid, costOf(pid)]));
  await wait(seconds * 1000);
  const sums = new Map<string, { count: number; cpuMs: number; pssMb: number }>();
  for (const pid of processesIn(roots)) {
    const now = costOf(pid);
    if (!now) continue;
    const sum = sums.get(now.program) ?? { count: 0, cpuMs: 0, pssMb: 0 };
    sum.count++;
    sum.cpuMs += now.cpuMs - (before.get(pid)?.cpuMs ?? 0);
    sum.pssMb += now.pssMb;
    sums.set(now.program, sum);
  }
  let cpu = 0;
  let memory = 0;
  for (const [program, { count, cpuMs, pssMb }] of [...sums].sort((a, b) => b[1].pssMb - a[1].pssMb)) {
    const share = cpuMs / seconds / 10;
    cpu += share;
    memory += pssMb;
    console.log(
      `${share.toFixed(2).padStart(6)} % of a core ${pssMb.toFixed(0).padStart(5)} MB  ${count} × ${program}`,
    );
  }
  console.log(`${cpu.toFixed(2).padStart(6)} % of a core ${memory.toFixed(0).padStart(5)} MB  in all`);
} finally {
  await down("idle");
}
