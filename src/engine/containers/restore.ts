/** After a restart of the daemon or the host: what still runs is adopted, what does not is brought to its true state. */
import { messageOf } from "../../base/errors.ts";
import { waitFor } from "../../base/waiting.ts";
import type { ListedContainer } from "../../runtime/types.ts";
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
/** Docker's exit code of a process whose end nobody saw. */
const UNSEEN_EXIT = 255;

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items];
  const worker = async () => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(PARALLEL, rest.length) }, worker));
}

/** Call before the API is served. Resolves when adopted containers are true again; restarts go on behind it. */
export async function restoreContainers(ctx: EngineContext): Promise<void> {
  const during = <T>(what: string, work: Promise<T>) => waitFor(what, work, ctx.log, ctx.clock);
  ctx.registry.load();
  const known = await during("containerd's list of containers", ctx.runtime.list());
  const found = new Map(known.map((one) => [one.id, one]));
  const alive = new Set<string>();
  for (const { id, running } of known) {
    const container = ctx.registry.byId(id);
    if (container?.up && running) alive.add(id);
  }
  await during("the networks of containers", ctx.network.restore(alive));
  await inParallel(
    known.filter(({ id }) => !ctx.registry.byId(id)),
    async ({ id }) => {
      ctx.log.info("removing a container that no record knows", { container: id });
      await during(`the end of ${id}`, ctx.runtime.remove(id)).catch((error) =>
        ctx.log.warn("leftover stays", { container: id, error: messageOf(error) }),
      );
    },
  );
  await inParallel(ctx.registry.all(), (container) =>
    during(`container ${container.id}`, restoreOne(ctx, container, found.get(container.id))),
  );
  for (const container of ctx.registry.all()) {
    if (!wantsStart(container)) continue;
    container.record.state.status = next(container.record.state.status, "boot");
    container.record.restartDelay = 0;
    scheduleRestart(ctx, container, 0);
  }
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
    const process = container.up ? await ctx.runtime.adopt(container.id) : undefined;
    if (process) {
      state.pid = process.pid;
      if (found?.running) await mend(ctx, container, found.paused);
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
