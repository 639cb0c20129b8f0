/** `docker info`, `version` and `system df`. */
import { existsSync, readdirSync, readFileSync, statfsSync } from "node:fs";
import { arch, availableParallelism, release, totalmem } from "node:os";
import { layerSize } from "../../runtime/layer-size.ts";
import type { RegistryRules } from "../../runtime/registry/rules.ts";
import type { Image } from "../../runtime/types.ts";
import { listContainers } from "../containers/list.ts";
import { volumeUsers } from "../containers/remove.ts";
import type { EngineContext } from "../context.ts";
import { rfc3339Nano } from "../time.ts";
import type { Filters, Images, Json, System } from "../types.ts";
import { gitCommit, VERSION } from "../version.ts";
import { volumeDocument } from "../volumes/volumes.ts";

/** The API as Docker counts it; the API room speaks the same figures. */
export interface ApiRange {
  readonly max: string;
  readonly min: string;
}

export interface SystemOptions {
  readonly api: ApiRange;
  readonly labels: readonly string[];
  readonly id: string;
  readonly registries: RegistryRules;
  readonly debug: boolean;
  /** The `Swarm` section, made by whoever knows the swarm. */
  readonly swarmInfo: () => object;
}

const goArch = (): string => ({ x64: "amd64", arm64: "arm64" })[arch() as string] ?? arch();
const unameArch = (): string => ({ x64: "x86_64", arm64: "aarch64" })[arch() as string] ?? arch();

function osName(): string {
  for (const path of ["/etc/os-release", "/usr/lib/os-release"]) {
    if (!existsSync(path)) continue;
    const name = /^PRETTY_NAME="?([^"\n]*)"?/m.exec(readFileSync(path, "utf8"))?.[1];
    if (name) return name;
  }
  return "Linux";
}

function osVersion(): string {
  if (!existsSync("/etc/os-release")) return "";
  return /^VERSION_ID="?([^"\n]*)"?/m.exec(readFileSync("/etc/os-release", "utf8"))?.[1] ?? "";
}

/** "2" only where the unified hierarchy carries the controllers. */
export const cgroupVersion = (): string => (existsSync("/sys/fs/cgroup/cgroup.controllers") ? "2" : "1");
const none: Filters = new Map();
const isCidr = (text: string): boolean => text.includes("/");

export function createSystem(ctx: EngineContext, options: SystemOptions, images: Images): System {
  const count = (status: string) => ctx.registry.all().filter((c) => c.record.state.status === status).length;
  return {
    async version() {
      const runtime = await ctx.runtime.version();
      const common = {
        ApiVersion: options.api.max,
        MinAPIVersion: options.api.min,
        GitCommit: gitCommit(),
        Os: "linux",
        Arch: goArch(),
        KernelVersion: release(),
      };
      return {
        Platform: { Name: "Skein" },
        Version: VERSION,
        ...common,
        GoVersion: `node ${process.versions.node}`,
        BuildTime: "",
        Components: [
          {
            Name: "Engine",
            Version: VERSION,
            Details: { ...common, GoVersion: `node ${process.versions.node}`, Experimental: "false", BuildTime: "" },
          },
          { Name: "containerd", Version: runtime.containerd, Details: { GitCommit: runtime.containerdCommit } },
          { Name: runtime.runtime, Version: runtime.runtimeVersion, Details: { GitCommit: runtime.runtimeCommit } },
        ],
      };
    },

    async info() {
      const [runtime, stored] = await Promise.all([ctx.runtime.version(), ctx.runtime.images.list()]);
      const running = count("running");
      const paused = count("paused");
      const total = ctx.registry.all().length;
      return {
        ID: options.id,
        Containers: total,
        ContainersRunning: running,
        ContainersPaused: paused,
        ContainersStopped: total - running - paused,
        Images: stored.length,
        Driver: "overlay2",
        DriverStatus: [
          ["Backing Filesystem", fileSystemOf(ctx.paths.root)],
          ["Snapshotter", "containerd overlayfs"],
        ],
        Plugins: {
          Volume: ["local"],
          Network: ctx.network.drivers(),
          Authorization: null,
          Log: ["json-file", "local", "none"],
        },
        MemoryLimit: true,
        SwapLimit: true,
        CpuCfsPeriod: true,
        CpuCfsQuota: true,
        CPUShares: true,
        CPUSet: true,
        PidsLimit: true,
        IPv4Forwarding: true,
        Debug: options.debug,
        NFd: readdirSync("/proc/self/fd").length,
        OomKillDisable: cgroupVersion() === "1",
        NGoroutines: 0,
        SystemTime: rfc3339Nano(ctx.clock.now()),
        LoggingDriver: "json-file",
        CgroupDriver: "cgroupfs",
        CgroupVersion: cgroupVersion(),
        NEventsListener: 0,
        KernelVersion: release(),
        OperatingSystem: osName(),
        OSVersion: osVersion(),
        OSType: "linux",
        Architecture: unameArch(),
        IndexServerAddress: "https://index.docker.io/v1/",
        RegistryConfig: {
          AllowNondistributableArtifactsCIDRs: [],
          AllowNondistributableArtifactsHostnames: [],
          InsecureRegistryCIDRs: [...options.registries.insecure.filter(isCidr), "127.0.0.0/8", "::1/128"],
          IndexConfigs: {
            "docker.io": { Name: "docker.io", Mirrors: options.registries.mirrors, Secure: true, Official: true },
            ...Object.fromEntries(
              options.registries.insecure
                .filter((entry) => !isCidr(entry))
                .map((Name) => [Name, { Name, Mirrors: [], Secure: false, Official: false }]),
            ),
          },
          Mirrors: options.registries.mirrors,
        },
        NCPU: availableParallelism(),
        MemTotal: totalmem(),
        GenericResources: null,
        DockerRootDir: ctx.paths.root,
        HttpProxy: "",
        HttpsProxy: "",
        NoProxy: "",
        Name: ctx.hostname,
        Labels: options.labels,
        ExperimentalBuild: false,
        ServerVersion: VERSION,
        Runtimes: Object.fromEntries(ctx.runtime.ociRuntimes.map(({ name, path }) => [name, { path }])),
        DefaultRuntime: runtime.runtime,
        Swarm: options.swarmInfo(),
        LiveRestoreEnabled: true,
        Isolation: "",
        InitBinary: "docker-init",
        ContainerdCommit: { ID: runtime.containerdCommit, Expected: runtime.containerdCommit },
        RuncCommit: { ID: runtime.runtimeCommit, Expected: runtime.runtimeCommit },
        InitCommit: { ID: "", Expected: "" },
        SecurityOptions: ["name=seccomp,profile=builtin"],
        Warnings: warnings(ctx),
      };
    },

    async diskUsage(types) {
      const wants = (type: string) => types.length === 0 || types.includes(type);
      const [layers, stored] = wants("image")
        ? await Promise.all([ctx.runtime.images.list(), images.list({ all: true, digests: false, filters: none })])
        : [[], []];
      const containers = wants("container") ? await listContainers(ctx, { all: true, size: true, filters: none }) : [];
      const volumes = wants("volume")
        ? await Promise.all(
            ctx.volumes.all().map(async (volume) => ({
              ...volumeDocument(volume),
              UsageData: { Size: await layerSize(volume.path), RefCount: volumeUsers(ctx, volume.name).length },
            })),
          )
        : [];
      return {
        ...sharing(ctx, layers, stored),
        Containers: containers,
        Volumes: volumes,
        BuildCache: wants("build-cache") ? [] : null,
      };
    },
  };
}

/** Docker's names for the file systems that it is seen on. */
function fileSystemOf(dir: string): string {
  const names: Readonly<Record<number, string>> = {
    61267: "extfs",
    1481003842: "xfs",
    2435016766: "btrfs",
    16914836: "tmpfs",
    801189825: "zfs",
    2035054128: "overlayfs",
  };
  return names[statfsSync(dir).type] ?? "<unknown>";
}

/** What images take together, and of each what others have too: a layer is one only on the same layers. */
function sharing(ctx: EngineContext, images: readonly Image[], listed: readonly Json[]): Json {
  const layers = new Map<string, { size: number; users: number }>();
  const chainOf = ({ layers: diffIds }: Image) => diffIds.map((_, index) => diffIds.slice(0, index + 1).join());
  for (const image of images) {
    for (const [index, chain] of chainOf(image).entries()) {
      const { users } = layers.get(chain) ?? { users: 0 };
      layers.set(chain, { size: image.layerSizes?.[index] ?? 0, users: users + 1 });
    }
  }
  const sum = (of: Iterable<{ size: number } | undefined>) =>
    [...of].reduce((total, one) => total + (one?.size ?? 0), 0);
  const byId = new Map(images.map((image) => [image.id, image]));
  const sharedBy = (image: Image | undefined) =>
    sum((image ? chainOf(image) : []).map((chain) => layers.get(chain)).filter((layer) => (layer?.users ?? 0) > 1));
  const containersOf = (id: unknown) => ctx.registry.all().filter(({ record }) => record.imageId === id).length;
  return {
    LayersSize: sum(layers.values()),
    Images: listed.map((image) => ({
      ...image,
      Containers: containersOf(image.Id),
      SharedSize: sharedBy(byId.get(String(image.Id))),
    })),
  };
}

/** What `docker info` shows as warnings. */
function warnings(ctx: EngineContext): string[] | null {
  const narrow = ctx.network.paths().filter(({ mtu, expected }) => mtu !== undefined && mtu < expected);
  const texts = narrow.map(
    ({ host, mtu, expected }) =>
      `WARNING: packets of more than ${mtu} bytes do not reach ${host} (${expected} expected): overlay networks use smaller ones`,
  );
  for (const { owner, count, max, refused } of ctx.network.fullConnectionTables()) {
    const lost = refused > 0 ? `${refused} packets of new connections were lost` : "new connections may be lost";
    texts.push(
      `WARNING: the connection table of ${owner} is full (${count} of ${max}): ${lost}; see net.netfilter.nf_conntrack_max`,
    );
  }
  return texts.length > 0 ? texts : null;
}
