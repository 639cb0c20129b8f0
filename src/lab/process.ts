/**
 * Processes of the lab: started detached, remembered by pid and start time, so that a pid
 * that was reused by a stranger is never signalled.
 */
import { type SpawnOptions, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { type Clock, sleep, systemClock } from "../base/clock.ts";
import { errnoOf, SkeinError } from "../base/errors.ts";

export interface ProcessRef {
  readonly pid: number;
  /** Field 22 of /proc/<pid>/stat: clock ticks since boot. */
  readonly startTime: string;
}

function statFields(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    return text.slice(text.lastIndexOf(")") + 2).split(" ");
  } catch {
    return undefined;
  }
}

export function processRef(pid: number): ProcessRef | undefined {
  const fields = statFields(pid);
  return fields && fields[0] !== "Z" ? { pid, startTime: fields[19] ?? "" } : undefined;
}

export function isAlive(ref: ProcessRef | undefined): boolean {
  return ref !== undefined && processRef(ref.pid)?.startTime === ref.startTime;
}

/** Whether SIGSTOP holds it. */
export const isStopped = (ref: ProcessRef): boolean => statFields(ref.pid)?.[0] === "T";

/** Sends a signal if the process is still the one that was remembered. */
export function signal(ref: ProcessRef, name: NodeJS.Signals): void {
  if (!isAlive(ref)) return;
  try {
    process.kill(ref.pid, name);
  } catch (error) {
    if (errnoOf(error) !== "ESRCH") throw error;
  }
}

/** Signals, and waits until the process is gone. */
export async function end(ref: ProcessRef, name: NodeJS.Signals, timeoutMs: number, clock: Clock = systemClock) {
  signal(ref, name);
  const deadline = clock.now() + timeoutMs;
  while (isAlive(ref)) {
    if (clock.now() > deadline) return false;
    await sleep(clock, 10);
  }
  return true;
}

/** Direct children of a process. */
export function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

/** Starts a process that outlives this one; its output is appended to a file. */
export function startDetached(command: readonly string[], logFile: string, options: SpawnOptions = {}): ProcessRef {
  const [file, ...args] = command;
  if (!file) throw new Error("no command");
  const log = openSync(logFile, "a", 0o640);
  try {
    const child = spawn(file, args, { ...options, detached: true, stdio: ["ignore", log, log] });
    child.on("error", () => {});
    child.unref();
    const ref = child.pid === undefined ? undefined : processRef(child.pid);
    if (!ref) throw new SkeinError("internal", `cannot start ${file}: see ${logFile}`);
    return ref;
  } finally {
    closeSync(log);
  }
}

export interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end; never throws for a non-zero exit. */
export function run(
  command: readonly string[],
  options: { input?: Uint8Array | NodeJS.ReadableStream; timeoutMs?: number; env?: NodeJS.ProcessEnv } = {},
): Promise<Output> {
  const [file, ...args] = command;
  if (!file) throw new Error("no command");
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: options.env ?? process.env,
      timeout: options.timeoutMs ?? 60_000,
      killSignal: "SIGKILL",
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
    child.on("error", reject);
    child.on("close", (code, killed) => {
      if (killed) err.push(Buffer.from(`\n${file} was ended by ${killed}`));
      resolve({ code: code ?? 137, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() });
    });
    child.stdin.on("error", () => {});
    if (options.input && "pipe" in options.input) options.input.pipe(child.stdin);
    else child.stdin.end(options.input);
  });
}
