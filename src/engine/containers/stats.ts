/** `docker stats` and `docker top`. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { sleep } from "../../base/clock.ts";
import { conflict, invalid, messageOf } from "../../base/errors.ts";
import type { ProcessStats } from "../../runtime/types.ts";
import type { EngineContext } from "../context.ts";
import { NEVER } from "../time.ts";
import type { Json } from "../types.ts";
import type { Container } from "./container.ts";

const NS_PER_TICK = 1e7;

/** Nanoseconds that all CPUs of the host have spent, of /proc/stat's first line. */
export function systemCpuNs(procStat: string): number {
  const fields = /^cpu\s+(.*)$/m.exec(procStat)?.[1]?.split(/\s+/).slice(0, 8).map(Number) ?? [];
  return fields.reduce((sum, ticks) => sum + ticks, 0) * NS_PER_TICK;
}

/** Interface counters of a process's network namespace, of its /proc/<pid>/net/dev. */
export function netCounters(procNetDev: string): Record<string, Json> {
  const out: Record<string, Json> = {};
  for (const line of procNetDev.split("\n").slice(2)) {
    const match = /^\s*([^:]+):\s*(.*)$/.exec(line);
    if (!match?.[1] || !match[2] || match[1] === "lo") continue;
    const f = match[2].trim().split(/\s+/).map(Number);
    out[match[1]] = {
      rx_bytes: f[0] ?? 0,
      rx_packets: f[1] ?? 0,
      rx_errors: f[2] ?? 0,
      rx_dropped: f[3] ?? 0,
      tx_bytes: f[8] ?? 0,
      tx_packets: f[9] ?? 0,
      tx_errors: f[10] ?? 0,
      tx_dropped: f[11] ?? 0,
    };
  }
  return out;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

interface Sample {
  readonly stats: ProcessStats;
  readonly systemNs: number;
  readonly cpus: number;
}

const cpuDocument = (sample: Sample | undefined): Json =>
  sample === undefined
    ? {
        cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 },
        throttling_data: throttlingDocument(),
      }
    : {
        cpu_usage: {
          total_usage: sample.stats.cpu.usageNs,
          usage_in_kernelmode: sample.stats.cpu.systemNs,
          usage_in_usermode: sample.stats.cpu.userNs,
          ...(sample.stats.cpu.perCpuNs && { percpu_usage: sample.stats.cpu.perCpuNs }),
        },
        system_cpu_usage: sample.systemNs,
        online_cpus: sample.cpus,
        throttling_data: throttlingDocument(sample.stats.cpu.throttling),
      };

const throttlingDocument = (throttling?: ProcessStats["cpu"]["throttling"]): Json => ({
  periods: throttling?.periods ?? 0,
  throttled_periods: throttling?.throttledPeriods ?? 0,
  throttled_time: throttling?.throttledNs ?? 0,
});

function document(container: Container, sample: Sample | undefined, before: Sample | undefined): Json {
  const { stats } = sample ?? {};
  // Of a scheduler that kernels of today have not; cgroup v2 has no such fields at all.
  const uncounted = stats?.blkioOperations ? [] : null;
  return {
    name: `/${container.name}`,
    id: container.id,
    read: stats?.read ?? NEVER,
    preread: before?.stats.read ?? NEVER,
    pids_stats: stats ? { current: stats.pids.current, ...(stats.pids.limit && { limit: stats.pids.limit }) } : {},
    num_procs: 0,
    storage_stats: {},
    blkio_stats: {
      io_service_bytes_recursive: stats?.blkio ?? null,
      io_serviced_recursive: stats?.blkioOperations ?? null,
      io_queue_recursive: uncounted,
      io_service_time_recursive: uncounted,
      io_wait_time_recursive: uncounted,
      io_merged_recursive: uncounted,
      io_time_recursive: uncounted,
      sectors_recursive: uncounted,
    },
    cpu_stats: cpuDocument(sample),
    precpu_stats: cpuDocument(before),
    memory_stats: stats
      ? {
          usage: stats.memory.usage,
          limit: stats.memory.limit,
          ...(stats.memory.maxUsage !== undefined && { max_usage: stats.memory.maxUsage }),
          ...(stats.memory.failures && { failcnt: stats.memory.failures }),
          stats: stats.memory.stats,
        }
      : {},
    ...(stats && { networks: netCounters(readText(`/proc/${container.record.state.pid}/net/dev`)) }),
  };
}

async function take(ctx: EngineContext, container: Container): Promise<Sample | undefined> {
  if (!container.up) return undefined;
  try {
    const stats = await ctx.runtime.stats(container.id);
    const procStat = readText("/proc/stat");
    return { stats, systemNs: systemCpuNs(procStat), cpus: procStat.match(/^cpu\d+ /gm)?.length ?? 1 };
  } catch (error) {
    ctx.log.debug("no stats", { container: container.id, error: messageOf(error) });
    return undefined;
  }
}

export async function* streamStats(
  ctx: EngineContext,
  container: Container,
  options: { stream: boolean; oneShot: boolean; signal: AbortSignal },
): AsyncGenerator<Json> {
  let before: Sample | undefined;
  // Without a stream the figures of two moments are needed for a rate, unless the client said that it makes its own.
  if (!options.stream && !options.oneShot && container.up) {
    before = await take(ctx, container);
    await sleep(ctx.clock, 1000, options.signal).catch(() => {});
  }
  while (!options.signal.aborted) {
    const sample = await take(ctx, container);
    yield document(container, sample, before);
    if (!options.stream || ctx.registry.byId(container.id) !== container) return;
    before = sample;
    await sleep(ctx.clock, 1000, options.signal).catch(() => {});
  }
}

const run = promisify(execFile);

export async function top(
  ctx: EngineContext,
  container: Container,
  psArgs: string,
): Promise<{ Titles: string[]; Processes: string[][] }> {
  if (!container.up) throw conflict(`container ${container.id} is not running`);
  const args = (psArgs || "-ef").split(/\s+/).filter(Boolean);
  if (args.some((arg) => !/^[\w\-,.:=%+]+$/.test(arg))) throw invalid(`ps: invalid arguments: ${psArgs}`);
  const pids = new Set(await ctx.runtime.pids(container.id));
  let output: string;
  try {
    ({ stdout: output } = await run("ps", args, { maxBuffer: 16 * 1024 * 1024 }));
  } catch (error) {
    // The first line of its own words; the rest is how to use ps.
    const said = error instanceof Error && "stderr" in error ? String(error.stderr) : messageOf(error);
    throw invalid(`ps: ${said.trim().split("\n")[0] ?? ""}`);
  }
  return parsePs(output, pids);
}

/** Keeps the lines of these processes; the last column may contain spaces. */
export function parsePs(output: string, pids: ReadonlySet<number>): { Titles: string[]; Processes: string[][] } {
  const [head = "", ...lines] = output.trimEnd().split("\n");
  const Titles = head.trim().split(/\s+/);
  const pidColumn = Titles.indexOf("PID");
  if (pidColumn < 0) throw invalid("Couldn't find PID field in ps output");
  const Processes: string[][] = [];
  for (const line of lines) {
    const words = line.trim().split(/\s+/);
    if (!pids.has(Number(words[pidColumn]))) continue;
    Processes.push([...words.slice(0, Titles.length - 1), words.slice(Titles.length - 1).join(" ")]);
  }
  return { Titles, Processes };
}
