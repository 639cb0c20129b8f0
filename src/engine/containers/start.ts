/**
 * Runs of a container: how one begins, and what its end sets in motion.
 *
 *   start ──▶ sandbox, endpoints, files ──▶ runtime.start ──▶ running ──▶ exit
 *                                                                        │ output drained (bounded)
 *             removed (--rm) ◀── exited ◀──────────────┐                 ▼
 *             start again ◀── delay ◀── restarting ◀── decision ◀── network left, log ended
 */

import { deferred } from "../../base/async.ts";
import { sleep } from "../../base/clock.ts";
import { conflict, messageOf, SkeinError } from "../../base/errors.ts";
import type { ExitStatus, StartedProcess } from "../../runtime/types.ts";
import type { EngineContext } from "../context.ts";
import { LogIntake } from "../logs/intake.ts";
import { parseRfc3339, rfc3339Nano } from "../time.ts";
import { mountVolumes, tellVolumes, unmountVolumes } from "../volumes/mounting.ts";
import { openParts } from "../volumes/subpath.ts";
import { emitContainer } from "./attributes.ts";
import type { Container, Run } from "./container.ts";
import { startExitCode } from "./exec.ts";
import { Flow } from "./flow.ts";
import { HealthMonitor, probeCommand } from "./health.ts";
import { linkEnv, linkersOf } from "./links.ts";
import { joinNetworks, leaveNetworks, writeEtc } from "./networking.ts";
import { runProbe } from "./probe.ts";
import { checkPropagation } from "./propagation.ts";
import { removeNow } from "./remove.ts";
import { restartDelay } from "./restart.ts";
import { runtimeSpec } from "./spec.ts";
import { next } from "./states.ts";

/** How long output that grandchildren hold open is waited for after the exit. */
const DRAIN_MS = 2_500;

/** Starts a container that does not run. Call it under the container's lock. */
export async function startNow(ctx: EngineContext, container: Container): Promise<void> {
  const { record } = container;
  const { state } = record;
  if (state.status === "paused") throw conflict("cannot start a paused container, try unpause instead");
  if (container.up) throw new SkeinError("notModified", "");
  if (state.status === "removing") throw conflict("container is marked for removal and cannot be started");
  if (state.status === "dead") throw conflict("container is dead and cannot be started");
  container.cancelRestart?.();
  container.cancelRestart = undefined;
  let process: StartedProcess;
  let mounted = false;
  try {
    checkPropagation(record.mounts);
    mountVolumes(ctx, container);
    tellVolumes(ctx, container, "mount");
    mounted = true;
    const place = await joinNetworks(ctx, container);
    try {
      using parts = openParts(ctx.paths.run);
      await parts.openImages(record.mounts, (image, path) => ctx.runtime.mountImage(record.id, image, path));
      const spec = runtimeSpec(record, {
        ...place,
        partOf: parts.partOf,
        extraMounts: (record.task?.files ?? []).map(({ target, path }) => ({
          type: "bind",
          source: path,
          target,
          readonly: true,
          options: [],
        })),
        pidOf: (ref) => pidOf(ctx, ref),
        ipcOf: (ref) => ipcOf(ctx, ref),
        linkEnv: linkEnv(ctx, container),
      });
      const activity = record.task || !place.own ? undefined : ctx.network.setActivity(record.id, "active");
      [process] = await Promise.all([ctx.runtime.start(spec), activity]);
    } catch (error) {
      await leaveNetworks(ctx, container);
      throw error;
    }
  } catch (error) {
    if (mounted) tellVolumes(ctx, container, "unmount");
    await failStart(ctx, container, error);
    throw startError(error);
  }
  state.status = next(state.status, "start");
  state.pid = process.pid;
  state.exitCode = 0;
  state.error = "";
  state.oomKilled = false;
  state.startedAt = rfc3339Nano(ctx.clock.now());
  record.started = true;
  watch(ctx, container, process);
  ctx.registry.note(container);
  for (const other of linkersOf(ctx, container)) writeEtc(ctx, other);
  emitContainer(ctx, container, "start");
}

function pidOf(ctx: EngineContext, ref: string): number {
  const other = ctx.registry.get(ref);
  if (!other.up) throw conflict(`cannot join PID namespace of a non running container: ${other.id}`);
  return other.record.state.pid;
}

function ipcOf(ctx: EngineContext, ref: string): { containerPid: number; containerId: string } {
  const other = ctx.registry.get(ref);
  if (!other.up) throw conflict(`cannot join IPC of a non running container: ${other.id}`);
  if (other.record.hostConfig.IpcMode !== "shareable") {
    throw conflict(
      `cannot join IPC of container ${other.id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`,
    );
  }
  return { containerPid: other.record.state.pid, containerId: other.id };
}

async function failStart(ctx: EngineContext, container: Container, error: unknown): Promise<void> {
  const { state } = container.record;
  unmountVolumes(ctx, container);
  state.status = next(state.status, "startFailed");
  state.exitCode = startExitCode(messageOf(error));
  state.error = messageOf(error);
  container.runs.emit("end");
  container.settleExit(state.exitCode);
  if (container.record.hostConfig.AutoRemove) await removeNow(ctx, container, { volumes: true });
  else ctx.registry.note(container);
}

/** What cannot be run is the client's fault (400), as with dockerd. */
function startError(error: unknown): unknown {
  if (error instanceof SkeinError && error.code !== "internal") return error;
  const message = messageOf(error);
  return startExitCode(message) === 128 ? error : new SkeinError("invalid", message, { cause: error });
}

/** Connects a process, started or adopted, with its container. */
export function watch(ctx: EngineContext, container: Container, process: StartedProcess): void {
  const flow = new Flow(process.io);
  const run: Run = { process, over: deferred(), flow, intake: new LogIntake(container.log, flow) };
  container.run = run;
  process.io.onOutput((chunk) => {
    run.intake.take(chunk);
    container.output.emit(chunk);
  });
  container.runs.emit("begin");
  if (container.size && container.record.config.Tty) {
    void ctx.runtime.resize(container.id, container.size.width, container.size.height).catch(() => {});
  }
  beginHealth(ctx, container);
  void process.exit
    .then((status) => ended(ctx, container, run, status))
    .catch((error) => ctx.log.error("exit of a container not dealt with", { container: container.id, error }));
}

function beginHealth(ctx: EngineContext, container: Container): void {
  container.health?.stop();
  container.health = undefined;
  const { Healthcheck: check, Shell } = container.record.config;
  const command = probeCommand(check, Shell);
  if (!check || !command) return;
  container.health = new HealthMonitor({
    check,
    clock: ctx.clock,
    probe: (signal) => runProbe(ctx, container, command, signal),
    onChange: (status) => emitContainer(ctx, container, `health_status: ${status}`),
  });
}

async function ended(ctx: EngineContext, container: Container, run: Run, status: ExitStatus): Promise<void> {
  run.flow.open();
  const patience = new AbortController();
  await Promise.race([run.process.io.drained, sleep(ctx.clock, DRAIN_MS, patience.signal).catch(() => {})]);
  patience.abort();
  try {
    await ctx.locks.run(container.id, () => settle(ctx, container, run, status));
  } finally {
    run.over.resolve();
  }
}

async function settle(ctx: EngineContext, container: Container, run: Run, status: ExitStatus): Promise<void> {
  if (container.run !== run) return;
  const { record } = container;
  const { state } = record;
  container.health?.stop();
  run.intake.finish();
  container.log.end();
  const began = parseRfc3339(state.startedAt) ?? ctx.clock.now();
  const ran = ctx.clock.now() - began;
  const delay = restartDelay(record.hostConfig.RestartPolicy, {
    exitCode: status.exitCode,
    ran,
    manually: record.manuallyStopped,
    restarts: record.restartCount,
    lastDelay: record.restartDelay,
  });
  await leaveNetworks(ctx, container);
  state.status = next(state.status, delay === undefined ? "exit" : "exitToRestart");
  state.pid = 0;
  state.exitCode = status.exitCode;
  state.oomKilled = status.oomKilled;
  state.finishedAt = parseRfc3339(status.exitedAt) === undefined ? rfc3339Nano(ctx.clock.now()) : status.exitedAt;
  record.restartDelay = delay ?? 0;
  container.run = undefined;
  unmountVolumes(ctx, container);
  container.runs.emit("end");
  if (status.oomKilled) emitContainer(ctx, container, "oom");
  emitContainer(ctx, container, "die", {
    exitCode: String(status.exitCode),
    execDuration: String(Math.max(0, Math.floor(ran / 1000))),
  });
  tellVolumes(ctx, container, "unmount");
  if (delay !== undefined) {
    ctx.registry.note(container);
    scheduleRestart(ctx, container, delay);
    return;
  }
  if (record.hostConfig.AutoRemove) await removeNow(ctx, container, { volumes: true });
  else ctx.registry.note(container);
  container.settleExit(status.exitCode);
}

/** Starts it again after the delay, and again after each failure to start, until that works or it is stopped. */
export function scheduleRestart(ctx: EngineContext, container: Container, delay: number): void {
  container.cancelRestart?.();
  container.cancelRestart = ctx.clock.after(delay, () => {
    container.cancelRestart = undefined;
    void ctx.locks.run(container.id, () => restartNow(ctx, container));
  });
}

async function restartNow(ctx: EngineContext, container: Container): Promise<void> {
  const { record } = container;
  if (record.state.status !== "restarting") return;
  // A start at boot is no restart.
  if (record.restartDelay > 0) record.restartCount++;
  try {
    await startNow(ctx, container);
  } catch (error) {
    ctx.log.warn("container could not be restarted", { container: container.id, error: messageOf(error) });
    if (ctx.registry.byId(container.id) !== container) return;
    record.state.finishedAt = rfc3339Nano(ctx.clock.now());
    const delay = restartDelay(record.hostConfig.RestartPolicy, {
      exitCode: record.state.exitCode,
      ran: 0,
      manually: record.manuallyStopped,
      restarts: record.restartCount,
      lastDelay: record.restartDelay,
    });
    if (delay === undefined) return;
    record.restartDelay = delay;
    record.state.status = "restarting";
    ctx.registry.note(container);
    scheduleRestart(ctx, container, delay);
  }
}
