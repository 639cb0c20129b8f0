/** Stop, kill, restart, pause. None of these holds the container's lock while it waits for the process to end. */
import { sleep } from "../../base/clock.ts";
import { conflict, messageOf, SkeinError } from "../../base/errors.ts";
import type { EngineContext } from "../context.ts";
import { rfc3339Nano } from "../time.ts";
import { emitContainer } from "./attributes.ts";
import type { Container } from "./container.ts";
import { parseSignal } from "./signals.ts";
import { startNow } from "./start.ts";
import { next } from "./states.ts";

const DEFAULT_GRACE = 10;
const SIGKILL = 9;
/** After SIGKILL the kernel may still need a while (uninterruptible I/O); then it is told. */
const KILL_WAIT_MS = 30_000;

/** The user wants it down: no restart policy acts on the coming exit. */
function markStopped(ctx: EngineContext, container: Container): void {
  if (container.record.manuallyStopped) return;
  container.record.manuallyStopped = true;
  ctx.registry.note(container);
}

/** A container between two runs of its restart policy comes to rest. Gives false when it was not. */
export function cancelRestart(ctx: EngineContext, container: Container): boolean {
  const { state } = container.record;
  if (state.status !== "restarting") return false;
  container.cancelRestart?.();
  container.cancelRestart = undefined;
  state.status = next(state.status, "cancelRestart");
  state.finishedAt = rfc3339Nano(ctx.clock.now());
  ctx.registry.note(container);
  container.settleExit(state.exitCode);
  return true;
}

async function signalProcess(ctx: EngineContext, container: Container, signal: number): Promise<void> {
  await ctx.runtime.kill(container.id, signal);
  emitContainer(ctx, container, "kill", { signal: String(signal) });
  // A frozen process acts on its signal only when it is thawed.
  if (container.record.state.status === "paused") await unpause(ctx, container);
}

/** Waits for the present run to be over. False when the time ran out. */
async function awaitOver(ctx: EngineContext, container: Container, ms: number): Promise<boolean> {
  const { run } = container;
  if (!run) return true;
  if (ms < 0) {
    await run.over.promise;
    return true;
  }
  const timer = new AbortController();
  const over = await Promise.race([
    run.over.promise.then(() => true),
    sleep(ctx.clock, ms, timer.signal).then(
      () => false,
      () => false,
    ),
  ]);
  timer.abort();
  return over;
}

export async function stop(
  ctx: EngineContext,
  container: Container,
  options: { timeout?: number | undefined; signal?: string | undefined } = {},
): Promise<void> {
  const { config } = container.record;
  if (cancelRestart(ctx, container)) {
    markStopped(ctx, container);
    emitContainer(ctx, container, "stop");
    return;
  }
  if (!container.up) throw new SkeinError("notModified", "");
  const signal = parseSignal(options.signal || config.StopSignal || "SIGTERM");
  const grace = options.timeout ?? config.StopTimeout ?? DEFAULT_GRACE;
  markStopped(ctx, container);
  try {
    await signalProcess(ctx, container, signal);
  } catch (error) {
    if (container.up) ctx.log.warn("stop signal not delivered", { container: container.id, error: messageOf(error) });
  }
  if (!(await awaitOver(ctx, container, grace < 0 ? -1 : grace * 1000))) await forceKill(ctx, container);
  emitContainer(ctx, container, "stop");
}

/** SIGKILL, and the wait until the exit has been dealt with. */
export async function forceKill(ctx: EngineContext, container: Container): Promise<void> {
  if (!container.run) return;
  markStopped(ctx, container);
  try {
    await signalProcess(ctx, container, SIGKILL);
  } catch (error) {
    if (container.up) ctx.log.warn("SIGKILL not delivered", { container: container.id, error: messageOf(error) });
  }
  if (!(await awaitOver(ctx, container, KILL_WAIT_MS))) {
    throw new SkeinError("internal", `tried to kill container, but did not receive an exit event`);
  }
}

export async function kill(ctx: EngineContext, container: Container, signal = "SIGKILL"): Promise<void> {
  const number = parseSignal(signal);
  if (!container.up) {
    throw conflict(`cannot kill container: ${container.name}: container ${container.id} is not running`);
  }
  if (number === SIGKILL) {
    await forceKill(ctx, container);
    return;
  }
  markStopped(ctx, container);
  await signalProcess(ctx, container, number);
}

export async function restart(
  ctx: EngineContext,
  container: Container,
  options: { timeout?: number | undefined; signal?: string | undefined },
): Promise<void> {
  // The exit in the middle of a restart removes no --rm container.
  const { hostConfig } = container.record;
  const autoRemove = hostConfig.AutoRemove;
  hostConfig.AutoRemove = false;
  try {
    if (container.up || container.record.state.status === "restarting") await stop(ctx, container, options);
  } finally {
    hostConfig.AutoRemove = autoRemove;
  }
  await ctx.locks.run(container.id, async () => {
    container.record.manuallyStopped = false;
    await startNow(ctx, container);
  });
  emitContainer(ctx, container, "restart");
}

export async function pause(ctx: EngineContext, container: Container): Promise<void> {
  await ctx.locks.run(container.id, async () => {
    const { state } = container.record;
    if (state.status === "paused") throw conflict(`Container ${container.id} is already paused`);
    if (state.status === "restarting") {
      throw conflict(`Container ${container.id} is restarting, wait until the container is running`);
    }
    if (state.status !== "running") throw conflict(`Container ${container.id} is not running`);
    await ctx.runtime.pause(container.id);
    state.status = next(state.status, "pause");
    ctx.registry.note(container);
    emitContainer(ctx, container, "pause");
  });
}

export async function unpause(ctx: EngineContext, container: Container): Promise<void> {
  await ctx.locks.run(container.id, async () => {
    const { state } = container.record;
    if (state.status !== "paused") throw conflict(`Container ${container.id} is not paused`);
    await ctx.runtime.unpause(container.id);
    state.status = next(state.status, "unpause");
    ctx.registry.note(container);
    emitContainer(ctx, container, "unpause");
  });
}
