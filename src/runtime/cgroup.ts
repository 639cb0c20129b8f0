/** Where containers' cgroups lie and what they tell; cgroup v1 (each controller its own tree) and v2. */
import { readdirSync, readFileSync, rmdirSync } from "node:fs";
import { errnoOf } from "../base/errors.ts";
import { readFileIfAny } from "../base/file.ts";

/** The directories that one cgroup path has: of the unified tree, or of each controller's. */
export interface CgroupTrees {
  readonly unified: boolean;
  /** Mount point per v1 controller, or the one of the unified tree under "". */
  readonly mounts: ReadonlyMap<string, string>;
  /** Every tree there is: runc makes a cgroup in each, also in a unified one beside v1. */
  readonly roots: readonly string[];
}

/** Reads /proc/self/mountinfo. With v1 controllers mounted, a unified tree beside them (hybrid) holds nothing. */
export function parseTrees(mountinfo: string): CgroupTrees {
  const v1 = new Map<string, string>();
  let unified: string | undefined;
  for (const line of mountinfo.split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const mountPoint = left.split(" ")[4];
    const [type, , options = ""] = right.split(" ");
    if (!mountPoint) continue;
    if (type === "cgroup2") unified ??= mountPoint;
    if (type !== "cgroup") continue;
    for (const option of options.split(",")) {
      if (option !== "rw" && option !== "ro" && !v1.has(option)) v1.set(option, mountPoint);
    }
  }
  const roots = [...new Set([...v1.values(), ...(unified === undefined ? [] : [unified])])];
  if (v1.has("memory") || v1.has("pids") || unified === undefined) return { unified: false, mounts: v1, roots };
  return { unified: true, mounts: new Map([["", unified]]), roots };
}

let trees: CgroupTrees | undefined;

export function cgroupTrees(): CgroupTrees {
  trees ??= parseTrees(readFileSync("/proc/self/mountinfo", "utf8"));
  return trees;
}

/** The directory of `path` for a controller, where that is mounted. */
export function cgroupDir(path: string, controller: string): string | undefined {
  const { unified, mounts } = cgroupTrees();
  const mountPoint = mounts.get(unified ? "" : controller);
  return mountPoint === undefined ? undefined : `${mountPoint}${path}`;
}

/** How often the kernel killed for want of memory in this cgroup. */
export function oomKills(path: string): number {
  const dir = cgroupDir(path, "memory");
  if (!dir) return 0;
  const file = cgroupTrees().unified ? "memory.events" : "memory.oom_control";
  const text = readFileIfAny(`${dir}/${file}`) ?? "";
  return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0);
}

/** Removes an empty cgroup, in all trees; with `deep` those below it first. What still has processes stays. */
export function removeCgroups(path: string, options: { deep?: boolean } = {}): void {
  for (const mountPoint of cgroupTrees().roots) {
    removeTree(`${mountPoint}${path}`, options.deep ?? false);
  }
}

function removeTree(dir: string, deep: boolean): void {
  try {
    for (const entry of deep ? readdirSync(dir, { withFileTypes: true }) : []) {
      if (entry.isDirectory()) removeTree(`${dir}/${entry.name}`, true);
    }
    rmdirSync(dir);
  } catch (error) {
    const code = errnoOf(error);
    if (code !== "ENOENT" && code !== "EBUSY" && code !== "ENOTEMPTY") throw error;
  }
}
