/** Figures of a container from its cgroup. */
import { totalmem } from "node:os";
import { readFileIfAny } from "../base/file.ts";
import { cgroupDir, cgroupTrees } from "./cgroup.ts";
import type { ProcessStats } from "./types.ts";

/** Ticks per second of cpuacct.stat; fixed on every Linux that Node runs on. */
const hertz = 100;

/** Figures now. Zeros for what the kernel does not count. */
export function readStats(cgroup: string): ProcessStats {
  const read = new Date().toISOString();
  return { read, ...(cgroupTrees().unified ? unified(cgroup) : legacy(cgroup)) };
}

/** "name value" per line. */
export function parseFlat(text: string): Record<string, number> {
  const result: Record<string, number> = {};
  for (const line of text.split("\n")) {
    const [name, value] = line.split(" ");
    if (name && value !== undefined && Number.isFinite(Number(value))) result[name] = Number(value);
  }
  return result;
}

/** How often a limit on CPU time held the container up, of its cpu.stat in either version. */
export function throttlingOf(cpuStat: Record<string, number>): ProcessStats["cpu"]["throttling"] {
  const { nr_periods = 0, nr_throttled = 0, throttled_usec = 0, throttled_time = throttled_usec * 1000 } = cpuStat;
  return { periods: nr_periods, throttledPeriods: nr_throttled, throttledNs: throttled_time };
}

type Figures = Omit<ProcessStats, "read">;

/** The kernel says "no limit" with a number no machine has. */
const limitOf = (value: number): number => Math.min(value, totalmem());

function legacy(cgroup: string): Figures {
  const text = (controller: string, file: string): string => {
    const dir = cgroupDir(cgroup, controller);
    return dir ? (readFileIfAny(`${dir}/${file}`) ?? "").trim() : "";
  };
  const num = (controller: string, file: string): number => Number(text(controller, file)) || 0;
  const ticks = parseFlat(text("cpuacct", "cpuacct.stat"));
  const perCpu = text("cpuacct", "cpuacct.usage_percpu").split(" ").filter(Boolean).map(Number);
  const pidsMax = text("pids", "pids.max");
  return {
    cpu: {
      usageNs: num("cpuacct", "cpuacct.usage"),
      userNs: ((ticks.user ?? 0) * 1e9) / hertz,
      systemNs: ((ticks.system ?? 0) * 1e9) / hertz,
      ...(perCpu.length > 0 ? { perCpuNs: perCpu } : {}),
      throttling: throttlingOf(parseFlat(text("cpu", "cpu.stat"))),
    },
    memory: {
      usage: num("memory", "memory.usage_in_bytes"),
      limit: limitOf(num("memory", "memory.limit_in_bytes") || totalmem()),
      maxUsage: num("memory", "memory.max_usage_in_bytes"),
      failures: num("memory", "memory.failcnt"),
      stats: parseFlat(text("memory", "memory.stat")),
    },
    pids: { current: num("pids", "pids.current"), ...limitField(pidsMax) },
    blkio: parseBlkio(text("blkio", "blkio.throttle.io_service_bytes_recursive")),
    blkioOperations: parseBlkio(text("blkio", "blkio.throttle.io_serviced_recursive")),
  };
}

function unified(cgroup: string): Figures {
  const dir = cgroupDir(cgroup, "") ?? "";
  const text = (file: string): string => (readFileIfAny(`${dir}/${file}`) ?? "").trim();
  const cpu = parseFlat(text("cpu.stat"));
  const max = text("memory.max");
  return {
    cpu: {
      usageNs: (cpu.usage_usec ?? 0) * 1000,
      userNs: (cpu.user_usec ?? 0) * 1000,
      systemNs: (cpu.system_usec ?? 0) * 1000,
      throttling: throttlingOf(cpu),
    },
    memory: {
      usage: Number(text("memory.current")) || 0,
      limit: max === "max" || max === "" ? totalmem() : limitOf(Number(max)),
      stats: parseFlat(text("memory.stat")),
    },
    pids: { current: Number(text("pids.current")) || 0, ...limitField(text("pids.max")) },
    blkio: parseIoStat(text("io.stat")),
  };
}

const limitField = (text: string): { limit?: number } => (text && text !== "max" ? { limit: Number(text) } : {});

/** cgroup v1: "8:0 Read 4096" per line, and a total that is left out. */
export function parseBlkio(text: string): ProcessStats["blkio"] {
  return [...text.matchAll(/^(\d+):(\d+) (\w+) (\d+)$/gm)].map(([, major, minor, op = "", value]) => ({
    major: Number(major),
    minor: Number(minor),
    op: op.toLowerCase(),
    value: Number(value),
  }));
}

/** cgroup v2: "8:0 rbytes=1 wbytes=2 …" per line. */
export function parseIoStat(text: string): ProcessStats["blkio"] {
  return [...text.matchAll(/^(\d+):(\d+) .*?rbytes=(\d+) wbytes=(\d+)/gm)].flatMap(([, major, minor, read, write]) =>
    (
      [
        ["read", read],
        ["write", write],
      ] as const
    ).map(([op, value]) => ({ major: Number(major), minor: Number(minor), op, value: Number(value) })),
  );
}
