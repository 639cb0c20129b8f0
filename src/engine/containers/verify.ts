/**
 * Refuses what a container cannot have. Two kinds: wrong input, in Docker's words (400), and options that Skein does not
 * do (501, by name): an option that would change behaviour is never ignored.
 */
import { invalid, notImplemented } from "../../base/errors.ts";
import type { ContainerConfig, HostConfig } from "../shapes.ts";
import { portBindings } from "./ports.ts";
import { checkRestartPolicy } from "./restart.ts";
import { parseSignal } from "./signals.ts";

const MIN_MEMORY = 6 * 1024 * 1024;

export function verifyConfig(config: ContainerConfig, host: HostConfig): void {
  if (config.WorkingDir && !config.WorkingDir.startsWith("/")) {
    throw invalid(`the working directory '${config.WorkingDir}' is invalid, it needs to be an absolute path`);
  }
  for (const variable of config.Env) {
    if (variable === "" || variable.startsWith("=")) throw invalid(`invalid environment variable: ${variable}`);
  }
  if (config.StopSignal) parseSignal(config.StopSignal);
  verifyHealthcheck(config.Healthcheck);
  verifyHost(config, host);
  refuseUnsupported(host);
  if (config.NetworkDisabled) throw notImplemented("NetworkDisabled; use --network none");
  if (config.OnBuild?.length) throw notImplemented("OnBuild in a container's configuration");
}

function verifyHealthcheck(health: ContainerConfig["Healthcheck"]): void {
  if (!health) return;
  const least = 1_000_000;
  for (const name of ["Interval", "Timeout", "StartPeriod", "StartInterval"] as const) {
    if (health[name] !== 0 && health[name] < least) {
      throw invalid(`${name} in Healthcheck cannot be less than one millisecond`);
    }
  }
  if (health.Retries < 0) throw invalid("Retries in Healthcheck cannot be negative");
}

function verifyHost(config: ContainerConfig, host: HostConfig): void {
  checkRestartPolicy(host.RestartPolicy);
  if (host.AutoRemove && !["", "no"].includes(host.RestartPolicy.Name)) {
    throw invalid("can't create 'AutoRemove' container with restart policy");
  }
  if (host.Memory !== 0 && host.Memory < MIN_MEMORY) throw invalid("Minimum memory limit allowed is 6MB");
  if (host.Memory > 0 && host.MemorySwap > 0 && host.MemorySwap < host.Memory) {
    throw invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
  }
  if (host.Memory === 0 && host.MemorySwap > 0) {
    throw invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
  }
  if (host.Memory > 0 && host.MemoryReservation > host.Memory) {
    throw invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
  }
  if (host.NanoCpus < 0) throw invalid("NanoCPUs cannot be negative");
  if (host.NanoCpus > 0 && (host.CpuPeriod > 0 || host.CpuQuota > 0)) {
    throw invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set.");
  }
  if (host.CpuShares < 0) throw invalid(`invalid CPU shares (${host.CpuShares}): value must be a positive integer`);
  if (host.CpuPeriod !== 0 && (host.CpuPeriod < 1000 || host.CpuPeriod > 1_000_000)) {
    throw invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
  }
  if (host.CpuQuota > 0 && host.CpuQuota < 1000) throw invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
  if (host.BlkioWeight !== 0 && (host.BlkioWeight < 10 || host.BlkioWeight > 1000)) {
    throw invalid("Range of blkio weight is from 10 to 1000");
  }
  if (host.OomScoreAdj < -1000 || host.OomScoreAdj > 1000) {
    throw invalid(`Invalid value ${host.OomScoreAdj}, range for oom score adj is [-1000, 1000]`);
  }
  if (host.ShmSize < 0) throw invalid("SHM size can not be less than 0");
  for (const { Name, Hard, Soft } of host.Ulimits) {
    if (Hard !== -1 && Soft > Hard)
      throw invalid(`ulimit soft limit must be less than or equal to hard limit: ${Soft} > ${Hard} (${Name})`);
  }
  for (const entry of host.ExtraHosts) {
    if (!/^[^:=]+[:=].+$/.test(entry)) throw invalid(`bad format for add-host: ${JSON.stringify(entry)}`);
  }
  const mode = host.NetworkMode;
  const shared = mode.startsWith("container:") || mode === "host";
  if (mode.startsWith("container:")) {
    if (config.Hostname) throw invalid("conflicting options: hostname and the network mode");
    if (host.Dns.length) throw invalid("conflicting options: dns and the network mode");
    if (host.ExtraHosts.length) throw invalid("conflicting options: custom host-to-IP mapping and the network mode");
    if (Object.keys(host.PortBindings).length || host.PublishAllPorts) {
      throw invalid("conflicting options: port publishing and the container type network mode");
    }
    if (Object.keys(config.ExposedPorts).length) {
      throw invalid("conflicting options: port exposing and the container type network mode");
    }
  }
  if (!shared) portBindings(config, host);
  if (host.Links.length && shared) throw invalid("conflicting options: links and the network mode");
  verifyLog(host.LogConfig);
}

function verifyLog(log: HostConfig["LogConfig"]): void {
  const known: Record<string, readonly string[]> = {
    "json-file": [
      "max-size",
      "max-file",
      "compress",
      "labels",
      "labels-regex",
      "env",
      "env-regex",
      "tag",
      "mode",
      "max-buffer-size",
    ],
    local: ["max-size", "max-file", "compress", "mode", "max-buffer-size"],
    none: [],
  };
  const type = log.Type || "json-file";
  const options = known[type];
  if (!options) throw invalid(`logger: no log driver named '${type}' is registered`);
  for (const [name, value] of Object.entries(log.Config)) {
    if (!options.includes(name)) throw invalid(`unknown log opt '${name}' for ${type} log driver`);
    if (name === "mode" && value !== "blocking") throw notImplemented(`log opt mode=${value}`);
    if (
      ["labels", "labels-regex", "env", "env-regex", "tag", "compress"].includes(name) &&
      value !== "" &&
      value !== "false"
    ) {
      throw notImplemented(`log opt ${name}`);
    }
  }
  if (log.Config["max-size"]) parseSize(log.Config["max-size"]);
  const files = log.Config["max-file"];
  if (files !== undefined && !(Number(files) >= 1 && Number.isInteger(Number(files)))) {
    throw invalid("max-file cannot be less than 1");
  }
}

/** "10m" in bytes; throws Docker's words. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?([kmgtp])?i?b?$/i.exec(text.trim());
  if (!match?.[1]) throw invalid(`invalid size: '${text}'`);
  const power = " kmgtp".indexOf((match[2] ?? " ").toLowerCase());
  return Math.floor(Number(match[1]) * 1024 ** power);
}

function refuseUnsupported(host: HostConfig): void {
  const refuse = (on: boolean, what: string) => {
    if (on) throw notImplemented(what);
  };
  for (const name of [
    "BlkioWeightDevice",
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "DeviceRequests",
    "Links",
  ] as const) {
    refuse(host[name].length > 0, name);
  }
  for (const name of [
    "CpuRealtimePeriod",
    "CpuRealtimeRuntime",
    "KernelMemory",
    "KernelMemoryTCP",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
  ] as const) {
    refuse(host[name] !== 0, name);
  }
  refuse(host.MemorySwappiness !== undefined && host.MemorySwappiness !== -1, "MemorySwappiness");
  refuse(Object.keys(host.StorageOpt).length > 0, "StorageOpt");
  refuse(Object.keys(host.Annotations).length > 0, "Annotations");
  refuse(host.MaskedPaths !== undefined, "MaskedPaths (systempaths=unconfined)");
  refuse(host.ReadonlyPaths !== undefined, "ReadonlyPaths (systempaths=unconfined)");
  refuse(!["", "host"].includes(host.UsernsMode), `UsernsMode ${host.UsernsMode}`);
  refuse(!["", "host", "private"].includes(host.CgroupnsMode), `CgroupnsMode ${host.CgroupnsMode}`);
  refuse(!["", "default"].includes(host.Isolation), `Isolation ${host.Isolation}`);
  refuse(!["", "local"].includes(host.VolumeDriver), `volume driver ${host.VolumeDriver}`);
  if (!["", "runc", "io.containerd.runc.v2"].includes(host.Runtime)) {
    throw invalid(`unknown or invalid runtime name: ${host.Runtime}`);
  }
  if (!["", "private", "none", "host", "shareable"].includes(host.IpcMode) && !host.IpcMode.startsWith("container:")) {
    throw invalid(`invalid IPC mode: ${host.IpcMode}`);
  }
  if (!["", "private", "host"].includes(host.PidMode) && !host.PidMode.startsWith("container:")) {
    throw invalid("invalid PID mode");
  }
  if (!["", "private", "host"].includes(host.UTSMode)) throw invalid("invalid UTS mode");
  securityOptions(host.SecurityOpt);
}

export interface SecurityOptions {
  readonly noNewPrivileges: boolean;
  readonly seccompUnconfined: boolean;
  readonly seccompProfile: string | undefined;
}

export function securityOptions(options: readonly string[]): SecurityOptions {
  const result = { noNewPrivileges: false, seccompUnconfined: false, seccompProfile: undefined as string | undefined };
  for (const option of options) {
    const [, key = option, value = ""] = /^([^=:]+)[=:]([\s\S]*)$/.exec(option) ?? [];
    switch (key) {
      case "no-new-privileges":
        if (!["", "true", "false"].includes(value)) throw invalid(`invalid --security-opt: ${JSON.stringify(option)}`);
        result.noNewPrivileges = value !== "false";
        break;
      case "seccomp":
        result.seccompUnconfined = value === "unconfined";
        result.seccompProfile = ["unconfined", "builtin"].includes(value) ? undefined : value;
        break;
      case "apparmor":
        // There is no profile of ours to leave: unconfined is what a container gets.
        if (value !== "unconfined") throw notImplemented(`--security-opt apparmor=${value}`);
        break;
      case "label":
        if (value !== "disable") throw notImplemented(`--security-opt label=${value}`);
        break;
      default:
        throw invalid(`invalid --security-opt 2: ${JSON.stringify(option)}`);
    }
  }
  return result;
}
