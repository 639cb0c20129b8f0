/**
 * What a container changed on its root file system (`docker diff`), read from the overlay's layers: the uppermost is the
 * container's own, a device 0/0 in it hides what is below, an opaque directory hides all below it.
 */
import type { Stats } from "node:fs";
import { lstat, readdir } from "node:fs/promises";
import { errnoOf } from "../base/errors.ts";
import { extendedAttribute } from "./libc.ts";
import { lookup } from "./rootfs.ts";
import type { FileChange } from "./types.ts";

/** Made in every container for its mounts; Docker hides them in a layer of their own. */
const scaffold = new Set([
  "/.dockerenv",
  "/dev",
  "/dev/console",
  "/dev/pts",
  "/dev/shm",
  "/etc/hostname",
  "/etc/hosts",
  "/etc/mtab",
  "/etc/resolv.conf",
  "/proc",
  "/sys",
  "/etc",
]);

/** `layers` as of `layersOf`: the container's own first. Sorted by path; a directory with changes below is one itself. */
export async function changesOf(layers: readonly string[]): Promise<FileChange[]> {
  const [upper, ...lower] = layers;
  if (upper === undefined) return [];
  const found = new Map<string, FileChange["kind"]>();
  await walk(upper, lower, [], found);
  for (const path of [...found.keys()]) {
    for (let slash = path.lastIndexOf("/"); slash > 0; slash = path.lastIndexOf("/", slash - 1)) {
      const parent = path.slice(0, slash);
      if (!found.has(parent)) found.set(parent, "modified");
    }
  }
  return [...found]
    .map(([path, kind]) => ({ path, kind }))
    .sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}

async function walk(
  upper: string,
  lower: readonly string[],
  at: readonly string[],
  found: Map<string, FileChange["kind"]>,
): Promise<void> {
  for (const name of await entries(`${upper}/${at.join("/")}`)) {
    const parts = [...at, name];
    const path = `/${parts.join("/")}`;
    const here = await statIfAny(`${upper}${path}`);
    if (!here) continue;
    const belowPath = lookup(lower, parts);
    const below = belowPath === undefined ? undefined : await statIfAny(belowPath);
    if (here.isCharacterDevice() && here.rdev === 0) {
      if (below) found.set(path, "deleted");
      continue;
    }
    if (!below) {
      if (!scaffold.has(path)) found.set(path, "added");
    } else if (!(here.isDirectory() && below.isDirectory() && sameOwner(here, below))) {
      found.set(path, "modified");
    }
    if (!here.isDirectory()) continue;
    if (below?.isDirectory() && belowPath !== undefined && isOpaque(`${upper}${path}`)) {
      const kept = new Set(await entries(`${upper}${path}`));
      for (const gone of await entries(belowPath)) if (!kept.has(gone)) found.set(`${path}/${gone}`, "deleted");
    }
    await walk(upper, lower, parts, found);
  }
}

/** A directory's time changes with its entries, which tell for themselves. */
const sameOwner = (a: Stats, b: Stats): boolean => a.mode === b.mode && a.uid === b.uid && a.gid === b.gid;

const isOpaque = (dir: string): boolean => extendedAttribute(dir, "trusted.overlay.opaque") === "y";

async function entries(dir: string): Promise<string[]> {
  try {
    return await readdir(dir);
  } catch (error) {
    // A process in the container may remove what we are about to read.
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return [];
    throw error;
  }
}

async function statIfAny(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
}
