/** Where the files of a container come from: -v, --mount, --tmpfs, --volumes-from and the image's VOLUMEs. */
import { mkdirSync, statSync } from "node:fs";
import { posix } from "node:path";
import { errnoOf, invalid, notImplemented } from "../../base/errors.ts";
import type { Image } from "../../runtime/types.ts";
import type { ContainerConfig, HostConfig, MountSpec } from "../shapes.ts";
import type { Volume } from "../volumes/store.ts";
import type { MountPoint } from "./record.ts";

/** What the planning needs of the host. */
export interface MountHost {
  /** Creates or finds a volume; "" makes an anonymous one. */
  volume(request: {
    name: string;
    driver?: string;
    labels?: Record<string, string>;
    options?: Record<string, string>;
  }): Volume;
  isEmpty(volume: Volume): boolean;
  /** Mounts of another container, for --volumes-from. */
  mountsOf(ref: string): readonly MountPoint[];
  /** An image that is here, by any of its names. */
  image(ref: string): Image | undefined;
  /** The client is of a time when read-only mounts left what is mounted below them writable. */
  readonly flatReadOnly: boolean;
}

const PROPAGATION = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
const MODES = [...PROPAGATION, "ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent", "default"];

const point = (target: string, part: Partial<MountPoint>): MountPoint => ({
  type: "bind",
  name: "",
  image: "",
  source: "",
  target,
  mode: "",
  rw: true,
  below: "",
  propagation: "",
  options: [],
  anonymous: false,
  copyUp: false,
  fromMounts: false,
  subpath: "",
  ...part,
});

function checkTarget(target: string, spec: string): string {
  if (!posix.isAbsolute(target)) {
    throw invalid(
      `invalid volume specification: '${spec}': invalid mount config: mount path must be absolute: ${target}`,
    );
  }
  const clean = posix.normalize(target).replace(/(.)\/$/, "$1");
  if (clean === "/")
    throw invalid(`invalid volume specification: '${spec}': invalid specification: destination can't be '/'`);
  return clean;
}

function volumeMount(
  host: MountHost,
  volume: Volume,
  target: string,
  part: Partial<MountPoint> & { nocopy?: boolean },
): MountPoint {
  const { nocopy, ...rest } = part;
  return point(target, {
    type: "volume",
    name: volume.name,
    source: volume.path,
    anonymous: volume.anonymous,
    // What is mounted at the start would hide a copy.
    copyUp: !nocopy && !volume.options.type && host.isEmpty(volume),
    mode: "z",
    ...rest,
  });
}

/** "src:dst[:mode]" */
function parseBind(host: MountHost, spec: string, driver: string): MountPoint {
  const parts = spec.split(":");
  if (parts.length > 3 || parts.some((part) => part === "")) throw invalid(`invalid volume specification: '${spec}'`);
  const [first = "", second, third] = parts;
  const target = checkTarget(second ?? first, spec);
  const mode = third ?? "";
  const modes = mode.split(",").filter(Boolean);
  for (const word of modes) if (!MODES.includes(word)) throw invalid(`invalid mode: ${mode}`);
  const common = {
    mode,
    rw: !modes.includes("ro"),
    propagation: modes.find((word) => PROPAGATION.includes(word)) ?? "",
  };
  if (second === undefined) return volumeMount(host, host.volume({ name: "", driver }), target, {});
  if (!posix.isAbsolute(first)) {
    if (first.includes("/")) {
      throw invalid(
        `create ${first}: "${first}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. ` +
          "If you intended to pass a host directory, use absolute path",
      );
    }
    return volumeMount(host, host.volume({ name: first, driver }), target, {
      ...common,
      mode: mode || "z",
      nocopy: modes.includes("nocopy"),
    });
  }
  const source = posix.normalize(first);
  try {
    statSync(source);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    mkdirSync(source, { recursive: true });
  }
  const below = host.flatReadOnly && !common.rw ? "writable" : "";
  return point(target, { source, ...common, below, propagation: common.propagation || "rprivate" });
}

/** Whether a path stays below where it begins, by its text. */
function isLocal(path: string): boolean {
  const clean = posix.normalize(path);
  return !posix.isAbsolute(path) && clean !== ".." && !clean.startsWith("../") && !path.includes("\0");
}

function parseMount(host: MountHost, spec: MountSpec): MountPoint {
  const bad = (what: string) => invalid(`invalid mount config for type "${spec.Type}": ${what}`);
  if (spec.Target === "") throw bad("field Target must not be empty");
  if (!posix.isAbsolute(spec.Target)) throw bad(`invalid mount path: '${spec.Target}' mount path must be absolute`);
  const target = posix.normalize(spec.Target).replace(/(.)\/$/, "$1");
  if (target === "/") throw bad("invalid specification: destination can't be '/'");
  const common = { rw: !spec.ReadOnly, fromMounts: true };
  switch (spec.Type) {
    case "bind":
      return bindMount(host, spec, target, common, bad);
    case "volume": {
      const options = spec.VolumeOptions;
      const subpath = options?.Subpath ?? "";
      if (subpath !== "" && spec.Source === "") throw bad("must not set Subpath when using anonymous volumes");
      if (!isLocal(subpath)) throw bad("subpath must be a relative path within the volume");
      const volume = host.volume({
        name: spec.Source,
        ...(options?.DriverConfig?.Name && { driver: options.DriverConfig.Name }),
        ...(options?.DriverConfig && { options: options.DriverConfig.Options }),
        ...(options && { labels: options.Labels }),
      });
      // A part of a volume is somebody's already: nothing is copied into it.
      const nocopy = subpath !== "" || (options?.NoCopy ?? false);
      return volumeMount(host, volume, target, { ...common, nocopy, subpath });
    }
    case "tmpfs": {
      if (spec.Source !== "") throw bad("field Source must not be specified");
      const { SizeBytes = 0, Mode = 0, Options } = spec.TmpfsOptions ?? {};
      const options = (Options ?? []).map((pair) => pair.join("="));
      if (SizeBytes > 0) options.push(`size=${SizeBytes}`);
      if (Mode > 0) options.push(`mode=${Mode.toString(8)}`);
      return point(target, { type: "tmpfs", options, ...common });
    }
    case "image": {
      if (spec.Source === "") throw bad("field Source must not be empty");
      const subpath = spec.ImageOptions?.Subpath ?? "";
      if (!isLocal(subpath)) throw bad("subpath must be a relative path within the image");
      const image = host.image(spec.Source);
      // 400 and not 404, which the command line takes for a missing image of the container itself.
      if (!image) throw invalid(`No such image: ${spec.Source}`);
      if (image.layers.length === 0) throw bad(`image ${spec.Source} has no files`);
      return point(target, { type: "image", name: spec.Source, image: image.id, subpath, ...common, rw: false });
    }
    case "":
      throw bad("mount type unknown");
    default:
      throw notImplemented(`mounts of type ${spec.Type}`);
  }
}

function bindMount(
  host: MountHost,
  spec: MountSpec,
  target: string,
  common: { rw: boolean; fromMounts: boolean },
  bad: (what: string) => Error,
): MountPoint {
  if (spec.Source === "") throw bad("field Source must not be empty");
  if (!posix.isAbsolute(spec.Source)) throw bad(`invalid mount path: '${spec.Source}' mount path must be absolute`);
  const options = spec.BindOptions;
  if (options?.Propagation && !PROPAGATION.includes(options.Propagation)) {
    throw bad(`invalid propagation mode: ${options.Propagation}`);
  }
  const { ReadOnlyForceRecursive: always = false, ReadOnlyNonRecursive: never = false } = options ?? {};
  if (always && never) throw bad("options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive");
  if (always && !spec.ReadOnly) throw bad("options conflict: Writable && ReadOnlyForceRecursive");
  if (never && !spec.ReadOnly) throw bad("options conflict: Writable && ReadOnlyNonRecursive");
  const flat = never || (spec.ReadOnly && host.flatReadOnly);
  const source = posix.normalize(spec.Source);
  try {
    statSync(source);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    if (!options?.CreateMountpoint) throw bad(`bind source path does not exist: ${source}`);
    mkdirSync(source, { recursive: true });
  }
  return point(target, {
    source,
    propagation: options?.Propagation || "rprivate",
    options: options?.NonRecursive ? ["bind"] : [],
    below: always ? "readonly" : flat ? "writable" : "",
    ...common,
  });
}

/** Every mount of a new container, one per target, in the order of Docker's precedence. */
export function planMounts(
  config: Pick<ContainerConfig, "Volumes">,
  hostConfig: HostConfig,
  host: MountHost,
): MountPoint[] {
  const byTarget = new Map<string, MountPoint>();
  for (const spec of hostConfig.VolumesFrom) {
    const [ref = "", mode = ""] = spec.split(":");
    for (const mount of host.mountsOf(ref)) {
      if (mount.type !== "tmpfs")
        byTarget.set(mount.target, { ...mount, rw: mount.rw && mode !== "ro", copyUp: false });
    }
  }
  const own = new Set<string>();
  const add = (mount: MountPoint) => {
    if (own.has(mount.target)) throw invalid(`Duplicate mount point: ${mount.target}`);
    own.add(mount.target);
    byTarget.set(mount.target, mount);
  };
  for (const spec of hostConfig.Binds) add(parseBind(host, spec, hostConfig.VolumeDriver));
  for (const spec of hostConfig.Mounts) add(parseMount(host, spec));
  for (const [target, options] of Object.entries(hostConfig.Tmpfs)) {
    add(point(checkTarget(target, target), { type: "tmpfs", options: options.split(",").filter(Boolean) }));
  }
  for (const wanted of Object.keys(config.Volumes)) {
    const target = checkTarget(wanted, wanted);
    if (!byTarget.has(target))
      byTarget.set(
        target,
        volumeMount(host, host.volume({ name: "", driver: hostConfig.VolumeDriver }), target, { mode: "" }),
      );
  }
  return [...byTarget.values()];
}
