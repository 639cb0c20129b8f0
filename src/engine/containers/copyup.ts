/** A fresh volume takes over what the image has at its place, owners and modes included. */
import { execFile } from "node:child_process";
import { lstatSync, readlinkSync } from "node:fs";
import { join, posix } from "node:path";
import { promisify } from "node:util";
import { errnoOf, invalid } from "../../base/errors.ts";
import type { EngineContext } from "../context.ts";
import type { ContainerRecord } from "./record.ts";

const run = promisify(execFile);
const MAX_LINKS = 40;

/**
 * The host path of a path inside a root file system. Links are followed as the container would follow them: an absolute
 * one starts at the root, ".." stops there. Parts that do not exist are kept as they are.
 */
export function resolveInRoot(root: string, path: string, options: { followLast?: boolean } = {}): string {
  let rest = path.split("/").filter(Boolean);
  let at: string[] = [];
  let links = 0;
  while (rest.length > 0) {
    const [part = "", ...after] = rest;
    rest = after;
    if (part === ".") continue;
    if (part === "..") {
      at = at.slice(0, -1);
      continue;
    }
    const here = join(root, ...at, part);
    if (rest.length === 0 && options.followLast === false) return here;
    let target: string | undefined;
    try {
      if (lstatSync(here).isSymbolicLink()) target = readlinkSync(here);
    } catch (error) {
      if (!["ENOENT", "ENOTDIR"].includes(errnoOf(error) ?? "")) throw error;
    }
    if (target === undefined) {
      at.push(part);
      continue;
    }
    if (++links > MAX_LINKS) throw invalid(`too many levels of symbolic links in ${path}`);
    if (posix.isAbsolute(target)) at = [];
    rest = [...target.split("/").filter(Boolean), ...rest];
  }
  return join(root, ...at);
}

export async function copyUp(ctx: EngineContext, record: ContainerRecord): Promise<void> {
  const fresh = record.mounts.filter((mount) => mount.copyUp);
  if (fresh.length === 0) return;
  await ctx.runtime.withRootfs(record.id, async (root) => {
    for (const mount of fresh) {
      const source = resolveInRoot(root, mount.target);
      const stat = lstatSync(source, { throwIfNoEntry: false });
      if (!stat?.isDirectory()) continue;
      await run("cp", ["-a", "--", `${source}/.`, mount.source]);
    }
  });
  for (const mount of fresh) mount.copyUp = false;
}
