/** Cgroups of the lab, on the hybrid layout (one tree per controller) and on the unified one. */
import { readdirSync, readFileSync, rmdirSync } from "node:fs";
import { errnoOf } from "../base/errors.ts";

const base = "/sys/fs/cgroup";

/** The roots of all cgroup trees of this machine. */
function roots(): string[] {
  return readFileSync("/proc/self/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .filter((fields) => (fields[2] === "cgroup" || fields[2] === "cgroup2") && fields[1]?.startsWith(base))
    .map((fields) => fields[1] ?? base);
}

function removeTree(path: string): void {
  let entries: string[];
  try {
    entries = readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return;
    throw error;
  }
  for (const entry of entries) removeTree(`${path}/${entry}`);
  try {
    rmdirSync(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT" && errnoOf(error) !== "EBUSY") throw error;
  }
}

/** Removes a cgroup and all below it from every tree; those with living processes stay. */
export function removeCgroup(name: string): void {
  for (const root of roots()) removeTree(`${root}/${name.replace(/^\//, "")}`);
}

/** Where a cgroup still exists. */
export function leftoverCgroups(name: string): string[] {
  return roots()
    .map((root) => `${root}/${name}`)
    .filter((path) => {
      try {
        readdirSync(path);
        return true;
      } catch {
        return false;
      }
    });
}
