/** Mounts of a container: Docker's defaults, then the user's, parents before children. */
import { existsSync } from "node:fs";
import type { ContainerSpec, Mount } from "../types.ts";
import type { OciMount } from "./oci.ts";

const defaultShmSize = 64 * 1024 * 1024;
const propagations = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/** Where `--init` puts its binary inside the container. */
export const initPath = "/sbin/docker-init";

/** What mounts need of the host: a static init where one is wanted, and the directory of a shared /dev/shm. */
export interface MountSurroundings {
  readonly initBinary?: string | undefined;
  readonly shmPath?: string | undefined;
}

export function ociMounts(spec: ContainerSpec, { initBinary, shmPath }: MountSurroundings = {}): OciMount[] {
  const own = [...etcMounts(spec), ...spec.mounts.map(userMount)];
  if (initBinary) own.push(bind(initBinary, initPath, ["ro"]));
  const taken = new Set(own.map((mount) => mount.destination));
  const defaults = defaultMounts(spec, shmPath).filter(
    (mount) => !taken.has(mount.destination) && !(taken.has("/dev") && mount.destination.startsWith("/dev/")),
  );
  const depth = (mount: OciMount) => mount.destination.split("/").filter(Boolean).length;
  own.sort((a, b) => depth(a) - depth(b));
  return [...defaults, ...own];
}

/** What the mounts ask of the root file system: runc's default keeps later host mounts out. */
export function rootPropagation(mounts: readonly OciMount[]): string | undefined {
  const has = (kind: string) => mounts.some((m) => m.options.includes(kind) || m.options.includes(`r${kind}`));
  if (has("shared")) return "shared";
  if (has("slave")) return "rslave";
  return undefined;
}

function defaultMounts(spec: ContainerSpec, shmPath: string | undefined): OciMount[] {
  const readonly = spec.privileged ? [] : ["ro"];
  const mounts: OciMount[] = [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    {
      destination: "/dev",
      type: "tmpfs",
      source: "tmpfs",
      options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", ...readonly] },
    {
      destination: "/sys/fs/cgroup",
      type: "cgroup",
      source: "cgroup",
      options: [...readonly, "nosuid", "noexec", "nodev"],
    },
  ];
  if (spec.ipcMode === "host") {
    // Not every host has message queues mounted.
    if (existsSync("/dev/mqueue")) mounts.push(bind("/dev/mqueue", "/dev/mqueue", []));
    mounts.push(bind("/dev/shm", "/dev/shm", []));
    return mounts;
  }
  mounts.push({
    destination: "/dev/mqueue",
    type: "mqueue",
    source: "mqueue",
    options: ["nosuid", "noexec", "nodev"],
  });
  if (shmPath !== undefined) {
    mounts.push(bind(shmPath, "/dev/shm", ["nosuid", "noexec", "nodev"]));
  } else if (spec.ipcMode !== "none") {
    mounts.push({
      destination: "/dev/shm",
      type: "tmpfs",
      source: "shm",
      options: ["nosuid", "noexec", "nodev", "mode=1777", `size=${spec.shmSize || defaultShmSize}`],
    });
  }
  return mounts;
}

function etcMounts(spec: ContainerSpec): OciMount[] {
  if (!spec.etc) return [];
  const access = spec.readonlyRootfs ? ["ro"] : [];
  const files: [string, string][] = [
    [spec.etc.resolvConf, "/etc/resolv.conf"],
    [spec.etc.hostname, "/etc/hostname"],
    [spec.etc.hosts, "/etc/hosts"],
  ];
  const users = new Set(spec.mounts.map((mount) => mount.target));
  return files.filter(([, target]) => !users.has(target)).map(([source, target]) => bind(source, target, access));
}

function bind(source: string, destination: string, options: string[]): OciMount {
  return { destination, type: "bind", source, options: ["rbind", "rprivate", ...options] };
}

function userMount(mount: Mount): OciMount {
  if (mount.type === "tmpfs") {
    return { destination: mount.target, type: "tmpfs", source: "tmpfs", options: tmpfsOptions(mount) };
  }
  // SELinux labels and copy-up are not the kernel's business.
  const wanted = mount.options.filter((option) => !["z", "Z", "nocopy", "ro", "rw"].includes(option));
  const options = wanted.some((option) => option === "bind" || option === "rbind") ? [] : ["rbind"];
  options.push(...wanted);
  if (!wanted.some((option) => propagations.includes(option))) options.push("rprivate");
  // "rro" is "ro" for all that is mounted below, too.
  if ((mount.readonly || mount.options.includes("ro")) && !wanted.includes("rro")) options.push("ro");
  return { destination: mount.target, type: "bind", source: mount.source, options };
}

/** Docker's defaults of a tmpfs, each of which the user's own word overrides. */
function tmpfsOptions(mount: Mount): string[] {
  const opposite: Record<string, string> = { noexec: "exec", nosuid: "suid", nodev: "dev" };
  const defaults = Object.keys(opposite).filter((option) => !mount.options.includes(opposite[option] ?? ""));
  const propagation = mount.options.some((option) => propagations.includes(option)) ? [] : ["rprivate"];
  const readonly = mount.readonly && !mount.options.includes("ro") ? ["ro"] : [];
  return [...new Set([...defaults, ...propagation, ...mount.options, ...readonly])];
}
