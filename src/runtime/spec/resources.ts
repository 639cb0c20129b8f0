/** Limits in the OCI runtime specification's form. Pure. */
import { invalid } from "../../base/errors.ts";
import type { Resources } from "../types.ts";
import type { OciResources } from "./oci.ts";

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
  if (resources.blkioWeight) result.blockIO = { weight: resources.blkioWeight };
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
  return Object.keys(cpu).length > 0 ? cpu : undefined;
}
