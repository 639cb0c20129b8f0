/** Docker's JSON for what clients send about containers and networks. Field names are Docker's. */
import { anything, bool, dict, int, list, optional, type ShapeOf, str, strOrList, struct } from "../base/shape.ts";

const healthConfig = struct({
  Test: optional(list(str)),
  /** Nanoseconds, all of them. */
  Interval: int,
  Timeout: int,
  StartPeriod: int,
  StartInterval: int,
  Retries: int,
});

export const containerConfig = struct({
  Hostname: str,
  Domainname: str,
  User: str,
  AttachStdin: bool,
  AttachStdout: bool,
  AttachStderr: bool,
  ExposedPorts: dict(anything),
  Tty: bool,
  OpenStdin: bool,
  StdinOnce: bool,
  Env: list(str),
  Cmd: optional(strOrList),
  Healthcheck: optional(healthConfig),
  ArgsEscaped: bool,
  Image: str,
  Volumes: dict(anything),
  WorkingDir: str,
  Entrypoint: optional(strOrList),
  NetworkDisabled: bool,
  MacAddress: str,
  OnBuild: optional(list(str)),
  Labels: dict(str),
  StopSignal: str,
  StopTimeout: optional(int),
  Shell: optional(list(str)),
});
export type ContainerConfig = ShapeOf<typeof containerConfig>;

const portBinding = struct({ HostIp: str, HostPort: str });

export const restartPolicy = struct({ Name: str, MaximumRetryCount: int });
export type RestartPolicy = ShapeOf<typeof restartPolicy>;

export const mountSpec = struct({
  Type: str,
  Source: str,
  Target: str,
  ReadOnly: bool,
  Consistency: str,
  BindOptions: optional(
    struct({
      Propagation: str,
      NonRecursive: bool,
      CreateMountpoint: bool,
      ReadOnlyNonRecursive: bool,
      ReadOnlyForceRecursive: bool,
    }),
  ),
  VolumeOptions: optional(
    struct({
      NoCopy: bool,
      Labels: dict(str),
      Subpath: str,
      DriverConfig: optional(struct({ Name: str, Options: dict(str) })),
    }),
  ),
  TmpfsOptions: optional(struct({ SizeBytes: int, Mode: int, Options: optional(list(list(str))) })),
  ImageOptions: optional(struct({ Subpath: str })),
  ClusterOptions: anything,
});
export type MountSpec = ShapeOf<typeof mountSpec>;

const deviceRate = struct({ Path: str, Rate: int });

export const resources = {
  CpuShares: int,
  Memory: int,
  NanoCpus: int,
  CgroupParent: str,
  BlkioWeight: int,
  BlkioWeightDevice: list(struct({ Path: str, Weight: int })),
  BlkioDeviceReadBps: list(deviceRate),
  BlkioDeviceWriteBps: list(deviceRate),
  BlkioDeviceReadIOps: list(deviceRate),
  BlkioDeviceWriteIOps: list(deviceRate),
  CpuPeriod: int,
  CpuQuota: int,
  CpuRealtimePeriod: int,
  CpuRealtimeRuntime: int,
  CpusetCpus: str,
  CpusetMems: str,
  Devices: list(struct({ PathOnHost: str, PathInContainer: str, CgroupPermissions: str })),
  DeviceCgroupRules: list(str),
  DeviceRequests: list(struct({ Driver: str, Count: int, Capabilities: list(list(str)) })),
  KernelMemory: int,
  KernelMemoryTCP: int,
  MemoryReservation: int,
  MemorySwap: int,
  MemorySwappiness: optional(int),
  OomKillDisable: optional(bool),
  PidsLimit: optional(int),
  Ulimits: list(struct({ Name: str, Hard: int, Soft: int })),
  CpuCount: int,
  CpuPercent: int,
  IOMaximumIOps: int,
  IOMaximumBandwidth: int,
};

export const hostConfig = struct({
  ...resources,
  Binds: list(str),
  ContainerIDFile: str,
  LogConfig: struct({ Type: str, Config: dict(str) }),
  NetworkMode: str,
  PortBindings: dict(list(portBinding)),
  RestartPolicy: restartPolicy,
  AutoRemove: bool,
  VolumeDriver: str,
  VolumesFrom: list(str),
  ConsoleSize: optional(list(int)),
  Annotations: dict(str),
  CapAdd: list(str),
  CapDrop: list(str),
  CgroupnsMode: str,
  Dns: list(str),
  DnsOptions: list(str),
  DnsSearch: list(str),
  ExtraHosts: list(str),
  GroupAdd: list(str),
  IpcMode: str,
  Cgroup: str,
  Links: list(str),
  OomScoreAdj: int,
  PidMode: str,
  Privileged: bool,
  PublishAllPorts: bool,
  ReadonlyRootfs: bool,
  SecurityOpt: list(str),
  StorageOpt: dict(str),
  Tmpfs: dict(str),
  UTSMode: str,
  UsernsMode: str,
  ShmSize: int,
  Sysctls: dict(str),
  Runtime: str,
  Isolation: str,
  Mounts: list(mountSpec),
  MaskedPaths: optional(list(str)),
  ReadonlyPaths: optional(list(str)),
  Init: optional(bool),
});
export type HostConfig = ShapeOf<typeof hostConfig>;

export const endpointSettings = struct({
  IPAMConfig: optional(struct({ IPv4Address: str, IPv6Address: str, LinkLocalIPs: list(str) })),
  Links: list(str),
  Aliases: list(str),
  MacAddress: str,
  DriverOpts: dict(str),
  GwPriority: int,
});
export type EndpointSettings = ShapeOf<typeof endpointSettings>;

export const networkingConfig = struct({ EndpointsConfig: dict(endpointSettings) });
export type NetworkingConfig = ShapeOf<typeof networkingConfig>;

export const execConfig = struct({
  User: str,
  Privileged: bool,
  Tty: bool,
  ConsoleSize: optional(list(int)),
  AttachStdin: bool,
  AttachStderr: bool,
  AttachStdout: bool,
  Detach: bool,
  DetachKeys: str,
  Env: list(str),
  WorkingDir: str,
  Cmd: list(str),
});
export type ExecConfig = ShapeOf<typeof execConfig>;

const ipamConfig = struct({
  Subnet: str,
  IPRange: str,
  Gateway: str,
  AuxiliaryAddresses: optional(dict(str)),
  /** What CLI 20.10 calls the same. */
  AuxAddress: optional(dict(str)),
});

export const networkCreate = struct({
  Name: str,
  CheckDuplicate: bool,
  Driver: str,
  Scope: str,
  EnableIPv4: optional(bool),
  EnableIPv6: optional(bool),
  IPAM: optional(struct({ Driver: str, Options: optional(dict(str)), Config: list(ipamConfig) })),
  Internal: bool,
  Attachable: bool,
  Ingress: bool,
  ConfigOnly: bool,
  ConfigFrom: optional(struct({ Network: str })),
  Options: dict(str),
  Labels: dict(str),
});
export type NetworkCreate = ShapeOf<typeof networkCreate>;

export const volumeCreate = struct({
  Name: str,
  Driver: str,
  DriverOpts: dict(str),
  Labels: dict(str),
  ClusterVolumeSpec: anything,
});
export type VolumeCreate = ShapeOf<typeof volumeCreate>;
