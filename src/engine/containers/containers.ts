/** The door to containers: finds them and hands on to one file per mechanism. */
import { SkeinError } from "../../base/errors.ts";
import type { EngineContext } from "../context.ts";
import { emitPrune } from "../events.ts";
import { knownFilters, labels, withoutLabels } from "../filters.ts";
import { parseRfc3339, parseTimestamp } from "../time.ts";
import type { Containers } from "../types.ts";
import { archives } from "./archive.ts";
import { attach } from "./attach.ts";
import { emitContainer } from "./attributes.ts";
import { connect, disconnect } from "./connect.ts";
import { createContainer } from "./create.ts";
import { createExec, execDocument, execSession, findExec, launch, requireRunning } from "./exec.ts";
import { inspectContainer } from "./inspect.ts";
import { removeLink } from "./links.ts";
import { listContainers } from "./list.ts";
import { remove } from "./remove.ts";
import { startNow } from "./start.ts";
import { streamStats, top } from "./stats.ts";
import { kill, pause, restart, stop, unpause } from "./stop.ts";
import { rename, update } from "./update.ts";
import { waitFor } from "./wait.ts";

export function createContainers(ctx: EngineContext): Containers {
  const get = (ref: string) => ctx.registry.get(ref);
  return {
    create: (request) => createContainer(ctx, request),
    async start(ref) {
      const container = get(ref);
      await ctx.locks.run(container.id, async () => {
        if (container.up) throw new SkeinError("notModified", "");
        container.record.manuallyStopped = false;
        container.record.restartCount = 0;
        container.record.restartDelay = 0;
        await startNow(ctx, container);
      });
    },
    stop: async (ref, options) => stop(ctx, get(ref), options),
    restart: async (ref, options = {}) => restart(ctx, get(ref), options),
    kill: async (ref, signal) => kill(ctx, get(ref), signal || undefined),
    pause: async (ref) => pause(ctx, get(ref)),
    unpause: async (ref) => unpause(ctx, get(ref)),
    rename: async (ref, name) => rename(ctx, get(ref), name),
    async remove(ref, options) {
      if (options.link) {
        removeLink(ctx, ref);
        return;
      }
      await remove(ctx, get(ref), options);
    },
    wait(ref, condition, signal) {
      const exit = waitFor(get(ref), condition, signal);
      return { exit: exit.then((StatusCode) => ({ StatusCode })) };
    },
    update: async (ref, change) => update(ctx, get(ref), change),
    async prune(filters) {
      knownFilters(filters, ["label", "label!", "until"]);
      const [until] = filters.get("until") ?? [];
      const before = until === undefined ? Number.POSITIVE_INFINITY : parseTimestamp(until, ctx.clock.now());
      const ContainersDeleted: string[] = [];
      let SpaceReclaimed = 0;
      for (const container of ctx.registry.all()) {
        const { record } = container;
        if (container.up || record.state.status === "restarting" || (parseRfc3339(record.created) ?? 0) > before)
          continue;
        if (!labels(filters, record.config.Labels) || !withoutLabels(filters, record.config.Labels)) continue;
        const size = await ctx.runtime.writableSize(record.id).catch(() => 0);
        try {
          await remove(ctx, container, { force: false, volumes: false });
        } catch (error) {
          ctx.log.debug("container not pruned", { container: record.id, error });
          continue;
        }
        ContainersDeleted.push(record.id);
        SpaceReclaimed += size;
      }
      emitPrune(ctx, "container", SpaceReclaimed);
      return { ContainersDeleted: ContainersDeleted.length ? ContainersDeleted : null, SpaceReclaimed };
    },

    resolve: (ref) => get(ref).id,
    inspect: async (ref, options = {}) => inspectContainer(ctx, get(ref), options.size ?? false),
    list: (options) => listContainers(ctx, options),
    state: (ref) => get(ref).status(),

    logs(ref, options) {
      const container = get(ref);
      const { log, record, run } = container;
      return { tty: record.config.Tty, entries: log.read(options, run !== undefined), attributes: log.attributes };
    },
    attach: (ref, options) => attach(ctx, get(ref), options),
    async resize(ref, width, height) {
      const container = get(ref);
      container.size = { width, height };
      if (!container.up) throw new SkeinError("conflict", `container ${container.id} is not running`);
      await ctx.runtime.resize(container.id, width, height);
      emitContainer(ctx, container, "resize", { height: String(height), width: String(width) });
    },
    top: async (ref, psArgs) => top(ctx, get(ref), psArgs),
    stats: (ref, options) => streamStats(ctx, get(ref), options),

    async execCreate(ref, config) {
      return { Id: createExec(ctx, get(ref), config).id };
    },
    async execStart(id, options) {
      const { container, exec } = findExec(ctx, id);
      requireRunning(container, "exec");
      if (exec.state === "running") throw new SkeinError("conflict", `Error: Exec command ${id} is already running`);
      if (exec.state === "exited") throw new SkeinError("conflict", `Error: Exec command ${id} has already run`);
      const [height, width] = options.consoleSize ?? exec.config.ConsoleSize ?? [];
      if (height && width && exec.config.Tty) exec.size = { width, height };
      if (!options.detach) return execSession(ctx, container, exec, options.detachKeys ?? "");
      await launch(ctx, container, exec);
      return { tty: exec.config.Tty, run: async () => {} };
    },
    execInspect(id) {
      const { container, exec } = findExec(ctx, id);
      return execDocument(container, exec);
    },
    async execResize(id, width, height) {
      const { container, exec } = findExec(ctx, id);
      exec.size = { width, height };
      if (exec.state === "running") await ctx.runtime.resize(container.id, width, height, id);
    },

    ...archives(ctx),

    connect: async (ref, networkRef, settings) => connect(ctx, get(ref), networkRef, settings),
    async disconnect(ref, networkRef, force) {
      const container = ctx.registry.find(ref);
      if (!container) {
        // Docker's --force for an endpoint whose container is gone: nothing stale is kept here that could be removed.
        if (force) return;
        get(ref);
        return;
      }
      await disconnect(ctx, container, networkRef);
    },
    async setActivity(ref, activity) {
      const container = get(ref);
      if (ctx.network.sandbox(container.id)) await ctx.network.setActivity(container.id, activity);
    },
  };
}
