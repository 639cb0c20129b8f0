/**
 * This machine's IPv4 forwarding while labs are up. The first lab notes what it was, the last one gives it back; in
 * between, a lab that goes must not take it from the others.
 */
import { globSync, rmSync } from "node:fs";
import { readFileIfAny, writeFileAtomic } from "../base/file.ts";
import { readSysctl, writeSysctl } from "../kernel/sysctl.ts";

export const forwardingKey = "net.ipv4.ip_forward";
const note = "/run/skein/forwarding";

/** Switches forwarding on for a lab. */
export function holdForwarding(): void {
  if (readFileIfAny(note) === undefined) writeFileAtomic(note, readSysctl(forwardingKey).trim(), 0o644);
  writeSysctl(forwardingKey, "1");
}

/** Gives it back when no lab but the named one is there. */
export function releaseForwarding(lab: string): void {
  const others = globSync("/run/skein/*/lab.json").filter((path) => path !== `/run/skein/${lab}/lab.json`);
  const before = readFileIfAny(note);
  if (others.length > 0 || before === undefined) return;
  if (before === "0" || before === "1") writeSysctl(forwardingKey, before);
  rmSync(note);
}
