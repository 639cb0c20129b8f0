/** From Skein's container spec to the OCI runtime spec, with the defaults of Docker. Pure but for reading devices. */
import { invalid } from "../../base/errors.ts";
import type { ContainerSpec, ExecSpec } from "../types.ts";
import { capabilitiesFor, kernelCapabilities } from "./capabilities.ts";
import { ociDevices } from "./devices.ts";
import { initPath, ociMounts, rootPropagation } from "./mounts.ts";
import type { OciProcess, OciSpec, OciUser } from "./oci.ts";
import { ociResources } from "./resources.ts";
import { customSeccomp, defaultSeccomp } from "./seccomp.ts";

/** What the spec depends on besides the user's wish. */
export interface Surroundings {
  readonly user: OciUser;
  /** Absolute path of the container's cgroup below each hierarchy's root. */
  readonly cgroupsPath: string;
  /** One unified cgroup hierarchy, no v1 controllers. */
  readonly cgroup2: boolean;
  /** A static init program of the host, if there is one. */
  readonly initBinary: string | undefined;
  /** The directory behind a /dev/shm that containers share. */
  readonly shmPath?: string | undefined;
  /** Parts of the kernel that only exist on some machines and tell about the host. */
  readonly extraMaskedPaths?: readonly string[];
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** They tell about, or reach, the host beyond the container. */
const maskedPaths = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/powercap",
  "/sys/firmware",
];
const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

export function ociSpec(spec: ContainerSpec, around: Surroundings): OciSpec {
  if (spec.args.length === 0) throw invalid("no command specified");
  if (spec.init && !around.initBinary) throw invalid('exec: "docker-init": executable file not found in $PATH');
  const mounts = ociMounts(spec, { initBinary: spec.init ? around.initBinary : undefined, shmPath: around.shmPath });
  const { devices, rules } = ociDevices(spec);
  const capabilities = spec.privileged ? kernelCapabilities() : capabilitiesFor(spec.capAdd, spec.capDrop);
  const result: OciSpec = {
    ociVersion: "1.0.2",
    process: {
      terminal: spec.tty,
      args: spec.init ? [initPath, "--", ...spec.args] : spec.args,
      env: environment(spec),
      cwd: spec.cwd || "/",
      user: around.user,
      capabilities: processCapabilities(capabilities, around.user),
      noNewPrivileges: spec.noNewPrivileges ?? false,
      // Always said: else it is the shim's, which differs from the machine's ordinary 0.
      oomScoreAdj: spec.oomScoreAdj ?? 0,
      rlimits: (spec.ulimits ?? []).map(({ name, soft, hard }) => ({
        type: `RLIMIT_${name.toUpperCase()}`,
        soft: limit(soft),
        hard: limit(hard),
      })),
    },
    root: { path: "rootfs", readonly: spec.readonlyRootfs ?? false },
    mounts,
    linux: {
      cgroupsPath: around.cgroupsPath,
      namespaces: namespaces(spec, around.cgroup2),
      devices,
      resources: { ...ociResources(spec.resources ?? {}), devices: rules },
      sysctl: sysctls(spec),
      maskedPaths: spec.privileged ? [] : (spec.maskedPaths ?? [...maskedPaths, ...(around.extraMaskedPaths ?? [])]),
      readonlyPaths: spec.privileged ? [] : (spec.readonlyPaths ?? readonlyPaths),
    },
  };
  if (spec.utsMode !== "host") result.hostname = spec.hostname;
  if (spec.annotations && Object.keys(spec.annotations).length > 0) result.annotations = spec.annotations;
  const propagation = rootPropagation(mounts);
  if (propagation) result.linux.rootfsPropagation = propagation;
  if (!spec.privileged && !spec.seccompUnconfined) {
    result.linux.seccomp = spec.seccompProfile
      ? customSeccomp(spec.seccompProfile, capabilities)
      : defaultSeccomp(capabilities);
  }
  return result;
}

/** The process of an exec: the container's own, but for what the exec says. */
export function execProcess(container: OciProcess, spec: ExecSpec, user: OciUser): OciProcess {
  if (spec.args.length === 0) throw invalid("No exec command specified");
  const capabilities = spec.privileged
    ? processCapabilities(kernelCapabilities(), { uid: 0, gid: 0 })
    : processCapabilities(container.capabilities.bounding, user);
  return {
    ...container,
    terminal: spec.tty,
    args: spec.args,
    env: mergeEnv([...container.env, ...(spec.tty ? ["TERM=xterm"] : [])], spec.env),
    cwd: spec.cwd || "/",
    user,
    capabilities,
  };
}

/** JSON has no 2^64-1: RLIM_INFINITY is the largest integer a double holds exactly. */
const limit = (value: number): number => (value < 0 ? Number.MAX_SAFE_INTEGER : value);

/** Only root holds capabilities from the start; others may regain no more than the bounding set. */
function processCapabilities(list: readonly string[], user: OciUser): OciProcess["capabilities"] {
  const held = user.uid === 0 ? [...list] : [];
  return { bounding: [...list], effective: held, permitted: held };
}

function environment(spec: ContainerSpec): string[] {
  const set = new Set(spec.env.map((entry) => entry.split("=", 1)[0]));
  const defaults: [string, string][] = [
    ["PATH", defaultPath],
    ["HOSTNAME", spec.hostname],
  ];
  if (spec.tty) defaults.push(["TERM", "xterm"]);
  return [...defaults.filter(([name]) => !set.has(name)).map(([name, value]) => `${name}=${value}`), ...spec.env];
}

/** `base` with `over`: a later value replaces an earlier one, a name without "=" takes it away. */
export function mergeEnv(base: readonly string[], over: readonly string[]): string[] {
  const merged = new Map<string, string>();
  for (const entry of [...base, ...over]) {
    const name = entry.split("=", 1)[0] ?? "";
    if (entry.includes("=")) merged.set(name, entry);
    else merged.delete(name);
  }
  return [...merged.values()];
}

function namespaces(spec: ContainerSpec, cgroup2: boolean): { type: string; path?: string }[] {
  const result: { type: string; path?: string }[] = [{ type: "mount" }];
  if (spec.netnsPath) result.push({ type: "network", path: spec.netnsPath });
  if (spec.utsMode !== "host") result.push({ type: "uts" });
  if (typeof spec.pidMode === "object") result.push({ type: "pid", path: `/proc/${spec.pidMode.containerPid}/ns/pid` });
  else if (spec.pidMode !== "host") result.push({ type: "pid" });
  if (typeof spec.ipcMode === "object") result.push({ type: "ipc", path: `/proc/${spec.ipcMode.containerPid}/ns/ipc` });
  else if (spec.ipcMode !== "host") result.push({ type: "ipc" });
  const ownCgroups = spec.cgroupnsMode ? spec.cgroupnsMode === "private" : cgroup2 && !spec.privileged;
  if (ownCgroups) result.push({ type: "cgroup" });
  return result;
}

function sysctls(spec: ContainerSpec): Record<string, string> {
  const result: Record<string, string> = {};
  if (spec.netnsPath) {
    // As Docker: ports below 1024 and ping without privileges, within the container's own network.
    result["net.ipv4.ip_unprivileged_port_start"] = "0";
    result["net.ipv4.ping_group_range"] = "0 2147483647";
  }
  if (spec.domainname && spec.utsMode !== "host") result["kernel.domainname"] = spec.domainname;
  return { ...result, ...spec.sysctls };
}
