/**
 * One lab host: a network, mount, UTS and PID namespace around a `skeind` of its own. Process 1 of the PID
 * namespace only waits; when it is killed the kernel ends all that runs in the host, and with the mount
 * namespace go all of its mounts, so nothing can be left behind.
 */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { request } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Clock, sleep, systemClock } from "../base/clock.ts";
import { SkeinError } from "../base/errors.ts";
import { clockWords } from "./clock.ts";
import { childrenOf, end, isAlive, type ProcessRef, processRef, startDetached } from "./process.ts";
import type { HostSpec } from "./spec.ts";
import type { EngineKind } from "./state.ts";

/** How many times as slow as others this machine is: an emulated one says so (`SKEIN_LAB_PATIENCE`). */
export const patience = Number(process.env.SKEIN_LAB_PATIENCE ?? 1);

const root = join(dirname(fileURLToPath(import.meta.url)), "..", "..");

export interface HostState {
  /** The process outside that holds the namespaces. */
  readonly holder: ProcessRef;
  /** Process 1 inside, by its pid outside. */
  readonly init: ProcessRef;
  readonly daemon: ProcessRef | undefined;
}

/**
 * What process 1 of a host does before it waits. /run becomes the host's own (with Docker's well-known paths in
 * it), except for the run directory, which this machine shares; /sys shows the host's own devices.
 */
function initScript(host: HostSpec): string {
  const shared = host.runDir.replace(/^\/run\//, "");
  return `set -e
hostname ${host.name}
fresh=${host.runDir}/.run
mkdir -p "$fresh"
mount -n -t tmpfs -o mode=755 skein-run "$fresh"
mkdir -p "$fresh/${shared}" "$fresh/docker" "$fresh/lock" ${host.runDir}/netns
mount -n --bind ${host.runDir} "$fresh/${shared}"
ln -s ${host.runDir}/netns "$fresh/docker/netns"
ln -s ${host.socket} "$fresh/docker.sock"
mkdir "$fresh/cgroup"
mount -n --rbind /sys/fs/cgroup "$fresh/cgroup"
mount -n -t sysfs sysfs /sys
mount -n --rbind "$fresh/cgroup" /sys/fs/cgroup
umount -n -l "$fresh/cgroup"
rmdir "$fresh/cgroup"
mount -n --move "$fresh" /run
${offline() ? withoutHub(host) : ""}: > ${host.runDir}/ready
exec tini -- sleep infinity
`;
}

/** Tests ask nobody outside: in their labs Docker Hub's names lead to the host itself, where nobody answers. */
export const offline = (): boolean => process.env.SKEIN_LAB_OFFLINE === "1";
const withoutHub = (host: HostSpec): string => `hosts=${host.runDir}/hosts
{ cat /etc/hosts; echo 127.0.0.1 registry-1.docker.io auth.docker.io index.docker.io; } >"$hosts"
mount -n --bind "$hosts" /etc/hosts
`;

/** Makes the namespaces around an existing network namespace. */
export async function startHost(host: HostSpec, clock: Clock = systemClock): Promise<HostState> {
  mkdirSync(host.runDir, { recursive: true, mode: 0o711 });
  mkdirSync(host.stateDir, { recursive: true, mode: 0o711 });
  const bootLog = join(host.runDir, "boot.log");
  const unshare = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"];
  const holder = startDetached(
    ["nsenter", `--net=${host.netnsPath}`, ...unshare, "--", "sh", "-c", initScript(host)],
    bootLog,
  );
  const deadline = clock.now() + 5000 * patience;
  while (!existsSync(join(host.runDir, "ready"))) {
    if (!isAlive(holder) || clock.now() > deadline) throw didNotStart(host, bootLog);
    await sleep(clock, 5);
  }
  const init = processRef(childrenOf(holder.pid)[0] ?? 0);
  if (!init) throw didNotStart(host, bootLog);
  return { holder, init, daemon: undefined };
}

function didNotStart(host: HostSpec, bootLog: string): SkeinError {
  const why = existsSync(bootLog) ? readFileSync(bootLog, "utf8").trim().split("\n").at(-1) : "";
  return new SkeinError("internal", `host ${host.name} did not start: ${why || "no message"}`, {
    hint: `see ${bootLog}`,
  });
}

/** The words that run a command inside a host. */
export function inside(state: HostState, command: readonly string[]): string[] {
  return ["nsenter", "-t", String(state.init.pid), "--mount", "--root", "--uts", "--net", "--pid", "--", ...command];
}

/** A registry inside the lab may be without TLS. */
function registries({ subnet, mirror }: HostSpec): string[] {
  return ["--insecure-registry", subnet, ...(mirror ? ["--registry-mirror", mirror] : [])];
}

/** How a host's `skeind` is called. The script becomes the daemon: its process stays the same. */
export function daemonCommand(host: HostSpec): string[] {
  return [
    join(root, "bin/skeind"),
    "--host",
    `unix://${host.socket}`,
    "--data-root",
    host.stateDir,
    "--run-dir",
    host.runDir,
    "--cgroup-parent",
    host.cgroup,
    ...registries(host),
  ];
}

/** How the real Docker Engine is called in a host. */
function dockerdCommand(host: HostSpec): string[] {
  const dockerd = ["/usr/sbin/dockerd", "/usr/bin/dockerd"].find((path) => existsSync(path));
  if (!dockerd) {
    throw new SkeinError("notFound", "there is no dockerd on this machine", { hint: "apt-get install docker.io" });
  }
  const dirs = ["--data-root", `${host.stateDir}/docker`, "--exec-root", `${host.runDir}/docker`];
  const parent = ["--cgroup-parent", host.cgroup, "--pidfile", `${host.runDir}/dockerd.pid`];
  return [dockerd, "--host", `unix://${host.socket}`, ...dirs, ...parent, ...registries(host)];
}

/** Starts the engine of a host and waits until it answers. */
export async function startDaemon(
  host: HostSpec,
  state: HostState,
  engine: EngineKind = "skeind",
  clock: Clock = systemClock,
): Promise<HostState> {
  const command = engine === "dockerd" ? dockerdCommand(host) : [...clockWords(host), ...daemonCommand(host)];
  const outer = startDetached(inside(state, command), host.logFile);
  // Ours takes one second; on a machine that stalls it is not given up. The real engine in a swarm answers when it has
  // found a manager, or after 20 s without one.
  const deadline = clock.now() + (engine === "dockerd" ? 60_000 : 30_000) * patience;
  for (;;) {
    const pid = childrenOf(outer.pid)[0];
    const daemon = pid === undefined ? undefined : processRef(pid);
    if (daemon && (await answers(host.socket))) return { ...state, daemon };
    if (!isAlive(outer) || clock.now() > deadline) {
      const why = existsSync(host.logFile)
        ? readFileSync(host.logFile, "utf8").trim().split("\n").slice(-3).join("\n")
        : "";
      throw new SkeinError("internal", `${engine} on ${host.name} did not come up: ${why}`, {
        hint: `see ${host.logFile}`,
      });
    }
    await sleep(clock, 15);
  }
}

/** Whether an engine answers on a socket. */
export function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const ping = request({ socketPath, path: "/_ping", timeout: 2000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    ping.on("error", () => resolve(false));
    ping.on("timeout", () => ping.destroy());
    ping.end();
  });
}

/** Ends everything in a host. */
export async function stopHost(state: HostState): Promise<void> {
  await end(state.init, "SIGKILL", 10_000);
  await end(state.holder, "SIGKILL", 2000);
}
