/** `docker exec`: a further process in a running container. */
import { AsyncQueue } from "../../base/async.ts";
import { conflict, messageOf, notFound, SkeinError } from "../../base/errors.ts";
import { hexId } from "../../base/id.ts";
import type { OutputChunk, StartedProcess } from "../../runtime/types.ts";
import type { EngineContext } from "../context.ts";
import type { ExecConfig } from "../shapes.ts";
import type { AttachIo, AttachSession, Json } from "../types.ts";
import { emitContainer } from "./attributes.ts";
import type { Container } from "./container.ts";
import { parseDetachKeys } from "./detach.ts";
import { processEnv } from "./merge.ts";
import { runSession } from "./session.ts";

export interface Exec {
  readonly id: string;
  readonly config: ExecConfig;
  state: "created" | "running" | "exited";
  process: StartedProcess | undefined;
  exitCode: number | null;
  size: { width: number; height: number } | undefined;
}

/** How many ended execs a container remembers for `exec inspect`. */
const REMEMBERED = 100;

export function requireRunning(container: Container, doing: string): void {
  const { status } = container.record.state;
  if (status === "paused")
    throw conflict(`Container ${container.name} is paused, unpause the container before ${doing}`);
  if (status === "restarting")
    throw conflict(`Container ${container.id} is restarting, wait until the container is running`);
  if (status !== "running") throw conflict(`container ${container.id} is not running`);
}

export function createExec(ctx: EngineContext, container: Container, config: ExecConfig): Exec {
  requireRunning(container, "exec");
  if (config.Cmd.length === 0) throw new SkeinError("invalid", "No exec command specified");
  parseDetachKeys(config.DetachKeys);
  const exec: Exec = { id: hexId(), config, state: "created", process: undefined, exitCode: null, size: undefined };
  const ended = [...container.execs.values()].filter((known) => known.state === "exited");
  for (const old of ended.slice(0, Math.max(0, ended.length - REMEMBERED))) container.execs.delete(old.id);
  container.execs.set(exec.id, exec);
  emitContainer(ctx, container, `exec_create: ${config.Cmd.join(" ")}`, { execID: exec.id });
  return exec;
}

export function findExec(ctx: EngineContext, id: string): { container: Container; exec: Exec } {
  for (const container of ctx.registry.all()) {
    const exec = container.execs.get(id);
    if (exec) return { container, exec };
  }
  throw notFound(`No such exec instance: ${id}`);
}

/** Runs the process. Throws runc's message; the exec then has exit code 126 or 127. */
export async function launch(ctx: EngineContext, container: Container, exec: Exec): Promise<StartedProcess> {
  const { config } = exec;
  const own = container.record.config;
  emitContainer(ctx, container, `exec_start: ${config.Cmd.join(" ")}`, { execID: exec.id });
  try {
    const process = await ctx.runtime.exec(container.id, {
      execId: exec.id,
      args: config.Cmd,
      env: processEnv({ Env: [...own.Env, ...config.Env], Tty: config.Tty }, own.Hostname),
      cwd: config.WorkingDir || own.WorkingDir || "/",
      user: config.User || own.User,
      tty: config.Tty,
      stdin: config.AttachStdin,
      privileged: config.Privileged,
    });
    exec.process = process;
    exec.state = "running";
    void process.exit.then((status) => {
      exec.state = "exited";
      exec.exitCode = status.exitCode;
      emitContainer(ctx, container, "exec_die", { execID: exec.id, exitCode: String(status.exitCode) });
    });
    if (exec.size) await ctx.runtime.resize(container.id, exec.size.width, exec.size.height, exec.id).catch(() => {});
    return process;
  } catch (error) {
    exec.state = "exited";
    exec.exitCode = startExitCode(messageOf(error));
    throw error;
  }
}

/** Docker's exit code for a process that could not be started. */
export function startExitCode(message: string): number {
  if (/executable file not found|no such file or directory|system cannot find the file specified/i.test(message))
    return 127;
  if (/permission denied|is a directory|not a directory/i.test(message)) return 126;
  return 128;
}

/**
 * As dockerd, a process that cannot be started is told in the stream, not as an HTTP error: the CLI then takes the exit
 * code from `exec inspect`.
 */
export function execSession(ctx: EngineContext, container: Container, exec: Exec, detachKeys: string): AttachSession {
  const keys = parseDetachKeys(detachKeys || exec.config.DetachKeys);
  return {
    tty: exec.config.Tty,
    async run(io) {
      let process: StartedProcess;
      try {
        process = await launch(ctx, container, exec);
      } catch (error) {
        await io.write({ stream: "stdout", data: Buffer.from(`${messageOf(error)}\r\n`) });
        return;
      }
      await converse(exec, process, io, keys);
    },
  };
}

async function converse(exec: Exec, process: StartedProcess, io: AttachIo, keys: Buffer): Promise<void> {
  const { config } = exec;
  const output = new AsyncQueue<OutputChunk>();
  const stop = process.io.onOutput((chunk) => {
    if (chunk.stream === "stdout" ? config.AttachStdout || config.Tty : config.AttachStderr) output.push(chunk);
  });
  void Promise.all([process.exit, process.io.drained]).then(() => output.end());
  try {
    await runSession({
      io,
      output,
      stdin: config.AttachStdin ? Promise.resolve(process.io.stdin) : undefined,
      // The end of input is no end of a terminal: the client left by its keys, and closing would hang the process up.
      inputEnded: () => {
        if (!config.Tty) void process.io.closeStdin().catch(() => {});
      },
      detachKeys: config.Tty && config.AttachStdin ? keys : undefined,
    });
  } finally {
    stop();
  }
}

export function execDocument(container: Container, exec: Exec): Json {
  const { config } = exec;
  const [entrypoint = "", ...args] = config.Cmd;
  return {
    ID: exec.id,
    Running: exec.state === "running",
    ExitCode: exec.exitCode,
    ProcessConfig: {
      tty: config.Tty,
      entrypoint,
      arguments: args,
      privileged: config.Privileged,
      ...(config.User && { user: config.User }),
    },
    OpenStdin: config.AttachStdin,
    OpenStderr: config.AttachStderr,
    OpenStdout: config.AttachStdout,
    CanRemove: exec.state === "exited",
    ContainerID: container.id,
    DetachKeys: config.DetachKeys,
    Pid: exec.process?.pid ?? 0,
  };
}
