/** Refuses limits that no container can have, in Docker's words. Reads which CPUs and memory nodes there are. */
import { existsSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { invalid } from "../../base/errors.ts";
import type { HostConfig } from "../shapes.ts";

const MIN_MEMORY = 6 * 1024 * 1024;

/** What this kernel lacks and Docker leaves out with a warning, which the command line shows. */
export function discardUnsupported(wanted: HostConfig): { host: HostConfig; warnings: string[] } {
  const host = { ...wanted };
  const warnings: string[] = [];
  const v1 = !existsSync("/sys/fs/cgroup/cgroup.controllers");
  const has = (file: string) => existsSync(`/sys/fs/cgroup/${file}`);
  if (v1 && !has("blkio/blkio.weight") && !has("blkio/blkio.bfq.weight")) {
    if (host.BlkioWeight > 0) {
      warnings.push("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.");
      host.BlkioWeight = 0;
    }
    if (host.BlkioWeightDevice.length > 0) {
      warnings.push(
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
      );
      host.BlkioWeightDevice = [];
    }
  }
  if (!v1 && host.OomKillDisable) {
    warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
    host.OomKillDisable = false;
  }
  if (!v1 && host.MemorySwappiness !== undefined && host.MemorySwappiness !== -1) {
    warnings.push(
      "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
    );
    host.MemorySwappiness = undefined;
  }
  if (host.NetworkMode === "host" && (Object.keys(host.PortBindings).length > 0 || host.PublishAllPorts)) {
    warnings.push("Published ports are discarded when using host network mode");
  }
  return { host, warnings };
}

export function verifyLimits(host: HostConfig): void {
  verifyMemory(host);
  verifyCpu(host);
  verifyBlockIo(host);
  if (host.OomScoreAdj < -1000 || host.OomScoreAdj > 1000) {
    throw invalid(`Invalid value ${host.OomScoreAdj}, range for oom score adj is [-1000, 1000]`);
  }
}

function verifyMemory(host: HostConfig): void {
  if (host.Memory !== 0 && host.Memory < MIN_MEMORY) throw invalid("Minimum memory limit allowed is 6MB");
  if (host.Memory > 0 && host.MemorySwap > 0 && host.MemorySwap < host.Memory) {
    throw invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
  }
  if (host.Memory === 0 && host.MemorySwap > 0) {
    throw invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
  }
  if (host.MemoryReservation !== 0 && host.MemoryReservation < MIN_MEMORY) {
    throw invalid("Minimum memory reservation allowed is 6MB");
  }
  if (host.Memory > 0 && host.MemoryReservation > host.Memory) {
    throw invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
  }
  const swappiness = host.MemorySwappiness ?? -1;
  if (swappiness < -1 || swappiness > 100) {
    throw invalid(`invalid value: ${swappiness}, valid memory swappiness range is 0-100`);
  }
}

function verifyCpu(host: HostConfig): void {
  const cpus = availableParallelism();
  if (host.NanoCpus < 0 || host.NanoCpus > cpus * 1e9) {
    throw invalid(`range of CPUs is from 0.01 to ${cpus}.00, as there are only ${cpus} CPUs available`);
  }
  if (host.NanoCpus > 0 && host.CpuPeriod > 0) {
    throw invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set.");
  }
  if (host.NanoCpus > 0 && host.CpuQuota > 0) {
    throw invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set.");
  }
  if (host.CpuShares < 0) throw invalid(`invalid CPU shares (${host.CpuShares}): value must be a positive integer`);
  if (host.CpuPeriod !== 0 && (host.CpuPeriod < 1000 || host.CpuPeriod > 1_000_000)) {
    throw invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
  }
  if (host.CpuQuota > 0 && host.CpuQuota < 1000) throw invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
  if (host.CpuRealtimePeriod !== 0 || host.CpuRealtimeRuntime !== 0) {
    if (!existsSync("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")) {
      throw invalid("kernel does not support CPU real-time scheduler");
    }
    if (host.CpuRealtimePeriod !== 0 && host.CpuRealtimeRuntime > host.CpuRealtimePeriod) {
      throw invalid("cpu real-time runtime cannot be higher than cpu real-time period");
    }
  }
  verifySet("cpuset cpus", "CPUs", host.CpusetCpus, "/sys/devices/system/cpu/online");
  verifySet("cpuset mems", "memory nodes", host.CpusetMems, "/sys/devices/system/node/online");
}

/** "0-2,4" as numbers; undefined where it is no such list. */
function parseSet(text: string): number[] | undefined {
  const numbers: number[] = [];
  for (const part of text.trim().split(",")) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part);
    const from = Number(match?.[1]);
    const to = Number(match?.[2] ?? match?.[1]);
    if (!match || from > to) return undefined;
    for (let n = from; n <= to; n++) numbers.push(n);
  }
  return numbers;
}

function verifySet(option: string, kind: string, wanted: string, online: string): void {
  if (wanted === "") return;
  const numbers = parseSet(wanted);
  if (!numbers) throw invalid(`Invalid value ${wanted} for ${option}`);
  const text = existsSync(online) ? readFileSync(online, "utf8").trim() : "0";
  const available = parseSet(text) ?? [];
  if (!numbers.every((n) => available.includes(n))) {
    throw invalid(`Requested ${kind} are not available - requested ${wanted}, available: ${text}`);
  }
}

function verifyBlockIo(host: HostConfig): void {
  if (host.BlkioWeight !== 0 && (host.BlkioWeight < 10 || host.BlkioWeight > 1000)) {
    throw invalid("Range of blkio weight is from 10 to 1000");
  }
  for (const { Path, Weight } of host.BlkioWeightDevice) {
    if (Weight < 10 || Weight > 1000) throw invalid(`Range of blkio weight is from 10 to 1000 (${Path})`);
  }
  for (const name of [
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
  ] as const) {
    for (const { Path, Rate } of host[name]) {
      if (Rate < 0 || Path === "") throw invalid(`invalid device rate for ${name}: ${Path}:${Rate}`);
    }
  }
}
