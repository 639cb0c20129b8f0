/**
 * Kernel settings by their dotted name. `/proc/sys/net` shows the namespace of the thread that opens the file,
 * hence the visit to the namespace around it.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { errnoOf } from "../base/errors.ts";
import { KernelError } from "./error.ts";
import type { NetNs } from "./types.ts";

/** Dots separate; a device name with dots is written with slashes instead ("net.ipv4.conf.eth0/1.rp_filter"). */
function pathOf(key: string): string {
  const path = key.replaceAll(/[./]/g, (c) => (c === "." ? "/" : "."));
  if (!/^[\w/.@:-]+$/.test(path) || path.split("/").includes("..")) {
    throw new KernelError("EINVAL", `sysctl ${key}`, "no such setting");
  }
  return `/proc/sys/${path}`;
}

function inside<T>(key: string, ns: NetNs | undefined, fn: (path: string) => T): T {
  const path = pathOf(key);
  try {
    return ns ? ns.run(() => fn(path)) : fn(path);
  } catch (error) {
    const code = errnoOf(error);
    if (code === undefined || error instanceof KernelError) throw error;
    throw new KernelError(code, `sysctl ${key}`);
  }
}

/** The value without its newline. ENOENT when the kernel has no such setting. */
export function readSysctl(key: string, ns?: NetNs): string {
  return inside(key, ns, (path) => readFileSync(path, "utf8").trimEnd());
}

export function writeSysctl(key: string, value: string | number, ns?: NetNs): void {
  inside(key, ns, (path) => writeFileSync(path, String(value)));
}
