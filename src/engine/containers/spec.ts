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
    ...(host.OomKillDisable && { oomKillDisable: true }),
  };
}

function mountOf(mount: MountPoint): Mount {
  return {
    type: mount.type,
    source: mount.source,
    target: mount.target,
    readonly: !mount.rw,
    options: [...mount.options, ...(mount.propagation && mount.propagation !== "rprivate" ? [mount.propagation] : [])],
  };
}

function namespaceMode(
  mode: string,
  pidOf: (ref: string) => number,
): "private" | "host" | "none" | { containerPid: number } {
  if (mode.startsWith("container:")) return { containerPid: pidOf(mode.slice("container:".length)) };
  return mode === "host" || mode === "none" ? mode : "private";
}

export function runtimeSpec(record: ContainerRecord, place: RunPlace): ContainerSpec {
  const { config, hostConfig: host } = record;
  const security = securityOptions(host.SecurityOpt);
  const pid = namespaceMode(host.PidMode, place.pidOf);
  return {
    id: record.id,
    imageId: record.imageId,
    hostname: config.Hostname,
    ...(config.Domainname && { domainname: config.Domainname }),
    args: [record.path, ...record.args],
    env: processEnv(config, config.Hostname),
    cwd: config.WorkingDir || "/",
    user: config.User,
    groups: host.GroupAdd,
    tty: config.Tty,
    openStdin: config.OpenStdin,
    labels: config.Labels,
    ...(place.netnsPath !== undefined && { netnsPath: place.netnsPath }),
    ...(place.etc && { etc: place.etc }),
    mounts: [...record.mounts.map(mountOf), ...place.extraMounts],
    readonlyRootfs: host.ReadonlyRootfs,
    privileged: host.Privileged,
    capAdd: host.CapAdd,
    capDrop: host.CapDrop,
    noNewPrivileges: security.noNewPrivileges,
    seccompUnconfined: security.seccompUnconfined,
    ...(security.seccompProfile !== undefined && { seccompProfile: security.seccompProfile }),
    sysctls: host.Sysctls,
    ulimits: host.Ulimits.map(({ Name, Soft, Hard }) => ({ name: Name, soft: Soft, hard: Hard })),
    devices: host.Devices.map((device) => ({
      pathOnHost: device.PathOnHost,
      pathInContainer: device.PathInContainer || device.PathOnHost,
      permissions: device.CgroupPermissions || "rwm",
    })),
    deviceCgroupRules: host.DeviceCgroupRules,
    resources: resourcesOf(host),
    pidMode: pid === "none" ? "private" : pid,
    ipcMode: namespaceMode(host.IpcMode, place.pidOf),
    utsMode: host.UTSMode === "host" ? "host" : "private",
    ...(host.ShmSize > 0 && { shmSize: host.ShmSize }),
    oomScoreAdj: host.OomScoreAdj,
    init: host.Init ?? false,
    ...(host.CgroupParent && { cgroupParent: host.CgroupParent }),
  };
}
