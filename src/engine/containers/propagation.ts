/** A bind mount can spread mounts only as far as the host's own mount does: Docker refuses what could not work. */
import { readFileSync, realpathSync } from "node:fs";
import { invalid } from "../../base/errors.ts";
import type { MountPoint } from "./record.ts";

/** The mount that a path lies on, and its optional fields ("shared:1 master:2"). `table`: /proc/self/mountinfo. */
export function mountOf(path: string, table: string): { at: string; fields: string } {
  let best = { at: "", fields: "" };
  for (const line of table.split("\n")) {
    const words = line.split(" ");
    const at = (words[4] ?? "").replace(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    const holds = at === "/" || path === at || path.startsWith(`${at}/`);
    // The last of equals is the one on top.
    if (at !== "" && holds && at.length >= best.at.length) {
      best = { at, fields: words.slice(6, words.indexOf("-")).join(" ") };
    }
  }
  return best;
}

export function checkPropagation(mounts: readonly MountPoint[]): void {
  for (const { type, source, propagation } of mounts) {
    const shared = propagation === "shared" || propagation === "rshared";
    const slave = propagation === "slave" || propagation === "rslave";
    if (type !== "bind" || (!shared && !slave)) continue;
    const { at, fields } = mountOf(realpathSync(source), readFileSync("/proc/self/mountinfo", "utf8"));
    if (/\bshared:/.test(fields) || (slave && /\bmaster:/.test(fields))) continue;
    throw invalid(`path ${source} is mounted on ${at} but it is not a shared${slave ? " or slave" : ""} mount`);
  }
}
