/**
 * Containers and their first processes on containerd; `execs.ts` has what runs beside them.
 *
 * create: container record and snapshot (`stored.ts`).
 * start:  FIFOs and spec are made while nothing waits; then record update, task create, task start.
 * end:    the exit event settles `exit` at once; task and FIFOs are cleared away behind it (`reaped`).
 */
import { execFile } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { promisify } from "node:util";
import { Status } from "#proto/containerd/v1/types/task_pb.js";
import { KeyedMutex } from "../../base/async.ts";
import { conflict, messageOf, unavailable } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { cgroupTrees, oomKills } from "../cgroup.ts";
import type { Containerd } from "../containerd/client.ts";
import { ifFound, ignoreNotFound, isUnanswered, translateStart } from "../containerd/errors.ts";
import { type OciRuntime, runtimeNamed } from "../oci.ts";
import type { SnapshotMount } from "../rootfs.ts";
import { ociSpec } from "../spec/generate.ts";
import type { OciSpec } from "../spec/oci.ts";
import { withReadOnlyBelow } from "../spec/recursion.ts";
import type { ContainerSpec, ExecSpec, ExitStatus, ListedContainer, StartedProcess } from "../types.ts";
import { runcOptions } from "./encode.ts";
import { Execs } from "./execs.ts";
import { type Exits, exitStatus, isoOf } from "./exits.ts";
import { shims } from "./shims.ts";
import { SharedMemory } from "./shm.ts";
import { BEGIN_MS, DRAIN_MS, makeFifos, type Stdio, taskIo } from "./stdio.ts";
import { allowExisting, type StoredContainers } from "./stored.ts";

export interface ContainersOptions {
  readonly run: string;
  readonly cgroupParent: string;
  readonly ociRuntimes: readonly OciRuntime[];
  /** A task could not be deleted: it is to be looked for later. */
  readonly leftBehind: () => void;
}

/** A container with a task. */
interface Live extends StartedProcess {
  readonly io: Stdio;
  /** Settled when task and FIFOs are gone and the container may be started again. */
  readonly reaped: Promise<void>;
}

/** `DRAIN_MS` where the shim has let go already: what a pipe held went with its last holder. */
const endedGrace = 100;
const killGrace = 10_000;
/**
 * How long containerd may take, ms. The shim gets the same deadlines: one that is stuck lets go by them, and whoever asks
 * is not stuck with it.
 */
const answerMs = 10_000;
const deleteMs = 60_000;
/** containerd asks one shim after another, each that does not answer for 2 s. */
const listMs = 300_000;
/** A shim that does not answer is asked so many times, each of them containerd waits 2 s. */
const askTimes = 3;
/** So long the FIFOs are kept of a process of which nobody knows whether it is still being started, ms. */
const uncertainMs = 60_000;
const run = promisify(execFile);
const initBinaries = [
  "/usr/bin/docker-init",
  "/usr/bin/tini-static",
  "/usr/libexec/docker/docker-init",
  "/sbin/tini-static",
];

export class Containers {
  readonly #containerd: Containerd;
  readonly #exits: Exits;
  readonly #log: Logger;
  readonly #options: ContainersOptions;
  readonly #locks = new KeyedMutex();
  readonly #live = new Map<string, Live>();
  readonly #stored: StoredContainers;
  /** Their start failed and could not be undone. */
  readonly #uncertain = new Set<string>();
  /** Our ends of what is perhaps still being started. */
  readonly #kept = new Set<Stdio>();
  readonly #shm: SharedMemory;
  readonly #execs: Execs;

  constructor(containerd: Containerd, stored: StoredContainers, exits: Exits, options: ContainersOptions, log: Logger) {
    this.#containerd = containerd;
    this.#exits = exits;
    this.#options = options;
    this.#stored = stored;
    this.#shm = new SharedMemory(options.run);
    this.#log = log;
    this.#execs = new Execs({ containerd, exits, stored, log, dirOf: (id) => `${this.#fifoDir(id)}-exec` });
  }

  create(spec: ContainerSpec): Promise<void> {
    return this.#locks.run(spec.id, async () => {
      await this.#stored.create(spec);
    });
  }

  start(spec: ContainerSpec): Promise<StartedProcess> {
    return this.#locks.run(spec.id, async () => {
      const { id } = spec;
      const before = this.#live.get(id);
      if (before && !(await settled(before.exit))) throw conflict(`container ${id} is already running`);
      await before?.reaped;
      const mounts = await this.#stored.create(spec);
      return await this.#start(spec, mounts);
    });
  }

  async #start(spec: ContainerSpec, mounts: SnapshotMount[]): Promise<StartedProcess> {
    const { id } = spec;
    const { tasks } = this.#containerd;
    const call = this.#containerd.call({ timeoutMs: BEGIN_MS });
    const oci = runtimeNamed(this.#options.ociRuntimes, spec.ociRuntime ?? "");
    const whole = await withReadOnlyBelow(spec, oci);
    const record = await this.#recordFor(whole, this.#shm.open(spec));
    const fifos = makeFifos(this.#fifoDir(id), { stdin: spec.openStdin, tty: spec.tty });
    const exit = this.#exits.expect(id);
    const io = taskIo(this.#containerd, id, "", fifos);
    let created = false;
    try {
      await this.#stored.setSpec(id, record);
      const task = {
        containerId: id,
        rootfs: mounts.map(({ type, source, options }) => ({ type, source, options: [...options] })),
        ...fifos,
        terminal: spec.tty,
        options: runcOptions(`${this.#options.run}/${oci.name}`, oci.path),
      };
      const create = () => tasks.create(task, call);
      // A task that an earlier daemon did not clear away.
      if (!(await allowExisting(create()))) {
        await tasks.delete({ containerId: id }, call);
        await create();
      }
      created = true;
      this.#uncertain.delete(id);
      const { pid } = await tasks.start({ containerId: id }, call);
      this.#exits.started(id, "", pid);
      this.#stored.started(id, record);
      return this.#track(id, pid, io, exit, record.linux.cgroupsPath);
    } catch (error) {
      this.#exits.forget(id);
      await this.#undoStart(id, created);
      this.#shm.close(id);
      if (isUnanswered(error)) this.#letGoLater(io);
      else {
        io.destroy();
        rmSync(this.#fifoDir(id), { recursive: true, force: true });
      }
      throw translateStart(error);
    }
  }

  /** A shim may still be about to open the other ends. */
  #letGoLater(io: Stdio): void {
    this.#kept.add(io);
    setTimeout(() => {
      this.#kept.delete(io);
      io.destroy();
    }, uncertainMs).unref();
  }

  /** What is left when containerd goes away in the middle of a start is for the sweep. */
  async #undoStart(id: string, created: boolean): Promise<void> {
    try {
      if (created) await this.#delete(id);
    } catch {
      this.#uncertain.add(id);
      this.#options.leftBehind();
    }
  }

  async #recordFor(spec: ContainerSpec, shmPath: string | undefined): Promise<OciSpec> {
    const parent = spec.cgroupParent?.startsWith("/")
      ? spec.cgroupParent
      : [this.#options.cgroupParent, spec.cgroupParent].filter(Boolean).join("/");
    return ociSpec(spec, {
      user: await this.#stored.userOf(spec.id, spec.user, spec.groups ?? []),
      cgroupsPath: `${parent}/${spec.id}`,
      cgroup2: cgroupTrees().unified,
      initBinary: spec.init ? initBinaries.find((path) => existsSync(path)) : undefined,
      shmPath,
    });
  }

  #track(
    id: string,
    pid: number,
    io: Stdio,
    raw: Promise<{ exitCode: number; exitedAt: string }>,
    cgroup: string,
    grace = DRAIN_MS,
  ): StartedProcess {
    const exit = raw.then((end) => exitStatus(end, this.#exits.wasOomKilled(id) || oomKills(cgroup) > 0));
    const reaped = exit.then(async () => {
      await this.#deleteTask(id);
      await io.finish(grace);
      this.#shm.close(id);
      rmSync(this.#fifoDir(id), { recursive: true, force: true });
      if (this.#live.get(id) === live) this.#live.delete(id);
    });
    const live: Live = { pid, io, exit, reaped };
    this.#live.set(id, live);
    return live;
  }

  async #deleteTask(id: string): Promise<void> {
    try {
      await this.#delete(id);
    } catch (error) {
      this.#log.warn("task could not be deleted", { container: id, error: messageOf(error) });
      this.#options.leftBehind();
    }
  }

  #delete(id: string): Promise<void> {
    const call = this.#containerd.call({ timeoutMs: deleteMs });
    return ignoreNotFound(this.#containerd.tasks.delete({ containerId: id }, call));
  }

  /** What containerd knows of a container's task. Its status is UNKNOWN where the shim does not answer. */
  async #ask(id: string) {
    const call = this.#containerd.call({ timeoutMs: answerMs });
    return (await ifFound(this.#containerd.tasks.get({ containerId: id }, call)))?.process;
  }

  /**
   * The task of an earlier daemon. One that ended meanwhile is given with `exit` settled; what it said last, while
   * nobody read, is lost with the pipe, as in Docker.
   */
  adopt(id: string): Promise<StartedProcess | undefined> {
    return this.#locks.run(id, async () => {
      const live = this.#live.get(id);
      if (live) return live;
      const exit = this.#exits.expect(id);
      let process = await this.#ask(id);
      for (let times = 1; process?.status === Status.UNKNOWN; times++) {
        if (times === askTimes) {
          this.#exits.forget(id);
          throw unavailable(`the shim of container ${id} does not answer`);
        }
        process = await this.#ask(id);
      }
      const runs = process?.status === Status.RUNNING || process?.status === Status.PAUSED;
      if (!process || !(runs || process.status === Status.STOPPED) || !existsSync(process.stdout)) {
        this.#exits.forget(id);
        // Created and never started, or its FIFOs are gone with a reboot: nothing to go on with.
        if (process) await this.#end(id, process.status !== Status.STOPPED);
        return undefined;
      }
      const record = await this.#stored.specOf(id);
      this.#execs.adopt(id);
      const io = taskIo(this.#containerd, id, "", process);
      this.#exits.started(id, "", process.pid);
      if (!runs) {
        this.#exits.settle(id, "", { exitCode: process.exitStatus, exitedAt: isoOf(process.exitedAt) });
      }
      return this.#track(id, process.pid, io, exit, record.linux.cgroupsPath, runs ? DRAIN_MS : endedGrace);
    });
  }

  exec(id: string, spec: ExecSpec): Promise<StartedProcess> {
    return this.#execs.start(id, spec);
  }

  /** Removes task, container record and writable layer, whatever of them is there. */
  remove(id: string): Promise<void> {
    return this.#locks.run(id, async () => {
      const live = this.#live.get(id);
      if (live && !(await settled(live.exit))) await this.#end(id, true);
      if (live) await live.reaped;
      else if (!this.#stored.knows(id)) await this.#end(id, false);
      // Without its record nobody would find what still runs.
      const left = await this.#ask(id);
      if (left && left.status !== Status.STOPPED) {
        await this.#end(id, false);
        if (await this.#ask(id)) throw unavailable(`container ${id} could not be ended`);
      }
      await this.#stored.remove(id);
      this.#exits.drop(id);
      this.#forget(id);
    });
  }

  end(id: string): Promise<void> {
    return this.#locks.run(id, async () => {
      await this.#end(id, false);
      this.#forget(id);
    });
  }

  /** What lies on the host for a process that is gone. */
  #forget(id: string): void {
    this.#shm.close(id);
    this.#execs.forget(id);
    rmSync(this.#fifoDir(id), { recursive: true, force: true });
  }

  /** Kills and deletes whatever task there is. */
  async #end(id: string, running: boolean): Promise<void> {
    const { tasks } = this.#containerd;
    const call = this.#containerd.call({ timeoutMs: answerMs });
    const process = await this.#ask(id);
    if (!process && !running) return;
    if (process?.status === Status.STOPPED && !running) return await this.#deleteTask(id);
    const exit = this.#exits.expect(id);
    if (process) this.#exits.started(id, "", process.pid);
    // A paused process cannot be killed on cgroup v1; one that is not paused cannot be resumed.
    await tasks.resume({ containerId: id }, call).catch(() => {});
    await ignoreNotFound(tasks.kill({ containerId: id, signal: 9, all: true }, call)).catch(() => {});
    const timer = AbortSignal.timeout(killGrace);
    await Promise.race([exit, new Promise((resolve) => timer.addEventListener("abort", resolve, { once: true }))]);
    if (!this.#live.has(id)) await this.#deleteTask(id);
  }

  /** Ends shims of whose tasks containerd knows nothing (`shims.ts`), with whatever they hold. */
  async sweepShims(socket: string): Promise<void> {
    const { containers, namespace, tasks } = this.#containerd;
    const call = this.#containerd.call({ timeoutMs: answerMs });
    for (const { id, pid } of shims(socket, namespace)) {
      // Under the lock: a task that is being made has its shim before containerd shows it.
      await this.#locks.run(id, async () => {
        if (this.#live.has(id)) return;
        const task = await ifFound(tasks.get({ containerId: id }, call));
        if (task) {
          const over = task.process?.status === Status.STOPPED || this.#uncertain.delete(id);
          // No list shows a task without its container.
          if (over || !(await ifFound(containers.get({ id }, call)))) {
            this.#log.warn("ending a task that was not cleared away", { container: id, pid });
            await this.#end(id, false);
          }
          return;
        }
        if (!shims(socket, namespace).some((one) => one.id === id && one.pid === pid)) return;
        this.#log.warn("ending a shim that containerd has lost", { container: id, pid });
        process.kill(pid, "SIGKILL");
        for (const { name, path } of this.#options.ociRuntimes) {
          const root = `${this.#options.run}/${name}/${namespace}`;
          if (existsSync(`${root}/${id}`)) await run(path, ["--root", root, "delete", "--force", id]);
        }
      });
    }
  }

  async list(): Promise<ListedContainer[]> {
    const call = this.#containerd.call({ timeoutMs: listMs });
    const [{ containers }, { tasks }] = await Promise.all([
      this.#containerd.containers.list({}, call),
      this.#containerd.tasks.list({}, call),
    ]);
    const byId = new Map(tasks.map((task) => [task.id || task.containerId, task]));
    return containers.map(({ id }) => {
      const task = byId.get(id);
      const paused = task?.status === Status.PAUSED;
      const silent = task?.status === Status.UNKNOWN;
      const running = paused || task?.status === Status.RUNNING;
      return { id, running, paused, silent, task: task !== undefined, pid: running ? (task?.pid ?? 0) : 0 };
    });
  }

  /** The pid of the first process while it runs; else waits until the root file system is free to be mounted. */
  async runningPid(id: string): Promise<number | undefined> {
    const live = this.#live.get(id);
    if (!live) return undefined;
    if (!(await settled(live.exit))) return live.pid;
    await live.reaped;
    return undefined;
  }

  #fifoDir(id: string): string {
    return `${this.#options.run}/io/${id}`;
  }

  /** Lets go of our ends; the processes go on. */
  dispose(): void {
    this.#execs[Symbol.dispose]();
    for (const io of [...this.#kept, ...[...this.#live.values()].map((live) => live.io)]) io.destroy();
  }
}

/** Whether a promise is fulfilled already. */
async function settled(promise: Promise<ExitStatus>): Promise<boolean> {
  const open = Symbol("open");
  return (await Promise.race([promise, Promise.resolve(open)])) !== open;
}
