/** `docker volume`. */
import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { notImplemented } from "../../base/errors.ts";
import { volumeUsers } from "../containers/remove.ts";
import type { EngineContext } from "../context.ts";
import { emitPrune } from "../events.ts";
import { exact, flag, knownFilters, labels, pattern, withoutLabels } from "../filters.ts";
import type { Json, Volumes } from "../types.ts";
import type { Volume } from "./store.ts";

export function volumeDocument(volume: Volume): Json {
  return {
    CreatedAt: volume.created.replace(/\.\d+Z$/, "Z"),
    Driver: "local",
    Labels: Object.keys(volume.labels).length ? volume.labels : null,
    Mountpoint: volume.path,
    Name: volume.name,
    Options: Object.keys(volume.options).length ? volume.options : null,
    Scope: "local",
  };
}

/** Bytes of everything below a directory; what vanishes meanwhile counts nothing. */
export function treeSize(path: string): number {
  let total = 0;
  try {
    const stat = lstatSync(path);
    if (!stat.isDirectory()) return stat.size;
    for (const name of readdirSync(path)) total += treeSize(join(path, name));
  } catch {
    return total;
  }
  return total;
}

export function createVolumes(ctx: EngineContext): Volumes {
  const emit = (action: string, name: string) =>
    ctx.events.emit({ type: "volume", action, id: name, attributes: { driver: "local" } });
  return {
    async create(request) {
      if (request.ClusterVolumeSpec) throw notImplemented("cluster volumes");
      const { volume, made } = ctx.volumes.create({
        name: request.Name,
        driver: request.Driver,
        labels: request.Labels,
        options: request.DriverOpts,
      });
      if (made) emit("create", volume.name);
      return volumeDocument(volume);
    },
    async list(filters) {
      knownFilters(filters, ["dangling", "driver", "label", "name"]);
      const dangling = flag(filters, "dangling");
      const Volumes = ctx.volumes
        .all()
        .filter(
          (volume) =>
            pattern(filters, "name", volume.name) &&
            exact(filters, "driver", "local") &&
            labels(filters, volume.labels) &&
            (dangling === undefined || dangling === (volumeUsers(ctx, volume.name).length === 0)),
        )
        .map(volumeDocument);
      return { Volumes, Warnings: null };
    },
    async inspect(name) {
      return volumeDocument(ctx.volumes.get(name));
    },
    async remove(name, force) {
      if (ctx.volumes.remove(name, volumeUsers(ctx, name), force)) emit("destroy", name);
    },
    async prune(filters) {
      knownFilters(filters, ["all", "label", "label!"]);
      const all = flag(filters, "all") ?? false;
      const VolumesDeleted: string[] = [];
      let SpaceReclaimed = 0;
      for (const volume of ctx.volumes.all()) {
        if ((!all && !volume.anonymous) || volumeUsers(ctx, volume.name).length > 0) continue;
        if (!labels(filters, volume.labels) || !withoutLabels(filters, volume.labels)) continue;
        SpaceReclaimed += treeSize(volume.path);
        if (ctx.volumes.remove(volume.name, [], true)) emit("destroy", volume.name);
        VolumesDeleted.push(volume.name);
      }
      emitPrune(ctx, "volume", SpaceReclaimed);
      return { VolumesDeleted, SpaceReclaimed };
    },
  };
}
