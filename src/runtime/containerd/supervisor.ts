/**
 * Skein's own containerd: started as a child in its own session, found again after a crash of ours
 * (pid file and an answering socket), started anew when it dies, stopped on dispose. Its shims, and so the
 * containers, do not mind any of that.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { type Clock, sleep, systemClock } from "../../base/clock.ts";
import { errnoOf, messageOf, unavailable } from "../../base/errors.ts";
import { readFileIfAny } from "../../base/file.ts";
import { grpcMessageOf } from "../../base/grpc.ts";
import type { Logger } from "../../base/log.ts";
import { type Containerd, snapshotter } from "./client.ts";
import { containerdConfig, type OwnPaths } from "./config.ts";

const readyTimeout = 20_000;
const stopTimeout = 10_000;
const restartDelay = { first: 100, most: 5_000 };

export class Supervisor implements AsyncDisposable {
  #paths: OwnPaths;
  #client: Containerd;
  #log: Logger;
  #clock: Clock;
  #pid = 0;
  #stopping = false;
  #cancelWatch: () => void = () => {};
  #restarting: Promise<void> | undefined;
  #delay = restartDelay.first;
  /** containerd had died and answers again. */
  onRestart: (() => void) | undefined;

  constructor(paths: OwnPaths, client: Containerd, log: Logger, clock: Clock = systemClock) {
    this.#paths = paths;
    this.#client = client;
    this.#log = log;
    this.#clock = clock;
  }

  get pid(): number {
    return this.#pid;
  }

  /** Resolves when containerd answers, adopted or started. */
  async start(signal?: AbortSignal): Promise<void> {
    const old = runningPid(this.#paths);
    if (old !== undefined) {
      if (await this.#answers(3_000)) {
        this.#pid = old;
        this.#log.info("containerd was running already", { pid: old });
        this.#watchAdopted(old);
        return;
      }
      this.#log.warn("containerd does not answer: replacing it", { pid: old });
      await this.#stop(old);
    }
    await this.#spawn(signal);
  }

  async #spawn(signal?: AbortSignal): Promise<void> {
    const paths = this.#paths;
    for (const dir of [paths.root, paths.state, dirname(paths.socket), dirname(paths.log)]) {
      mkdirSync(dir, { recursive: true, mode: 0o711 });
    }
    rmSync(paths.socket, { force: true });
    writeFileSync(paths.config, containerdConfig(paths, -500), { mode: 0o600 });
    const log = openSync(paths.log, "a", 0o600);
    let child: ChildProcess;
    try {
      child = spawn("containerd", ["--config", paths.config], { detached: true, stdio: ["ignore", log, log] });
    } finally {
      closeSync(log);
    }
    child.unref();
    let failure: Error | undefined;
    child.on("error", (error) => {
      failure = error;
    });
    child.on("exit", (code, killedBy) => {
      failure = new Error(`containerd ended: ${killedBy ?? `exit code ${code}`}`);
      this.#died(child.pid ?? 0, failure.message);
    });
    if (child.pid !== undefined) {
      this.#pid = child.pid;
      writeFileSync(paths.pidFile, `${child.pid}\n`, { mode: 0o600 });
    }
    try {
      await this.#ready(() => failure, signal);
    } catch (error) {
      // Not ours any more, so that its end is no reason to start another.
      this.#pid = 0;
      if (child.pid !== undefined) await this.#stop(child.pid);
      throw error;
    }
    this.#delay = restartDelay.first;
    this.#log.info("containerd started", { pid: child.pid });
  }

  async #ready(failure: () => Error | undefined, signal?: AbortSignal): Promise<void> {
    const { socket, log } = this.#paths;
    const deadline = this.#clock.steady() + readyTimeout;
    // No call before the socket is there: a refused connection makes the channel back off.
    while (!existsSync(socket) || !(await this.#answers(1_000))) {
      signal?.throwIfAborted();
      const reason = failure();
      if (errnoOf(reason) === "ENOENT") throw unavailable("containerd could not be started: is it installed?");
      if (reason) throw unavailable(`containerd could not be started: ${reason.message}${lastWords(log)}`);
      if (this.#clock.steady() > deadline) throw unavailable(`containerd did not answer in time${lastWords(log)}`);
      await sleep(this.#clock, 10, signal);
    }
    try {
      await this.#probe();
    } catch (error) {
      throw unavailable(`containerd started without all its parts: ${grpcMessageOf(error)}${lastWords(log)}`);
    }
  }

  async #answers(timeoutMs: number): Promise<boolean> {
    try {
      await this.#client.version.version({}, this.#client.call({ timeoutMs }));
      return true;
    } catch {
      return false;
    }
  }

  /** containerd runs on when a part of it fails to load: asks every part that is needed. */
  async #probe(): Promise<void> {
    const { content, images, leases, snapshots, tasks } = this.#client;
    const call = this.#client.call({ timeoutMs: 5_000 });
    const none = ["name==none"];
    const drain = async (stream: AsyncIterable<unknown>) => {
      for await (const _each of stream);
    };
    await Promise.all([
      tasks.list({}, call),
      images.list({ filters: none }, call),
      leases.list({ filters: ["id==none"] }, call),
      drain(content.list({ filters: ["digest==none"] }, call)),
      drain(snapshots.list({ snapshotter, filters: none }, call)),
    ]);
  }

  /** An adopted containerd is nobody's child any more: its end is noticed by looking. */
  #watchAdopted(pid: number): void {
    this.#cancelWatch = this.#clock.every(1_000, () => {
      if (isContainerd(pid, this.#paths)) return;
      this.#cancelWatch();
      this.#died(pid, "containerd ended");
    });
  }

  #died(pid: number, reason: string): void {
    if (this.#stopping || pid !== this.#pid || this.#restarting) return;
    this.#log.error(reason, { pid });
    this.#restarting = this.#restart().finally(() => {
      this.#restarting = undefined;
    });
  }

  async #restart(): Promise<void> {
    while (!this.#stopping) {
      await sleep(this.#clock, this.#delay);
      this.#delay = Math.min(this.#delay * 2, restartDelay.most);
      if (this.#stopping) return;
      try {
        await this.#spawn();
        this.onRestart?.();
        return;
      } catch (error) {
        this.#log.error("containerd could not be restarted", { error: messageOf(error) });
      }
    }
  }

  async #stop(pid: number): Promise<void> {
    const deadline = this.#clock.steady() + stopTimeout;
    kill(pid, "SIGTERM");
    while (isContainerd(pid, this.#paths)) {
      if (this.#clock.steady() > deadline) kill(pid, "SIGKILL");
      await sleep(this.#clock, 20);
    }
  }

  /** Stops containerd; containers go on under their shims. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    this.#cancelWatch();
    await this.#restarting;
    if (isContainerd(this.#pid, this.#paths)) await this.#stop(this.#pid);
    rmSync(this.#paths.pidFile, { force: true });
    rmSync(this.#paths.socket, { force: true });
    rmSync(`${this.#paths.socket}.ttrpc`, { force: true });
  }
}

function lastWords(log: string): string {
  const lines = (readFileIfAny(log) ?? "").trimEnd().split("\n").slice(-3).join("\n");
  return lines ? `\n${lines}` : "";
}

/** Pids are reused, and other hosts of a lab have a containerd too: it must be the one with our configuration. */
function isContainerd(pid: number, paths: OwnPaths): boolean {
  if (pid <= 0) return false;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(paths.config);
  } catch {
    return false;
  }
}

function runningPid(paths: OwnPaths): number | undefined {
  const pid = Number.parseInt(readFileIfAny(paths.pidFile) ?? "", 10);
  return Number.isInteger(pid) && isContainerd(pid, paths) ? pid : undefined;
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It is gone already.
  }
}
