/**
 * Refuses what a container cannot have. Two kinds: wrong input, in Docker's words (400), and options that Skein does not
 * do (501, by name): an option that would change behaviour is never ignored.
 */
import { invalid, notImplemented } from "../../base/errors.ts";
import { verifyLogAttributes } from "../logs/attributes.ts";
import type { ContainerConfig, HostConfig } from "../shapes.ts";
import { verifyLimits } from "./limits.ts";
import { portBindings } from "./ports.ts";
import { checkRestartPolicy } from "./restart.ts";
import { parseSignal } from "./signals.ts";

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
  verifyLimits(host);
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
  if (config.Hostname && host.UTSMode === "host") throw invalid("conflicting options: hostname and the UTS mode");
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
    if (name === "mode" && !["", "blocking", "non-blocking"].includes(value)) {
      throw invalid(`logger: logging mode not supported: ${value}`);
    }
  }
  verifyLogAttributes(log.Config);
  const buffer = log.Config["max-buffer-size"];
  if (buffer !== undefined) {
    if (log.Config.mode !== "non-blocking") {
      throw invalid("logger: 'max-buffer-size' log option is only supported with 'mode=non-blocking'");
    }
    parseSize(buffer);
  }
  if (log.Config["max-size"]) parseSize(log.Config["max-size"]);
  const files = log.Config["max-file"];
  if (files !== undefined && !(Number(files) >= 1 && Number.isInteger(Number(files)))) {
    throw invalid("max-file cannot be less than 1");
  }
  verifyCompression(type, log.Config);
}

/** Only files that are rotated away are compressed. */
function verifyCompression(type: string, config: Readonly<Record<string, string>>): void {
  const { compress = "" } = config;
  const on = compress === "" ? type === "local" : parseBool(compress);
  if (on === undefined) throw invalid(`strconv.ParseBool: parsing ${JSON.stringify(compress)}: invalid syntax`);
  if (!on) return;
  if (type === "local" && Number(config["max-file"] ?? 5) <= 1) {
    throw invalid("compression cannot be enabled when max file count is 1");
  }
  if (
    type === "json-file" &&
    (!config["max-size"] || config["max-size"] === "-1" || !(Number(config["max-file"]) > 1))
  ) {
    throw invalid("compress cannot be true when max-file is less than 2 or max-size is not set");
  }
}

/** As Go's strconv.ParseBool; undefined for what is neither. */
export function parseBool(text: string): boolean | undefined {
  if (["1", "t", "T", "TRUE", "true", "True"].includes(text)) return true;
  return ["0", "f", "F", "FALSE", "false", "False"].includes(text) ? false : undefined;
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
  const [device] = host.DeviceRequests;
  if (device) {
    const kinds = device.Capabilities.map((all) => `[${all.join(" ")}]`).join(" ");
    throw notImplemented(
      `DeviceRequests (--gpus): could not select device driver "${device.Driver}" with capabilities: [${kinds}]`,
    );
  }
  for (const name of [
    "KernelMemory",
    "KernelMemoryTCP",
    "CpuCount",
    "CpuPercent",
    "IOMaximumIOps",
    "IOMaximumBandwidth",
  ] as const) {
    refuse(host[name] !== 0, name);
  }
  refuse(Object.keys(host.StorageOpt).length > 0, "StorageOpt");
  refuse(!["", "host"].includes(host.UsernsMode), `UsernsMode ${host.UsernsMode}`);
  if (!["", "host", "private"].includes(host.CgroupnsMode)) {
    throw invalid(`invalid cgroup namespace mode: ${host.CgroupnsMode}`);
  }
  if (!["", "default"].includes(host.Isolation)) {
    throw invalid(`invalid isolation '${host.Isolation}' on linux`);
  }
  if (!["", "local"].includes(host.VolumeDriver)) {
    // 400, where Docker has 404: the command line would take that for a missing image.
    throw invalid(`error looking up volume plugin ${host.VolumeDriver}: plugin "${host.VolumeDriver}" not found`);
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
