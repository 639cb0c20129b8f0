/**
 * Volumes that are mounts themselves (`volume create --opt type=… --opt device=… --opt o=…`): mounted when the first
 * container that has one starts, unmounted when the last one ends. The kernel's own list says what is mounted, so that a
 * daemon that was killed finds it again.
 */
import { readFileSync } from "node:fs";
import { invalid, messageOf, SkeinError } from "../../base/errors.ts";
import { mountWith, unmount } from "../../kernel/mount.ts";
import type { Container } from "../containers/container.ts";
import type { EngineContext } from "../context.ts";
import type { Volume } from "./store.ts";

/** What each option needs beside it. */
const needs: Record<string, readonly string[]> = { type: ["device"], device: ["type"], o: ["device", "type"] };

/** Refuses options of the local driver in Docker's words. */
export function verifyOptions(volume: string, options: Readonly<Record<string, string>>): void {
  const refuse = (why: string) => invalid(`create ${volume}: ${why}`);
  if (options.size !== undefined) throw refuse("quota size requested but no quota support");
  for (const name of Object.keys(options)) {
    const required = Object.hasOwn(needs, name) ? needs[name] : undefined;
    if (!required) throw refuse(`invalid option: ${JSON.stringify(name)}`);
    const missing = required.find((other) => options[other] === undefined);
    if (missing) throw refuse(`missing required option: ${JSON.stringify(missing)}`);
  }
}

const isMounted = (path: string): boolean =>
  readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .some((line) => line.split(" ")[4]?.replaceAll("\\040", " ") === path);

const mountable = (ctx: EngineContext, container: Container): Volume[] =>
  container.record.mounts.flatMap((mount) => {
    const volume = mount.type === "volume" ? ctx.volumes.find(mount.name) : undefined;
    return volume?.options.type ? [volume] : [];
  });

/** Mounts what the container needs. Throws Docker's words, with nothing of it left mounted. */
export function mountVolumes(ctx: EngineContext, container: Container): void {
  for (const { path, options } of mountable(ctx, container)) {
    if (isMounted(path)) continue;
    const { type = "", device = "", o = "" } = options;
    try {
      mountWith(type, device, path, o.split(",").filter(Boolean));
    } catch (error) {
      unmountVolumes(ctx, container);
      throw new SkeinError(
        "internal",
        `error while mounting volume '${path}': failed to mount local volume: mount ${device}:${path}, data: ${o}: ${messageOf(error)}`,
        { cause: error },
      );
    }
  }
}

/** Tells that the volumes of a container are in its reach now, or no longer. */
export function tellVolumes(ctx: EngineContext, { record }: Container, action: "mount" | "unmount"): void {
  for (const { type, name, target, propagation, rw } of record.mounts) {
    if (type !== "volume") continue;
    const where = { destination: target, propagation, "read/write": String(rw) };
    const attributes = { container: record.id, driver: "local", ...(action === "mount" && where) };
    ctx.events.emit({ type: "volume", action, id: name, attributes });
  }
}

/** Unmounts what no running container has. Call it when this one does not run. */
export function unmountVolumes(ctx: EngineContext, container: Container): void {
  for (const volume of mountable(ctx, container)) {
    const used = ctx.registry
      .all()
      .some((other) => other !== container && other.up && mountable(ctx, other).includes(volume));
    if (!used) unmount(volume.path);
  }
}

/** Before the files of a volume are removed: never those behind a mount. */
export function detach(volume: Volume): void {
  if (!volume.options.type) return;
  unmount(volume.path);
  if (isMounted(volume.path))
    throw new SkeinError("internal", `remove ${volume.name}: ${volume.path} is still mounted`);
}
