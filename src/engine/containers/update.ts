/** `docker update` and `docker rename`. */
import { conflict, invalid, SkeinError } from "../../base/errors.ts";
import type { EngineContext } from "../context.ts";
import type { HostConfig } from "../shapes.ts";
import { emitContainer } from "./attributes.ts";
import type { Container } from "./container.ts";
import { discardUnsupported } from "./limits.ts";
import { checkName } from "./names.ts";
import { writeEtc } from "./networking.ts";
import { checkRestartPolicy } from "./restart.ts";
import { resourcesOf } from "./spec.ts";
import { verifyConfig } from "./verify.ts";

const LIMITS = [
  "BlkioWeight",
  "CpuShares",
  "NanoCpus",
  "CpuPeriod",
  "CpuQuota",
  "Memory",
  "MemorySwap",
  "MemoryReservation",
] as const;

/** Zero and "" mean "as it was", as the CLI sends them. */
export async function update(
  ctx: EngineContext,
  container: Container,
  change: Partial<HostConfig>,
): Promise<{ Warnings: string[] }> {
  return ctx.locks.run(container.id, async () => {
    const { record } = container;
    const wanted: HostConfig = { ...record.hostConfig };
    if (wanted.MemorySwap > 0 && (change.Memory ?? 0) > wanted.MemorySwap && !change.MemorySwap) {
      throw conflict(
        "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
      );
    }
    for (const name of LIMITS) if (change[name]) wanted[name] = change[name];
    if (change.CpusetCpus) wanted.CpusetCpus = change.CpusetCpus;
    if (change.CpusetMems) wanted.CpusetMems = change.CpusetMems;
    if (change.PidsLimit !== undefined && change.PidsLimit !== 0) wanted.PidsLimit = change.PidsLimit;
    if (change.RestartPolicy?.Name) {
      checkRestartPolicy(change.RestartPolicy);
      if (wanted.AutoRemove && change.RestartPolicy.Name !== "no") {
        throw invalid("Restart policy cannot be updated because AutoRemove is enabled for the container");
      }
      wanted.RestartPolicy = change.RestartPolicy;
    }
    verifyConfig(record.config, wanted);
    const { host, warnings } = discardUnsupported(wanted);
    if (container.up) await ctx.runtime.update(record.id, resourcesOf(host));
    record.hostConfig = host;
    ctx.registry.save(container);
    emitContainer(ctx, container, "update");
    return { Warnings: warnings };
  });
}

export async function rename(ctx: EngineContext, container: Container, wanted: string): Promise<void> {
  if (wanted === "") throw invalid("Neither old nor new names may be empty");
  const name = checkName(wanted);
  await ctx.locks.run(container.id, async () => {
    const { record } = container;
    const old = record.name;
    if (old === name) throw invalid("Renaming a container with the same name as its current name");
    try {
      ctx.registry.reserve(name, record.id);
    } catch (error) {
      throw error instanceof SkeinError ? conflict(`Error when allocating new name: ${error.message}`) : error;
    }
    record.name = name;
    try {
      if (container.up && ctx.network.sandbox(record.id)) {
        await ctx.network.renameEndpoints(record.id, name);
        writeEtc(ctx, container);
      }
      ctx.registry.save(container);
    } catch (error) {
      record.name = old;
      ctx.registry.release(name, record.id);
      throw error;
    }
    ctx.registry.release(old, record.id);
    emitContainer(ctx, container, "rename", { oldName: `/${old}` });
  });
}
