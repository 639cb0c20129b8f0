/** Which capabilities a container gets. */
import { readFileSync } from "node:fs";
import { invalid } from "../../base/errors.ts";

/** In the kernel's order: bit n is entry n. */
const all = `CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE
SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`
  .split(/\s+/)
  .map((name) => `CAP_${name}`);

/** What Docker gives a container that asks for nothing. */
export const defaultCapabilities: readonly string[] = `CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID
SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE`
  .split(/\s+/)
  .map((name) => `CAP_${name}`);

let known: string[] | undefined;

/** Capabilities this kernel has and this process may give away. */
export function kernelCapabilities(): string[] {
  if (known) return known;
  const bounding = /^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "0";
  const bits = BigInt(`0x${bounding}`);
  known = all.filter((_, index) => (bits >> BigInt(index)) & 1n);
  return known;
}

function normalise(name: string): string {
  const upper = name.trim().toUpperCase();
  if (upper === "ALL") return "ALL";
  const full = upper.startsWith("CAP_") ? upper : `CAP_${upper}`;
  if (!all.includes(full)) throw invalid(`invalid capability: "${name}"`);
  return full;
}

/** Docker's meaning of --cap-add and --cap-drop: "ALL" on one side makes the other side the exceptions. */
export function capabilitiesFor(
  add: readonly string[] = [],
  drop: readonly string[] = [],
  available: readonly string[] = kernelCapabilities(),
): string[] {
  const adds = add.map(normalise);
  const drops = drop.map(normalise);
  for (const name of [...adds, ...drops]) {
    if (name !== "ALL" && !available.includes(name)) throw invalid(`capability not supported by kernel: "${name}"`);
  }
  const base = adds.includes("ALL")
    ? available.filter((name) => !drops.includes(name))
    : drops.includes("ALL")
      ? []
      : defaultCapabilities.filter((name) => !drops.includes(name) && available.includes(name));
  return [...new Set([...base, ...adds.filter((name) => name !== "ALL")])];
}
