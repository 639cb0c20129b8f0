/** From a task to the container that runs it. Pure. */
import type { Duration } from "@bufbuild/protobuf/wkt";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import type { ContainerSpec } from "#proto/docker/swarmkit/specs_pb.js";
import {
  type Mount,
  Mount_BindOptions_Propagation,
  Mount_Type,
  PortConfig_PublishMode,
  type Privileges,
  Privileges_AppArmorOpts_AppArmorMode,
  Privileges_SeccompOpts_SeccompMode,
} from "#proto/docker/swarmkit/types_pb.js";
import { hostAddresses } from "../../base/publish.ts";
import { taskContainerName } from "../../swarm/expand.ts";
import { TaskRejected } from "../../swarm/types.ts";
import {
  type ContainerConfig,
  containerConfig,
  type HostConfig,
  hostConfig,
  type MountSpec,
  mountSpec,
} from "../shapes.ts";
import type { ContainerCreate, TaskExtras } from "../types.ts";
import { optionsOf, predefinedNetwork, protocolWord } from "./attachments.ts";

const LABEL = "com.docker.swarm";
export const TASK_LABEL = `${LABEL}.task.id`;
export const NODE_LABEL = `${LABEL}.node.id`;

const nanoseconds = (duration: Duration | undefined): number =>
  duration ? Number(duration.seconds) * 1e9 + duration.nanos : 0;

/** System labels have the last word over those of the spec and of the orchestrator. */
function taskLabels(task: Task, spec: ContainerSpec): Record<string, string> {
  return {
    ...spec.labels,
    ...task.annotations?.labels,
    [`${LABEL}.task`]: "",
    [TASK_LABEL]: task.id,
    [`${LABEL}.task.name`]: taskContainerName(task),
    [NODE_LABEL]: task.nodeId,
    [`${LABEL}.service.id`]: task.serviceId,
    [`${LABEL}.service.name`]: task.serviceAnnotations?.name ?? "",
  };
}

/** `DOCKER_RESOURCE_<KIND>=a,b` for generic resources that the scheduler gave to this task. */
function resourceEnv(task: Task): string[] {
  const byKind = new Map<string, string[]>();
  for (const { resource } of task.assignedGenericResources) {
    if (resource.case === undefined) continue;
    const key = resource.value.kind.toUpperCase();
    byKind.set(key, [...(byKind.get(key) ?? []), String(resource.value.value)]);
  }
  return [...byKind].map(([kind, values]) => `DOCKER_RESOURCE_${kind}=${values.join(",")}`);
}

function mountOf(mount: Mount): MountSpec {
  const types: Partial<Record<Mount_Type, string>> = {
    [Mount_Type.BIND]: "bind",
    [Mount_Type.VOLUME]: "volume",
    [Mount_Type.TMPFS]: "tmpfs",
  };
  const type = types[mount.type];
  if (type === undefined) throw new TaskRejected(`invalid mount type: ${Mount_Type[mount.type]?.toLowerCase()}`);
  const { bindOptions: bind, volumeOptions: volume, tmpfsOptions: tmpfs } = mount;
  return mountSpec(
    {
      Type: type,
      Source: mount.source,
      Target: mount.target,
      ReadOnly: mount.readonly,
      BindOptions: bind && {
        Propagation: Mount_BindOptions_Propagation[bind.propagation]?.toLowerCase(),
        NonRecursive: bind.nonrecursive,
        CreateMountpoint: bind.createmountpoint,
        ReadOnlyNonRecursive: bind.readonlynonrecursive,
        ReadOnlyForceRecursive: bind.readonlyforcerecursive,
      },
      VolumeOptions: volume && {
        NoCopy: volume.nocopy,
        Labels: volume.labels,
        Subpath: volume.subpath,
        DriverConfig: volume.driverConfig && { Name: volume.driverConfig.name, Options: volume.driverConfig.options },
      },
      TmpfsOptions: tmpfs && { SizeBytes: Number(tmpfs.sizeBytes), Mode: tmpfs.mode },
    },
    "Mounts",
  );
}

/** As Docker checks them where the task is to run. */
export function checkMounts(mounts: readonly Mount[]): void {
  const targets = new Set<string>();
  for (const mount of mounts) {
    if (!mount.target.startsWith("/"))
      throw new TaskRejected(`invalid mount target, must be an absolute path: ${mount.target}`);
    if (targets.has(mount.target)) throw new TaskRejected(`duplicate mount point: ${mount.target}`);
    targets.add(mount.target);
    if (mount.type === Mount_Type.BIND && !mount.source.startsWith("/")) {
      throw new TaskRejected(`invalid bind mount source, must be an absolute path: ${mount.source}`);
    }
    if (mount.type === Mount_Type.VOLUME && mount.source.startsWith("/")) {
      throw new TaskRejected(`invalid volume mount source, must not be an absolute path: ${mount.source}`);
    }
    if (mount.type === Mount_Type.TMPFS && mount.source !== "") {
      throw new TaskRejected("invalid tmpfs source, source must be empty");
    }
  }
}

function securityOptions(privileges: Privileges | undefined): string[] {
  if (!privileges) return [];
  if (privileges.credentialSpec) throw new TaskRejected("skein does not support credential specs");
  const out: string[] = [];
  const selinux = privileges.selinuxContext;
  if (selinux?.disable) out.push("label=disable");
  for (const key of ["user", "role", "level", "type"] as const) {
    if (selinux?.[key]) out.push(`label=${key}:${selinux[key]}`);
  }
  if (privileges.seccomp?.mode === Privileges_SeccompOpts_SeccompMode.UNCONFINED) out.push("seccomp=unconfined");
  if (privileges.seccomp?.mode === Privileges_SeccompOpts_SeccompMode.CUSTOM) {
    out.push(`seccomp=${Buffer.from(privileges.seccomp.profile).toString("utf8")}`);
  }
  if (privileges.apparmor?.mode === Privileges_AppArmorOpts_AppArmorMode.DISABLED) out.push("apparmor=unconfined");
  if (privileges.noNewPrivileges) out.push("no-new-privileges=true");
  return out;
}

const hostPorts = (task: Task) =>
  (task.endpoint?.ports ?? []).filter((port) => port.publishMode === PortConfig_PublishMode.HOST);

function configOf(task: Task, spec: ContainerSpec): ContainerConfig {
  const health = spec.healthcheck;
  return containerConfig(
    {
      Labels: taskLabels(task, spec),
      StopSignal: spec.stopSignal,
      StopTimeout: spec.stopGracePeriod && Math.ceil(nanoseconds(spec.stopGracePeriod) / 1e9),
      Tty: spec.tty,
      OpenStdin: spec.openStdin,
      User: spec.user,
      Env: [...spec.env, ...resourceEnv(task)],
      Hostname: spec.hostname,
      WorkingDir: spec.dir,
      Image: spec.image,
      ExposedPorts: Object.fromEntries(hostPorts(task).map((port) => [`${port.targetPort}/${protocolWord(port)}`, {}])),
      Healthcheck: health && {
        Test: health.test.length ? health.test : undefined,
        Interval: nanoseconds(health.interval),
        Timeout: nanoseconds(health.timeout),
        StartPeriod: nanoseconds(health.startPeriod),
        StartInterval: nanoseconds(health.startInterval),
        Retries: health.retries,
      },
      // A command replaces the image's entrypoint, with the args as its own; args alone go to that entrypoint.
      Entrypoint: spec.command.length ? spec.command : undefined,
      Cmd: spec.args.length ? spec.args : undefined,
    },
    "",
  );
}

/** hosts(5) lines to Docker's "name:ip". */
function extraHosts(lines: readonly string[]): string[] {
  return lines.flatMap((line) => {
    const [ip, ...names] = line.trim().split(/\s+/);
    return ip && names.length ? names.map((name) => `${name}:${ip}`) : [];
  });
}

function hostConfigOf(task: Task, spec: ContainerSpec): HostConfig {
  const limits = task.spec?.resources?.limits;
  const memory = Number(limits?.memoryBytes ?? 0n);
  const swap = task.spec?.resources?.swapBytes;
  const bindings: Record<string, { HostIp?: string; HostPort: string }[]> = {};
  for (const port of hostPorts(task)) {
    const key = `${port.targetPort}/${protocolWord(port)}`;
    const HostPort = port.publishedPort ? String(port.publishedPort) : "";
    const { bound } = optionsOf(task, port);
    const places = bound ? hostAddresses(bound).map((HostIp) => ({ HostIp, HostPort })) : [{ HostPort }];
    if (places.length > 0) bindings[key] = [...(bindings[key] ?? []), ...places];
  }
  const logDriver = task.logDriver ?? task.spec?.logDriver;
  return hostConfig(
    {
      Memory: memory,
      MemorySwap: memory > 0 && swap !== undefined ? (swap === -1n ? -1 : memory + Number(swap)) : 0,
      MemorySwappiness:
        task.spec?.resources?.memorySwappiness === undefined ? undefined : Number(task.spec.resources.memorySwappiness),
      NanoCpus: Number(limits?.nanoCpus ?? 0n),
      PidsLimit: spec.pidsLimit ? Number(spec.pidsLimit) : undefined,
      Ulimits: spec.ulimits.map((limit) => ({ Name: limit.name, Soft: Number(limit.soft), Hard: Number(limit.hard) })),
      OomScoreAdj: Number(spec.oomScoreAdj),
      GroupAdd: spec.groups,
      PortBindings: bindings,
      Mounts: spec.mounts.map(mountOf),
      ReadonlyRootfs: spec.readOnly,
      Init: spec.init,
      Sysctls: spec.sysctls,
      CapAdd: spec.capabilityAdd,
      CapDrop: spec.capabilityDrop,
      Dns: spec.dnsConfig?.nameservers,
      DnsSearch: spec.dnsConfig?.search,
      DnsOptions: spec.dnsConfig?.options,
      ExtraHosts: extraHosts(spec.hosts),
      SecurityOpt: securityOptions(spec.privileges),
      LogConfig: logDriver && { Type: logDriver.name, Config: logDriver.options },
      NetworkMode: predefinedNetwork(task) ?? "default",
    },
    "",
  );
}

/** The container of a task. `spec` is the task's own with its templates expanded. */
export function containerCreate(task: Task, spec: ContainerSpec, extras: TaskExtras): ContainerCreate {
  const platform = task.spec?.placement?.platforms[0];
  return {
    name: taskContainerName(task),
    ...(platform?.os && platform.architecture && { platform: `${platform.os}/${platform.architecture}` }),
    config: configOf(task, spec),
    hostConfig: hostConfigOf(task, spec),
    networking: { EndpointsConfig: {} },
    task: extras,
  };
}
