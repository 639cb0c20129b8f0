/** `docker rm` and the end of --rm containers. */
import { rmSync } from "node:fs";
import { sleep } from "../../base/clock.ts";
import { conflict, messageOf, SkeinError } from "../../base/errors.ts";
import type { EngineContext } from "../context.ts";
import { emitContainer } from "./attributes.ts";
import type { Container } from "./container.ts";
import { taskDir } from "./create.ts";
import { next } from "./states.ts";
import { cancelRestart, forceKill } from "./stop.ts";

/** When a layer that could not be removed is tried again; the next start of the daemon is the last time. */
const REMOVE_AGAIN_MS = [2_000, 10_000, 60_000];

export async function remove(
  ctx: EngineContext,
  container: Container,
  options: { force: boolean; volumes: boolean },
): Promise<void> {
  const { state } = container.record;
  const refuse = (why: string) => conflict(`cannot remove container "${container.name}": ${why}`);
  if (state.status === "removing") throw conflict(`removal of container ${container.name} is already in progress`);
  if (!options.force) {
    if (state.status === "paused") throw refuse("container is paused and must be unpaused first");
    if (state.status === "restarting") {
      throw refuse("container is restarting: stop the container before removing or force remove");
    }
    if (container.up) throw refuse("container is running: stop the container before removing or force remove");
  }
  if (container.up) await forceKill(ctx, container);
  cancelRestart(ctx, container);
  await ctx.locks.run(container.id, async () => {
    // --rm, or another client, was quicker.
    if (ctx.registry.byId(container.id) !== container) return;
    if (container.up) throw refuse("container was started meanwhile");
    await removeNow(ctx, container, { volumes: options.volumes });
  });
}

/**
 * Removes a container that does not run. Call it under the container's lock. Writable layer first, record last: a crash
 * in between leaves a record in state "removing", which the next start finishes. With --rm nobody can be told of a
 * failure, so nobody waits for the layer either: the record goes first, and what a crash leaves is swept as unknown.
 */
export async function removeNow(
  ctx: EngineContext,
  container: Container,
  options: { volumes: boolean },
): Promise<void> {
  const { record } = container;
  record.state.status = next(record.state.status, "remove");
  container.cancelRestart?.();
  try {
    if (record.hostConfig.AutoRemove) {
      void removeBehind(ctx, record.id);
    } else {
      ctx.registry.note(container);
      await ctx.runtime.remove(record.id);
    }
  } catch (error) {
    record.state.status = next(record.state.status, "removeFailed");
    record.state.error = messageOf(error);
    ctx.registry.note(container);
    throw new SkeinError(
      "internal",
      `container ${record.id}: driver failed to remove root filesystem: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
  if (record.task) rmSync(taskDir(ctx, record.id), { recursive: true, force: true });
  ctx.registry.drop(container);
  emitContainer(ctx, container, "destroy");
  if (options.volumes) removeAnonymous(ctx, container);
  container.settleExit(record.state.exitCode);
  container.removed.resolve();
}

/** Nobody waits for it: containerd may be away for the moment. */
async function removeBehind(ctx: EngineContext, id: string): Promise<void> {
  for (const again of [...REMOVE_AGAIN_MS, undefined]) {
    try {
      return await ctx.runtime.remove(id);
    } catch (error) {
      const words = { container: id, error: messageOf(error) };
      if (again === undefined) return ctx.log.warn("leftover stays", words);
      ctx.log.info("a container's layer is not removed yet", words);
      await sleep(ctx.clock, again);
    }
  }
}

function removeAnonymous(ctx: EngineContext, container: Container): void {
  for (const mount of container.record.mounts) {
    if (mount.type !== "volume" || !mount.anonymous) continue;
    if (volumeUsers(ctx, mount.name).length > 0) continue;
    try {
      if (ctx.volumes.remove(mount.name, [], true)) {
        ctx.events.emit({ type: "volume", action: "destroy", id: mount.name, attributes: { driver: "local" } });
      }
    } catch (error) {
      ctx.log.warn("anonymous volume left", { volume: mount.name, error: messageOf(error) });
    }
  }
}

/** Ids of the containers that mount a volume. */
export function volumeUsers(ctx: EngineContext, name: string): string[] {
  return ctx.registry
    .all()
    .filter((container) => container.record.mounts.some((mount) => mount.type === "volume" && mount.name === name))
    .map((container) => container.id);
}
