/** The document of `docker inspect`. */
import { join } from "node:path";
import type { Endpoint } from "../../network/types.ts";
import type { EngineContext } from "../context.ts";
import { cgroupVersion } from "../system/system.ts";
import type { Json } from "../types.ts";
import type { Container } from "./container.ts";
import { parseLink } from "./links.ts";
import { dnsNames } from "./networking.ts";
import { portBindings, portMap } from "./ports.ts";
import type { ContainerRecord, MountPoint, NetworkUse } from "./record.ts";

const MASKED = [
  "/proc/asound",
  "/proc/acpi",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/sys/firmware",
  "/sys/devices/virtual/powercap",
];
const READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

function stateDocument(container: Container): Json {
  const { state } = container.record;
  return {
    Status: state.status,
    Running: container.up || state.status === "restarting",
    Paused: state.status === "paused",
    Restarting: state.status === "restarting",
    OOMKilled: state.oomKilled,
    Dead: state.status === "dead",
    Pid: state.pid,
    ExitCode: state.exitCode,
    Error: state.error,
    StartedAt: state.startedAt,
    FinishedAt: state.finishedAt,
    ...(container.health && { Health: container.health.document() }),
  };
}

export function mountDocument(mount: MountPoint): Json {
  return {
    Type: mount.type,
    ...(mount.name && { Name: mount.name }),
    Source: mount.source,
    Destination: mount.target,
    ...(mount.type === "volume" && { Driver: "local" }),
    Mode: mount.mode,
    RW: mount.rw,
    Propagation: mount.propagation,
  };
}

const split = (cidr: string): { address: string; prefix: number } => {
  const [address = "", prefix = "0"] = cidr.split("/");
  return { address, prefix: Number(prefix) };
};

export function endpointDocument(ctx: EngineContext, container: Container, key: string, use: NetworkUse): Json {
  const { settings } = use;
  const network = ctx.networks.find(use.networkId) ?? ctx.networks.find(key);
  const live: Partial<Endpoint> = use.endpoint ?? {};
  const v4 = split(live.ipv4 ?? "");
  const v6 = split(live.ipv6 ?? "");
  const ipam = settings.IPAMConfig;
  const names = network ? dnsNames(container, network, use) : [];
  return {
    IPAMConfig: ipam
      ? {
          ...(ipam.IPv4Address && { IPv4Address: ipam.IPv4Address }),
          ...(ipam.IPv6Address && { IPv6Address: ipam.IPv6Address }),
        }
      : null,
    Links: orNull(settings.Links),
    Aliases: settings.Aliases.length ? settings.Aliases : null,
    MacAddress: live.mac ?? "",
    DriverOpts: Object.keys(settings.DriverOpts).length ? settings.DriverOpts : null,
    GwPriority: settings.GwPriority,
    NetworkID: network?.id ?? use.networkId,
    EndpointID: live.id ?? "",
    Gateway: live.gateway ?? "",
    IPAddress: v4.address,
    IPPrefixLen: v4.prefix,
    IPv6Gateway: live.gateway6 ?? "",
    GlobalIPv6Address: v6.address,
    GlobalIPv6PrefixLen: v6.prefix,
    DNSNames: names.length ? [container.name, ...names] : null,
  };
}

function networkSettings(ctx: EngineContext, container: Container): Json {
  const { record } = container;
  const networks = Object.entries(record.networks);
  const main = record.networks.bridge?.endpoint;
  const sandbox = container.up ? ctx.network.sandbox(container.id) : undefined;
  const exposed = new Set([
    ...Object.keys(record.config.ExposedPorts),
    ...(container.up
      ? portBindings(record.config, record.hostConfig).map((b) => `${b.containerPort}/${b.protocol}`)
      : []),
  ]);
  const v4 = split(main?.ipv4 ?? "");
  const v6 = split(main?.ipv6 ?? "");
  return {
    Bridge: "",
    SandboxID: sandbox?.id ?? "",
    SandboxKey: sandbox?.path ?? "",
    Ports: container.up ? portMap([...exposed], ctx.network.publishedPorts(container.id)) : {},
    HairpinMode: false,
    LinkLocalIPv6Address: "",
    LinkLocalIPv6PrefixLen: 0,
    SecondaryIPAddresses: null,
    SecondaryIPv6Addresses: null,
    EndpointID: main?.id ?? "",
    Gateway: main?.gateway ?? "",
    GlobalIPv6Address: v6.address,
    GlobalIPv6PrefixLen: v6.prefix,
    IPAddress: v4.address,
    IPPrefixLen: v4.prefix,
    IPv6Gateway: main?.gateway6 ?? "",
    MacAddress: main?.mac ?? "",
    Networks: Object.fromEntries(networks.map(([key, use]) => [key, endpointDocument(ctx, container, key, use)])),
  };
}

export async function inspectContainer(ctx: EngineContext, container: Container, size: boolean): Promise<Json> {
  const { record } = container;
  const dir = ctx.registry.dir(record.id);
  const layers = size ? await sizes(ctx, record) : {};
  return {
    Id: record.id,
    Created: record.created,
    Path: record.path,
    Args: record.args,
    State: stateDocument(container),
    Image: record.imageId,
    ResolvConfPath: join(dir, "resolv.conf"),
    HostnamePath: join(dir, "hostname"),
    HostsPath: join(dir, "hosts"),
    LogPath: container.log.kept ? container.log.path : "",
    Name: `/${record.name}`,
    RestartCount: record.restartCount,
    Driver: "overlay2",
    Platform: "linux",
    MountLabel: "",
    ProcessLabel: "",
    AppArmorProfile: "",
    ExecIDs: execIds(container),
    HostConfig: hostConfigDocument(record),
    GraphDriver: { Data: null, Name: "overlay2" },
    ...layers,
    Mounts: record.mounts.filter((mount) => mount.type !== "tmpfs" || mount.fromMounts).map(mountDocument),
    Config: configDocument(record),
    NetworkSettings: networkSettings(ctx, container),
  };
}

function execIds(container: Container): string[] | null {
  const ids = [...container.execs.values()].filter((exec) => exec.state === "running").map((exec) => exec.id);
  return ids.length ? ids : null;
}

export async function sizes(
  ctx: EngineContext,
  record: ContainerRecord,
): Promise<{ SizeRw: number; SizeRootFs: number }> {
  const [own, image] = await Promise.all([
    ctx.runtime.writableSize(record.id).catch(() => 0),
    ctx.runtime.images.find(record.imageId),
  ]);
  return { SizeRw: own, SizeRootFs: own + (image?.size ?? 0) };
}

function configDocument({ config }: ContainerRecord): Json {
  const {
    ArgsEscaped,
    MacAddress,
    NetworkDisabled,
    Healthcheck,
    Shell,
    StopTimeout,
    StopSignal,
    ExposedPorts,
    ...rest
  } = config;
  return {
    ...rest,
    Cmd: config.Cmd ?? null,
    Entrypoint: config.Entrypoint ?? null,
    Volumes: Object.keys(config.Volumes).length ? config.Volumes : null,
    OnBuild: null,
    ...(Object.keys(ExposedPorts).length && { ExposedPorts }),
    ...(Healthcheck && {
      Healthcheck: withoutEmpty(Healthcheck, ["Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"]),
    }),
    ...(Shell && { Shell }),
    ...(StopTimeout !== undefined && { StopTimeout }),
    ...(StopSignal && { StopSignal }),
    ...(MacAddress && { MacAddress }),
    ...(ArgsEscaped && { ArgsEscaped }),
    ...(NetworkDisabled && { NetworkDisabled }),
  };
}

/** Without these fields where they are zero: what Docker's own encoding leaves out. */
export function withoutEmpty(document: Json, fields: readonly string[]): Json {
  return Object.fromEntries(Object.entries(document).filter(([name, value]) => !fields.includes(name) || value));
}

const orNull = <T>(list: readonly T[]): readonly T[] | null => (list.length ? list : null);

function hostConfigDocument(record: ContainerRecord): Json {
  const { hostConfig: host } = record;
  const { Mounts, Tmpfs, StorageOpt, Sysctls, Annotations, Init, ...rest } = host;
  return {
    ...rest,
    Binds: orNull(host.Binds),
    VolumesFrom: orNull(host.VolumesFrom),
    CapAdd: orNull(host.CapAdd),
    CapDrop: orNull(host.CapDrop),
    ExtraHosts: orNull(host.ExtraHosts),
    GroupAdd: orNull(host.GroupAdd),
    Links: orNull(host.Links.map(parseLink).map(({ ref, alias }) => `/${ref}:/${record.name}/${alias}`)),
    SecurityOpt: orNull(host.SecurityOpt),
    ConsoleSize: host.ConsoleSize ?? [0, 0],
    BlkioDeviceReadBps: orNull(host.BlkioDeviceReadBps),
    BlkioDeviceWriteBps: orNull(host.BlkioDeviceWriteBps),
    BlkioDeviceReadIOps: orNull(host.BlkioDeviceReadIOps),
    BlkioDeviceWriteIOps: orNull(host.BlkioDeviceWriteIOps),
    DeviceCgroupRules: orNull(host.DeviceCgroupRules),
    DeviceRequests: orNull(host.DeviceRequests),
    MemorySwappiness: host.MemorySwappiness === -1 ? null : (host.MemorySwappiness ?? null),
    OomKillDisable: host.OomKillDisable ?? (cgroupVersion() === "1" ? false : null),
    PidsLimit: host.PidsLimit || null,
    Ulimits: orNull(host.Ulimits),
    MaskedPaths: host.Privileged ? null : (host.MaskedPaths ?? MASKED),
    ReadonlyPaths: host.Privileged ? null : (host.ReadonlyPaths ?? READONLY),
    ...(Mounts.length && {
      Mounts: Mounts.map((mount) => withoutEmpty(mount, ["Source", "ReadOnly", "Consistency"])),
    }),
    ...(Object.keys(Tmpfs).length && { Tmpfs }),
    ...(Object.keys(StorageOpt).length && { StorageOpt }),
    ...(Object.keys(Sysctls).length && { Sysctls }),
    ...(Object.keys(Annotations).length && { Annotations }),
    ...(Init !== undefined && { Init }),
  };
}
