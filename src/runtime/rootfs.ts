/**
 * Looks into a container's root file system without mounting it: the mounts that the snapshotter gives name
 * the overlay's layers, and a file is that of the topmost layer that has it or has whited it out.
 */
import { lstatSync, readFileSync, readlinkSync } from "node:fs";
import { errnoOf } from "../base/errors.ts";
import { extendedAttribute } from "./libc.ts";

export interface SnapshotMount {
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** Directories of the layers, topmost first. */
export function layersOf(mounts: readonly SnapshotMount[]): string[] {
  const mount = mounts[0];
  if (!mount) return [];
  if (mount.type !== "overlay") return [mount.source];
  const option = (name: string) => mount.options.find((o) => o.startsWith(`${name}=`))?.slice(name.length + 1);
  const upper = option("upperdir");
  return [...(upper ? [upper] : []), ...(option("lowerdir") ?? "").split(":").filter(Boolean)];
}

const maxLinks = 40;
/** Account files are small; a hostile image shall not make us read a disk. */
const maxSize = 4 * 1024 * 1024;

/** The text of a regular file in the merged layers, or undefined. Symbolic links never lead out of the root. */
export function readInLayers(layers: readonly string[], path: string): string | undefined {
  let todo = path.split("/").filter(Boolean);
  let at: string[] = [];
  let links = 0;
  while (todo.length > 0) {
    const [name = "", ...rest] = todo;
    todo = rest;
    if (name === "." || name === "") continue;
    if (name === "..") {
      at = at.slice(0, -1);
      continue;
    }
    const found = lookup(layers, [...at, name]);
    if (!found) return undefined;
    const stat = lstatSync(found);
    if (stat.isSymbolicLink()) {
      if (++links > maxLinks) return undefined;
      const target = readlinkSync(found);
      if (target.startsWith("/")) at = [];
      todo = [...target.split("/").filter(Boolean), ...todo];
      continue;
    }
    if (todo.length === 0) return stat.isFile() && stat.size <= maxSize ? readFileSync(found, "utf8") : undefined;
    if (!stat.isDirectory()) return undefined;
    at = [...at, name];
  }
  return undefined;
}

/** Where the topmost entry for a link-free path lies. Each parent must not be replaced or hidden on the way down. */
export function lookup(layers: readonly string[], parts: readonly string[]): string | undefined {
  for (const layer of layers) {
    let current = layer;
    let state: "found" | "absent" | "hidden" = "found";
    for (const [index, part] of parts.entries()) {
      current = `${current}/${part}`;
      const stat = statOf(current);
      if (!stat) {
        // An opaque directory hides what lower layers have below it.
        state = index > 0 && isOpaque(current.slice(0, current.lastIndexOf("/"))) ? "hidden" : "absent";
        break;
      }
      if (stat.isCharacterDevice() && stat.rdev === 0) return undefined;
      if (index < parts.length - 1 && !stat.isDirectory()) return undefined;
    }
    if (state === "found") return current;
    if (state === "hidden") return undefined;
  }
  return undefined;
}

function statOf(path: string) {
  try {
    return lstatSync(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

const isOpaque = (dir: string): boolean => extendedAttribute(dir, "trusted.overlay.opaque") === "y";
