/** `docker volume`. */
import { notImplemented } from "../../base/errors.ts";
import { layerSize } from "../../runtime/layer-size.ts";
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
        const size = await layerSize(volume.path);
        // Somebody may have come to use it meanwhile, or have been quicker.
        if (ctx.volumes.find(volume.name) !== volume || volumeUsers(ctx, volume.name).length > 0) continue;
        SpaceReclaimed += size;
        if (ctx.volumes.remove(volume.name, [], true)) emit("destroy", volume.name);
        VolumesDeleted.push(volume.name);
      }
      emitPrune(ctx, "volume", SpaceReclaimed);
      return { VolumesDeleted, SpaceReclaimed };
    },
  };
}
