/** Devices of a container: which nodes it has and which its cgroup lets it open. */
import { readdirSync, statSync } from "node:fs";
import { errnoOf, invalid, SkeinError } from "../../base/errors.ts";
import type { ContainerSpec } from "../types.ts";
import type { OciDevice, OciDeviceRule } from "./oci.ts";

const allow = (type: string, major: number, minor: number): OciDeviceRule => ({
  allow: true,
  type,
  major,
  minor,
  access: "rwm",
});

/** null, zero, urandom, random, tty, console; never fuse. runc adds pts and ptmx. */
const defaultRules: readonly OciDeviceRule[] = [
  { allow: false, access: "rwm" },
  allow("c", 1, 5),
  allow("c", 1, 3),
  allow("c", 1, 9),
  allow("c", 1, 8),
  allow("c", 5, 0),
  allow("c", 5, 1),
  { allow: false, type: "c", major: 10, minor: 229, access: "rwm" },
];

export function ociDevices(spec: ContainerSpec): { devices: OciDevice[]; rules: OciDeviceRule[] } {
  if (spec.privileged) return { devices: hostDevices("/dev"), rules: [{ allow: true, access: "rwm" }] };
  const devices: OciDevice[] = [];
  const rules = [...defaultRules];
  for (const wanted of spec.devices ?? []) {
    const found = devicesAt(wanted.pathOnHost, wanted.pathInContainer);
    devices.push(...found);
    for (const { type, major, minor } of found) {
      rules.push({ allow: true, type, major, minor, access: wanted.permissions || "rwm" });
    }
  }
  for (const rule of spec.deviceCgroupRules ?? []) rules.push(parseRule(rule));
  return { devices, rules };
}

/** Docker's `--device-cgroup-rule`: "c 42:* rmw". */
export function parseRule(text: string): OciDeviceRule {
  const match = /^([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})$/.exec(text);
  if (!match) throw invalid(`invalid device cgroup format '${text}'`);
  const [, type = "a", major, minor, access = "rwm"] = match;
  const rule: OciDeviceRule = { allow: true, type, access };
  if (major !== "*") rule.major = Number(major);
  if (minor !== "*") rule.minor = Number(minor);
  return rule;
}

/** One device, or all devices in a directory. */
function devicesAt(source: string, target: string): OciDevice[] {
  try {
    const device = deviceOf(source, target);
    if (device) return [device];
    if (statSync(source).isDirectory()) return hostDevices(source, target);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw new SkeinError(
      "internal",
      `error gathering device information while adding custom device "${source}": no such file or directory`,
    );
  }
  throw new SkeinError(
    "internal",
    `error gathering device information while adding custom device "${source}": not a device node`,
  );
}

/** The kernel's number of a device node; throws Docker's words where there is none. */
export function deviceNumber(path: string): { major: number; minor: number } {
  try {
    return numberOf(statSync(path, { bigint: true }).rdev);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw invalid(`failed to stat device ${path}: no such file or directory`);
  }
}

const numberOf = (rdev: bigint) => ({
  major: Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn)),
  minor: Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n)),
});

function deviceOf(source: string, target: string): OciDevice | undefined {
  const stat = statSync(source, { bigint: true });
  if (!stat.isCharacterDevice() && !stat.isBlockDevice()) return undefined;
  return {
    path: target,
    type: stat.isBlockDevice() ? "b" : "c",
    ...numberOf(stat.rdev),
    fileMode: Number(stat.mode & 0o7777n),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
  };
}

/** Directories of /dev that are the container's own, and its console. */
const skipped = new Set(["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"]);

function hostDevices(dir: string, target = dir): OciDevice[] {
  const devices: OciDevice[] = [];
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (skipped.has(entry.name) || entry.isSymbolicLink()) continue;
    const [from, to] = [`${dir}/${entry.name}`, `${target}/${entry.name}`];
    if (entry.isDirectory()) devices.push(...hostDevices(from, to));
    else if (entry.isCharacterDevice() || entry.isBlockDevice()) {
      const device = deviceOf(from, to);
      if (device) devices.push(device);
    }
  }
  return devices;
}
