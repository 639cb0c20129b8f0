/** Limits in the OCI runtime specification's form. Pure but for the numbers of device nodes. */
import { invalid } from "../../base/errors.ts";
import type { Resources, ThrottleKind } from "../types.ts";
import { deviceNumber } from "./devices.ts";
import type { OciRate, OciResources } from "./oci.ts";

/** Period that a number of CPUs is spread over, microseconds; Docker's and the kernel's default. */
const cpuPeriod = 100_000;

export function ociResources(resources: Resources): OciResources {
  const result: OciResources = {};
  const memory = memoryOf(resources);
  if (memory) result.memory = memory;
  const cpu = cpuOf(resources);
  if (cpu) result.cpu = cpu;
  if (resources.pidsLimit !== undefined && resources.pidsLimit !== 0) {
    result.pids = { limit: resources.pidsLimit < 0 ? -1 : resources.pidsLimit };
  }
  const blockIO = blockIoOf(resources);
  if (blockIO) result.blockIO = blockIO;
  return result;
}

function memoryOf(resources: Resources): OciResources["memory"] {
  const memory: NonNullable<OciResources["memory"]> = {};
  if (resources.memory) {
    memory.limit = resources.memory;
    // Without a word about swap Docker allows as much again.
    const swap = resources.memorySwap || resources.memory * 2;
    if (swap > 0 && swap < resources.memory) {
      throw invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    memory.swap = swap;
  } else if (resources.memorySwap && resources.memorySwap > 0) {
    throw invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
  }
  if (resources.memoryReservation) memory.reservation = resources.memoryReservation;
  if (resources.oomKillDisable) memory.disableOOMKiller = true;
  if (resources.memorySwappiness !== undefined) memory.swappiness = resources.memorySwappiness;
  return Object.keys(memory).length > 0 ? memory : undefined;
}

function cpuOf(resources: Resources): OciResources["cpu"] {
  const cpu: NonNullable<OciResources["cpu"]> = {};
  if (resources.cpuShares) cpu.shares = resources.cpuShares;
  if (resources.nanoCpus) {
    cpu.period = cpuPeriod;
    cpu.quota = Math.round((resources.nanoCpus * cpuPeriod) / 1e9);
  }
  if (resources.cpuQuota) cpu.quota = resources.cpuQuota;
  if (resources.cpuPeriod) cpu.period = resources.cpuPeriod;
  if (resources.cpusetCpus) cpu.cpus = resources.cpusetCpus;
  if (resources.cpusetMems) cpu.mems = resources.cpusetMems;
  if (resources.cpuRealtimePeriod) cpu.realtimePeriod = resources.cpuRealtimePeriod;
  if (resources.cpuRealtimeRuntime) cpu.realtimeRuntime = resources.cpuRealtimeRuntime;
  return Object.keys(cpu).length > 0 ? cpu : undefined;
}

function blockIoOf(resources: Resources): OciResources["blockIO"] {
  const io: NonNullable<OciResources["blockIO"]> = {};
  if (resources.blkioWeight) io.weight = resources.blkioWeight;
  if (resources.blkioWeightDevices?.length) {
    io.weightDevice = resources.blkioWeightDevices.map(({ path, value }) => ({ ...deviceNumber(path), weight: value }));
  }
  const rates = (kind: ThrottleKind): OciRate[] | undefined => {
    const wanted = resources.throttle?.[kind];
    return wanted?.length ? wanted.map(({ path, value }) => ({ ...deviceNumber(path), rate: value })) : undefined;
  };
  const [readBps, writeBps, readIops, writeIops] = [
    rates("readBps"),
    rates("writeBps"),
    rates("readIops"),
    rates("writeIops"),
  ];
  if (readBps) io.throttleReadBpsDevice = readBps;
  if (writeBps) io.throttleWriteBpsDevice = writeBps;
  if (readIops) io.throttleReadIOPSDevice = readIops;
  if (writeIops) io.throttleWriteIOPSDevice = writeIops;
  return Object.keys(io).length > 0 ? io : undefined;
}
