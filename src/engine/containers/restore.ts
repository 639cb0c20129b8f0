/** After a restart of the daemon or the host: what still runs is adopted, what does not is brought to its true state. */
import { sleep } from "../../base/clock.ts";
import { messageOf, SkeinError } from "../../base/errors.ts";
import { waitFor } from "../../base/waiting.ts";
import type { ListedContainer, StartedProcess } from "../../runtime/types.ts";
import type { EngineContext } from "../context.ts";
import { rfc3339Nano } from "../time.ts";
import { unmountVolumes } from "../volumes/mounting.ts";
import { emitContainer } from "./attributes.ts";
import type { Container } from "./container.ts";
import { mend } from "./mend.ts";
import { removeNow } from "./remove.ts";
import { restartDelay, startsAtBoot } from "./restart.ts";
import { scheduleRestart, watch } from "./start.ts";
import { next } from "./states.ts";

const PARALLEL = 16;
/** A container that takes longer does not keep the others from being reached, ms. */
const PATIENCE_MS = 10_000;
/** How often one is tried whose shim does not answer, ms. */
const AGAIN_MS = 5_000;
/** Docker's exit code of a process whose end nobody saw. */
const UNSEEN_EXIT = 255;

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items];
  const worker = async () => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(PARALLEL, rest.length) }, worker));
}

/**
 * Call before the API is served. Resolves when adopted containers are true again, but for those whose shims or disks do
 * not answer; they and restarts go on behind it.
 */
export async function restoreContainers(ctx: EngineContext): Promise<void> {
  const during = <T>(what: string, work: Promise<T>) => waitFor(what, work, ctx.log, ctx.clock);
  ctx.registry.load();
  const known = await during("containerd's list of containers", ctx.runtime.list());
  const found = new Map(known.map((one) => [one.id, one]));
  const alive = new Set<string>();
  for (const { id, running, silent } of known) {
    const container = ctx.registry.byId(id);
    if (container?.up && (running || silent)) alive.add(id);
  }
  await during("the networks of containers", ctx.network.restore(alive));
  await inParallel(
    known.filter(({ id }) => !ctx.registry.byId(id)),
    async ({ id }) => {
      ctx.log.info("removing a container that no record knows", { container: id });
      const removed = ctx.runtime
        .remove(id)
        .catch((error) => ctx.log.warn("leftover stays", { container: id, error: messageOf(error) }));
      await inTime(ctx, during(`the end of ${id}`, removed));
    },
  );
  const late = new Set<Container>();
  await inParallel(ctx.registry.all(), async (container) => {
    const { id } = container;
    const restored = ctx.locks.run(id, () => restoreOne(ctx, container, found.get(id)));
    if (await inTime(ctx, during(`container ${id}`, restored))) return;
    ctx.log.warn("starting without a container that cannot be restored yet", { container: id });
    late.add(container);
    void restored.then(() => boot(ctx, container));
  });
  for (const container of ctx.registry.all()) if (!late.has(container)) boot(ctx, container);
}

/** Whether `work`, which does not reject, is done before patience ends. It goes on in any case. */
async function inTime(ctx: EngineContext, work: Promise<void>): Promise<boolean> {
  const over = new AbortController();
  const patience = sleep(ctx.clock, PATIENCE_MS, over.signal).then(
    () => false,
    () => true,
  );
  const done = await Promise.race([work.then(() => true), patience]);
  over.abort();
  return done;
}

function boot(ctx: EngineContext, container: Container): void {
  if (!wantsStart(container)) return;
  container.record.state.status = next(container.record.state.status, "boot");
  container.record.restartDelay = 0;
  scheduleRestart(ctx, container, 0);
}

async function restoreOne(ctx: EngineContext, container: Container, found: ListedContainer | undefined): Promise<void> {
  const { record } = container;
  const { state } = record;
  try {
    if (state.status === "removing" || state.status === "dead") {
      state.status = "exited";
      await removeNow(ctx, container, { volumes: record.hostConfig.AutoRemove });
      return;
    }
    const process = container.up ? await adopt(ctx, container) : undefined;
    if (process) {
      state.pid = process.pid;
      if (found?.running) {
        await mend(ctx, container, found.paused).catch((error) =>
          ctx.log.error("container not mended", { container: container.id, error: messageOf(error) }),
        );
      }
      watch(ctx, container, process);
      return;
    }
    // The daemon was killed between the task and its own word of it: what was promised to nobody does not run on.
    if (found?.task && !container.up) await ctx.runtime.end(container.id);
    if (state.status === "created" || state.status === "exited") {
      unmountVolumes(ctx, container);
      return;
    }
    lost(ctx, container);
    if (record.hostConfig.AutoRemove) await removeNow(ctx, container, { volumes: true });
  } catch (error) {
    ctx.log.error("container not restored", { container: container.id, error: messageOf(error) });
  }
}

/** The process of a container that ran. As long as its shim does not answer it is taken for one that runs. */
async function adopt(ctx: EngineContext, { id }: Container): Promise<StartedProcess | undefined> {
  for (;;) {
    try {
      return await ctx.runtime.adopt(id);
    } catch (error) {
      if (!(error instanceof SkeinError && error.code === "unavailable")) throw error;
      ctx.log.warn("container not restored yet", { container: id, error: error.message });
      await sleep(ctx.clock, AGAIN_MS);
    }
  }
}

/** It ran when the daemon was last here; nobody saw its end. */
function lost(ctx: EngineContext, container: Container): void {
  const { state } = container.record;
  const ran = container.up;
  state.status = "exited";
  state.pid = 0;
  if (ran) {
    state.exitCode = UNSEEN_EXIT;
    state.finishedAt = rfc3339Nano(ctx.clock.now());
    emitContainer(ctx, container, "die", { exitCode: String(UNSEEN_EXIT) });
  }
  unmountVolumes(ctx, container);
  for (const use of Object.values(container.record.networks)) {
    use.endpoint = undefined;
    use.attachmentId = "";
  }
  ctx.registry.save(container);
}

function wantsStart(container: Container): boolean {
  const { record } = container;
  if (container.up || record.task || !record.started) return false;
  const policy = record.hostConfig.RestartPolicy;
  if (startsAtBoot(policy, record.started, record.manuallyStopped)) return true;
  return (
    policy.Name === "on-failure" &&
    restartDelay(policy, {
      exitCode: record.state.exitCode,
      ran: 0,
      manually: record.manuallyStopped,
      restarts: record.restartCount,
      lastDelay: 0,
    }) !== undefined
  );
}
