/**
 * What a daemon that was killed between two steps left of a container that runs on. Its record is the truth: a step that
 * it does not tell of was promised to nobody, and is undone.
 */
import type { EngineContext } from "../context.ts";
import type { Container } from "./container.ts";

/** `frozen`: whether the kernel holds its processes still. */
export async function mend(ctx: EngineContext, container: Container, frozen: boolean): Promise<void> {
  await mendPause(ctx, container, frozen);
  await mendNetworks(ctx, container);
}

/** Killed in the middle of `pause`, `unpause`, or a `commit`, which holds the container still. */
async function mendPause(ctx: EngineContext, container: Container, frozen: boolean): Promise<void> {
  const { state } = container.record;
  if (frozen === (state.status === "paused")) return;
  ctx.log.info("a container was left half paused; it goes on", { container: container.id });
  if (frozen) await ctx.runtime.unpause(container.id);
  else {
    state.status = "running";
    ctx.registry.note(container);
  }
}

/** Killed in the middle of `network connect`, `network disconnect` or `rename`. */
async function mendNetworks(ctx: EngineContext, { id, name, record }: Container): Promise<void> {
  // A task's endpoints are its service's doing.
  if (record.task || !ctx.network.sandbox(id)) return;
  const known = new Set(Object.values(record.networks).map(({ networkId }) => networkId));
  for (const { networkId } of ctx.network.sandboxEndpoints(id)) {
    if (known.has(networkId)) continue;
    ctx.log.info("a container was left half connected", { container: id, network: networkId });
    await ctx.network.disconnect(id, networkId);
  }
  if (ctx.network.sandboxEndpoints(id).some((endpoint) => endpoint.name !== name)) {
    await ctx.network.renameEndpoints(id, name);
  }
}
