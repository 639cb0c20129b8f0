/** Files of containers as tar streams: `docker cp`, `export`, `diff`. */
import { notImplemented } from "../../base/errors.ts";
import type { EngineContext } from "../context.ts";
import type { Containers } from "../types.ts";

export function archives(
  ctx: EngineContext,
): Pick<Containers, "export" | "changes" | "archiveStat" | "archiveGet" | "archivePut"> {
  const known = (ref: string) => ctx.registry.get(ref);
  return {
    async export(ref) {
      known(ref);
      throw notImplemented("container export");
    },
    async changes(ref) {
      known(ref);
      throw notImplemented("container diff");
    },
    async archiveStat(ref) {
      known(ref);
      throw notImplemented("docker cp");
    },
    async archiveGet(ref) {
      known(ref);
      throw notImplemented("docker cp");
    },
    async archivePut(ref) {
      known(ref);
      throw notImplemented("docker cp");
    },
  };
}
