/** From a container's record to what the runtime runs. Pure. */
import type { ContainerSpec, Mount, Resources } from "../../runtime/types.ts";
import { processEnv } from "./merge.ts";
import type { ContainerRecord, MountPoint } from "./record.ts";
import { securityOptions } from "./verify.ts";

/** What was decided for this run. */
export interface RunPlace {
  /** Undefined: the host's network namespace. */
  readonly netnsPath: string | undefined;
  readonly etc: ContainerSpec["etc"];
  readonly extraMounts: readonly Mount[];
  /** The process behind "container:<id>" of --pid and --ipc. */
  pidOf(ref: string): number;
  /** The container behind "container:<id>" of --ipc. */
  ipcOf(ref: string): { containerPid: number; containerId: string };
  /** Where a part of a volume, or an image, can be mounted from. */
  partOf(mount: MountPoint): string;
  /** Variables that links add. */
  readonly linkEnv?: readonly string[];
}

export function resourcesOf(host: ContainerRecord["hostConfig"]): Resources {
  return {
    ...(host.Memory > 0 && { memory: host.Memory }),
    ...(host.MemorySwap !== 0 && { memorySwap: host.MemorySwap }),
    // Docker's default: as much swap as memory.
    ...(host.Memory > 0 && host.MemorySwap === 0 && { memorySwap: host.Memory * 2 }),
    ...(host.MemoryReservation > 0 && { memoryReservation: host.MemoryReservation }),
    ...(host.NanoCpus > 0 && { nanoCpus: host.NanoCpus }),
    ...(host.CpuShares > 0 && { cpuShares: host.CpuShares }),
    ...(host.CpuQuota !== 0 && { cpuQuota: host.CpuQuota }),
    ...(host.CpuPeriod > 0 && { cpuPeriod: host.CpuPeriod }),
    ...(host.CpusetCpus && { cpusetCpus: host.CpusetCpus }),
    ...(host.CpusetMems && { cpusetMems: host.CpusetMems }),
    ...(host.PidsLimit !== undefined && host.PidsLimit !== 0 && { pidsLimit: host.PidsLimit }),
    ...(host.BlkioWeight > 0 && { blkioWeight: host.BlkioWeight }),
    ...(host.BlkioWeightDevice.length > 0 && {
      blkioWeightDevices: host.BlkioWeightDevice.map(({ Path, Weight }) => ({ path: Path, value: Weight })),
    }),
    throttle: {
      readBps: host.BlkioDeviceReadBps.map(rateOf),
      writeBps: host.BlkioDeviceWriteBps.map(rateOf),
      readIops: host.BlkioDeviceReadIOps.map(rateOf),
      writeIops: host.BlkioDeviceWriteIOps.map(rateOf),
    },
    ...(host.OomKillDisable && { oomKillDisable: true }),
    ...(host.MemorySwappiness !== undefined &&
      host.MemorySwappiness !== -1 && { memorySwappiness: host.MemorySwappiness }),
    ...(host.CpuRealtimePeriod > 0 && { cpuRealtimePeriod: host.CpuRealtimePeriod }),
    ...(host.CpuRealtimeRuntime > 0 && { cpuRealtimeRuntime: host.CpuRealtimeRuntime }),
  };
}

const rateOf = ({ Path, Rate }: { Path: string; Rate: number }) => ({ path: Path, value: Rate });

function mountOf(mount: MountPoint, place: RunPlace): Mount {
  const whole = mount.subpath === "" && mount.type !== "image";
  return {
    type: mount.type === "image" ? "bind" : mount.type,
    source: whole ? mount.source : place.partOf(mount),
    target: mount.target,
    readonly: !mount.rw,
    ...(!mount.rw && mount.below !== "writable" && { readonlyBelow: mount.below === "readonly" ? "always" : "tried" }),
    options: [...mount.options, ...(mount.propagation && mount.propagation !== "rprivate" ? [mount.propagation] : [])],
  };
}

/** The container that a mode like "container:<id>" names. */
export const joined = (mode: string): string | undefined =>
  mode.startsWith("container:") ? mode.slice("container:".length) : undefined;

function pidMode(mode: string, place: RunPlace): ContainerSpec["pidMode"] {
  const other = joined(mode);
  if (other !== undefined) return { containerPid: place.pidOf(other) };
  return mode === "host" ? "host" : "private";
}

function ipcMode(mode: string, place: RunPlace): ContainerSpec["ipcMode"] {
  const other = joined(mode);
  if (other !== undefined) return place.ipcOf(other);
  return mode === "host" || mode === "none" || mode === "shareable" ? mode : "private";
}

export function runtimeSpec(record: ContainerRecord, place: RunPlace): ContainerSpec {
  const { config, hostConfig: host } = record;
  const security = securityOptions(host.SecurityOpt);
  return {
    id: record.id,
    imageId: record.imageId,
    mountedImages: [...new Set(record.mounts.flatMap(({ image }) => image || []))],
    ...(host.Runtime && { ociRuntime: host.Runtime }),
    hostname: config.Hostname,
    ...(config.Domainname && { domainname: config.Domainname }),
    args: [record.path, ...record.args],
    // As Docker: links come after the configured variables, which the process may override.
    env: [...processEnv(config, config.Hostname), ...(place.linkEnv ?? [])],
    cwd: config.WorkingDir || "/",
    user: config.User,
    groups: host.GroupAdd,
    tty: config.Tty,
    openStdin: config.OpenStdin,
    labels: config.Labels,
    ...(place.netnsPath !== undefined && { netnsPath: place.netnsPath }),
    ...(place.etc && { etc: place.etc }),
    mounts: [...record.mounts.map((mount) => mountOf(mount, place)), ...place.extraMounts],
    readonlyRootfs: host.ReadonlyRootfs,
    privileged: host.Privileged,
    capAdd: host.CapAdd,
    capDrop: host.CapDrop,
    noNewPrivileges: security.noNewPrivileges,
    seccompUnconfined: security.seccompUnconfined,
    ...(security.seccompProfile !== undefined && { seccompProfile: security.seccompProfile }),
    ...(host.MaskedPaths && { maskedPaths: host.MaskedPaths }),
    ...(host.ReadonlyPaths && { readonlyPaths: host.ReadonlyPaths }),
    ...((host.CgroupnsMode === "private" || host.CgroupnsMode === "host") && { cgroupnsMode: host.CgroupnsMode }),
    annotations: host.Annotations,
    sysctls: host.Sysctls,
    ulimits: host.Ulimits.map(({ Name, Soft, Hard }) => ({ name: Name, soft: Soft, hard: Hard })),
    devices: host.Devices.map((device) => ({
      pathOnHost: device.PathOnHost,
      pathInContainer: device.PathInContainer || device.PathOnHost,
      permissions: device.CgroupPermissions || "rwm",
    })),
    deviceCgroupRules: host.DeviceCgroupRules,
    resources: resourcesOf(host),
    pidMode: pidMode(host.PidMode, place),
    ipcMode: ipcMode(host.IpcMode, place),
    utsMode: host.UTSMode === "host" ? "host" : "private",
    ...(host.ShmSize > 0 && { shmSize: host.ShmSize }),
    oomScoreAdj: host.OomScoreAdj,
    init: host.Init ?? false,
    ...(host.CgroupParent && { cgroupParent: host.CgroupParent }),
  };
}
