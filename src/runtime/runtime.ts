/** The runtime put together: one containerd, its images and its containers. */
import { execFile } from "node:child_process";
import { mkdirSync, rmdirSync } from "node:fs";
import { promisify } from "node:util";
import { KeyedMutex } from "../base/async.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { removeCgroups } from "./cgroup.ts";
import { changesOf } from "./changes.ts";
import { type Containerd, connectContainerd } from "./containerd/client.ts";
import { ownPaths } from "./containerd/config.ts";
import { translate } from "./containerd/errors.ts";
import { Supervisor } from "./containerd/supervisor.ts";
import { roomAt } from "./images/room.ts";
import { ContainerdImages } from "./images/store.ts";
import { viewOf } from "./images/view.ts";
import { layerSize } from "./layer-size.ts";
import { mount, unmount } from "./libc.ts";
import { findRuntimes, type OciRuntime } from "./oci.ts";
import { layersOf } from "./rootfs.ts";
import { ociResources } from "./spec/resources.ts";
import { readStats } from "./stats.ts";
import { Containers } from "./tasks/containers.ts";
import { resourcesAny } from "./tasks/encode.ts";
import { Exits } from "./tasks/exits.ts";
import { holdFifos } from "./tasks/leftovers.ts";
import { StoredContainers } from "./tasks/stored.ts";
import type {
  ContainerSpec,
  ExecSpec,
  FileChange,
  ImageStore,
  ListedContainer,
  ProcessStats,
  Resources,
  Runtime,
  RuntimeOptions,
  RuntimeVersion,
  StartedProcess,
} from "./types.ts";

const run = promisify(execFile);

/** When shims that an earlier daemon's death left are looked for: containerd may still be busy with its last calls. */
const sweepMs = [3_000, 15_000];
/** So long the FIFOs that an earlier daemon left are held open for shims that wait for a reader. */
const heldMs = 60_000;
/** How long what a user asks of a running task may take. */
const askMs = 30_000;

/**
 * Starts, or finds, containerd and gives the runtime on it. Throws `unavailable` when containerd cannot be had.
 * Disposing of it stops an own containerd and lets the containers run.
 */
export async function startRuntime(options: RuntimeOptions, log: Logger): Promise<Runtime> {
  mkdirSync(options.run, { recursive: true, mode: 0o711 });
  mkdirSync(options.root, { recursive: true, mode: 0o711 });
  const paths = ownPaths(options);
  // Before containerd may be started, which asks its shims and ends the containers of those that do not answer.
  const held = holdFifos(`${options.run}/io`);
  setTimeout(() => held[Symbol.dispose](), heldMs).unref();
  const containerd = connectContainerd(
    options.address ?? paths.socket,
    options.namespace ?? "skein",
    roomAt(options.root),
  );
  const supervisor = options.address ? undefined : new Supervisor(paths, containerd, log);
  try {
    if (supervisor) await supervisor.start(options.signal);
    else await containerd.version.version({}, containerd.call({ timeoutMs: 10_000 }));
  } catch (error) {
    containerd.close();
    throw translate(error, options.address ? `containerd at ${options.address}` : undefined);
  }
  return new ContainerdRuntime(options, containerd, supervisor, log);
}

class ContainerdRuntime implements Runtime {
  readonly images: ImageStore;
  readonly ociRuntimes: readonly OciRuntime[];
  readonly #options: RuntimeOptions;
  readonly #containerd: Containerd;
  readonly #supervisor: Supervisor | undefined;
  readonly #exits: Exits;
  readonly #stored: StoredContainers;
  readonly #containers: Containers;
  readonly #rootfs = new KeyedMutex();
  readonly #cgroupParent: string;
  readonly #log: Logger;
  #sweeps: NodeJS.Timeout[] = [];
  #version: Promise<RuntimeVersion> | undefined;

  constructor(options: RuntimeOptions, containerd: Containerd, supervisor: Supervisor | undefined, log: Logger) {
    this.#options = options;
    this.#containerd = containerd;
    this.#supervisor = supervisor;
    this.#cgroupParent = options.cgroupParent ?? "/skein";
    const images = new ContainerdImages(containerd, log, options.registries);
    this.images = images;
    this.ociRuntimes = findRuntimes(options.defaultRuntime);
    this.#exits = new Exits(containerd, log);
    this.#stored = new StoredContainers(containerd, (id) => images.topOf(id));
    this.#containers = new Containers(
      containerd,
      this.#stored,
      this.#exits,
      {
        run: options.run,
        cgroupParent: this.#cgroupParent,
        ociRuntimes: this.ociRuntimes,
        leftBehind: () => this.sweep(),
      },
      log,
    );
    this.#log = log;
    if (supervisor) supervisor.onRestart = () => this.sweep();
  }

  /** Also whenever containerd may have gone away in the middle of a task's beginning or end. */
  sweep(): void {
    const sweep = () =>
      this.#containers
        .sweepShims(this.#options.address ?? ownPaths(this.#options).socket)
        .catch((error) => this.#log.warn("lost shims were not ended", { error: messageOf(error) }));
    for (const timer of this.#sweeps) clearTimeout(timer);
    this.#sweeps = sweepMs.map((ms) => setTimeout(sweep, ms).unref());
  }

  version(): Promise<RuntimeVersion> {
    this.#version ??= this.#readVersion().catch((error: unknown) => {
      this.#version = undefined;
      throw translate(error);
    });
    return this.#version;
  }

  async #readVersion(): Promise<RuntimeVersion> {
    const [oci] = this.ociRuntimes;
    const [{ version, revision }, told] = await Promise.all([
      this.#containerd.version.version({}, this.#containerd.call()),
      oci
        ? run(oci.path, ["--version"]).then(
            ({ stdout }) => stdout,
            (error: unknown) => `${oci.name}: ${messageOf(error)}`,
          )
        : "",
    ]);
    return {
      containerd: version,
      containerdCommit: revision,
      runtime: oci?.name ?? "",
      runtimeVersion: /version (\S+)/.exec(told)?.[1] ?? "",
      runtimeCommit: /commit: (\S+)/.exec(told)?.[1] ?? "",
    };
  }

  create(spec: ContainerSpec): Promise<void> {
    return this.#containers.create(spec);
  }

  start(spec: ContainerSpec): Promise<StartedProcess> {
    return this.#containers.start(spec);
  }

  async adopt(id: string): Promise<StartedProcess | undefined> {
    try {
      return await this.#containers.adopt(id);
    } catch (error) {
      throw translate(error);
    }
  }

  exec(id: string, spec: ExecSpec): Promise<StartedProcess> {
    return this.#containers.exec(id, spec);
  }

  remove(id: string): Promise<void> {
    return this.#containers.remove(id);
  }

  async list(): Promise<ListedContainer[]> {
    try {
      return await this.#containers.list();
    } catch (error) {
      throw translate(error);
    }
  }

  end(id: string): Promise<void> {
    return this.#containers.end(id);
  }

  async kill(id: string, signal: number, options: { all?: boolean; execId?: string } = {}): Promise<void> {
    const { all = false, execId = "" } = options;
    await this.#call((call) => this.#containerd.tasks.kill({ containerId: id, execId, signal, all }, call));
  }

  async resize(id: string, width: number, height: number, execId = ""): Promise<void> {
    await this.#call((call) => this.#containerd.tasks.resizePty({ containerId: id, execId, width, height }, call));
  }

  async pause(id: string): Promise<void> {
    await this.#call((call) => this.#containerd.tasks.pause({ containerId: id }, call));
  }

  async unpause(id: string): Promise<void> {
    await this.#call((call) => this.#containerd.tasks.resume({ containerId: id }, call));
  }

  async update(id: string, resources: Resources): Promise<void> {
    const wanted = resourcesAny(ociResources(resources));
    await this.#call((call) => this.#containerd.tasks.update({ containerId: id, resources: wanted }, call));
  }

  async stats(id: string): Promise<ProcessStats> {
    return readStats((await this.#stored.specOf(id)).linux.cgroupsPath);
  }

  async pids(id: string): Promise<number[]> {
    const { processes } = await this.#call((call) => this.#containerd.tasks.listPids({ containerId: id }, call));
    return processes.map(({ pid }) => pid);
  }

  async #call<T>(job: (call: ReturnType<Containerd["call"]>) => Promise<T>): Promise<T> {
    try {
      return await job(this.#containerd.call({ timeoutMs: askMs }));
    } catch (error) {
      throw translate(error);
    }
  }

  /** A running container is seen through its own process, mounts and all; another one's layers are mounted. */
  async withRootfs<T>(id: string, fn: (path: string) => Promise<T>): Promise<T> {
    const pid = await this.#containers.runningPid(id);
    if (pid !== undefined) return await fn(`/proc/${pid}/root`);
    return await this.#rootfs.run(id, async () => {
      const [layer] = await this.#stored.mountsOf(id);
      if (!layer) throw new Error(`container ${id} has no root file system`);
      const path = `${this.#options.run}/rootfs/${id}`;
      mkdirSync(path, { recursive: true, mode: 0o700 });
      mount(layer.type, layer.source, path, layer.options);
      try {
        return await fn(path);
      } finally {
        unmount(path);
        rmdirSync(path);
      }
    });
  }

  async mountImage(id: string, imageId: string, place: string): Promise<void> {
    const [layer] = await viewOf(this.#containerd, await this.#stored.mountedTop(id, imageId));
    if (!layer) throw new Error(`image ${imageId} has no files`);
    mount(layer.type, layer.source, place, [...layer.options, "ro"]);
  }

  async userOf(id: string, user: string): Promise<{ uid: number; gid: number }> {
    const { uid, gid } = await this.#stored.userOf(id, user);
    return { uid, gid };
  }

  async changes(id: string): Promise<FileChange[]> {
    return await changesOf(layersOf(await this.#stored.mountsOf(id)));
  }

  async writableSize(id: string): Promise<number> {
    const [upper] = layersOf(await this.#stored.mountsOf(id));
    return upper === undefined ? 0 : layerSize(upper);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const timer of this.#sweeps) clearTimeout(timer);
    this.#exits.dispose();
    this.#containers.dispose();
    await this.#supervisor?.[Symbol.asyncDispose]();
    this.#containerd.close();
    // Only what is empty goes: containers that run on keep theirs.
    removeCgroups(this.#cgroupParent);
  }
}
