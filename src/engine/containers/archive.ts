/** Files of containers as tar streams: `docker cp` and `export`. */
import { constants, lstatSync, readlinkSync, type Stats } from "node:fs";
import { posix } from "node:path";
import { errnoOf, forbidden, invalid, notFound } from "../../base/errors.ts";
import type { EngineContext } from "../context.ts";
import { rfc3339Nano } from "../time.ts";
import type { Containers, Json } from "../types.ts";
import { emitContainer } from "./attributes.ts";
import type { Container } from "./container.ts";
import { extract } from "./extract.ts";
import type { MountPoint } from "./record.ts";
import { openInRoot } from "./rootpath.ts";
import { filled, pack } from "./tar.ts";

/** Go's os.FileMode of a file: permission bits below, kinds in the high bits. */
function goFileMode(stat: Pick<Stats, "mode">): number {
  const kinds = new Map([
    [constants.S_IFDIR, 2 ** 31],
    [constants.S_IFLNK, 2 ** 27],
    [constants.S_IFBLK, 2 ** 26],
    [constants.S_IFIFO, 2 ** 25],
    [constants.S_IFSOCK, 2 ** 24],
    [constants.S_IFCHR, 2 ** 26 + 2 ** 21],
  ]);
  const special =
    (stat.mode & 0o4000 ? 2 ** 23 : 0) + (stat.mode & 0o2000 ? 2 ** 22 : 0) + (stat.mode & 0o1000 ? 2 ** 20 : 0);
  return (kinds.get(stat.mode & constants.S_IFMT) ?? 0) + special + (stat.mode & 0o777);
}

interface Wanted {
  /** The directory to open. */
  readonly dir: string;
  /** An entry of it; "." is the directory itself. */
  readonly name: string;
}

/** "/a/b" is entry b of /a; "/a/." and "/" are the directory itself. A last link is not followed, as with dockerd. */
function splitPath(path: string): Wanted {
  const absolute = posix.normalize(`/${path}`);
  if (absolute === "/" || path.endsWith("/.")) return { dir: absolute, name: "." };
  const plain = absolute.replace(/\/$/, "");
  return { dir: posix.dirname(plain), name: posix.basename(plain) };
}

/** The mount of a stopped container that a path lies in: its files are not below the root file system then. */
function mountFor(container: Container, dir: string): MountPoint | undefined {
  if (container.up) return undefined;
  return container.record.mounts
    .filter((mount) => mount.source !== "" && (dir === mount.target || dir.startsWith(`${mount.target}/`)))
    .sort((a, b) => b.target.length - a.target.length)[0];
}

/** Runs `use` with a root path and the path inside it. */
function within<T>(
  ctx: EngineContext,
  container: Container,
  dir: string,
  use: (root: string, inner: string) => Promise<T>,
): Promise<T> {
  const mount = mountFor(container, dir);
  if (mount) return use(mount.source, posix.join("/", mount.subpath, dir.slice(mount.target.length)));
  return ctx.runtime.withRootfs(container.id, (root) => use(root, dir));
}

function statDocument(path: string, name: string, shown: string): Json {
  let stat: Stats;
  try {
    stat = lstatSync(path);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") throw notFound(`Could not find the file ${shown}`);
    if (errnoOf(error) === "ENAMETOOLONG") throw invalid(`file name too long: ${shown}`);
    throw error;
  }
  return {
    name,
    size: stat.size,
    mode: goFileMode(stat),
    mtime: rfc3339Nano(stat.mtimeMs),
    linkTarget: stat.isSymbolicLink() ? readlinkSync(path) : "",
  };
}

export function archives(
  ctx: EngineContext,
): Pick<Containers, "export" | "changes" | "archiveStat" | "archiveGet" | "archivePut"> {
  const get = (ref: string) => ctx.registry.get(ref);
  const shown = (container: Container, path: string) => `${path} in container ${container.name}`;
  const stat = (container: Container, path: string) => {
    const { dir, name } = splitPath(path);
    return within(ctx, container, dir, async (root, inner) => {
      using open = openInRoot(root, inner, { shown: shown(container, path) });
      return statDocument(open.entry(name), posix.basename(posix.normalize(`/${path}`)) || "/", shown(container, path));
    });
  };
  return {
    async export(ref) {
      const container = get(ref);
      return filled((out) =>
        ctx.runtime.withRootfs(container.id, async (root) => {
          using open = openInRoot(root, "/");
          await pack(open.fd, ".", out, ["--one-file-system", "--transform=flags=rSH;s,^\\./,,"]);
          emitContainer(ctx, container, "export");
        }),
      );
    },

    async changes(ref) {
      const container = get(ref);
      const kinds = { modified: 0, added: 1, deleted: 2 };
      return (await ctx.runtime.changes(container.id)).map(({ path, kind }) => ({ Path: path, Kind: kinds[kind] }));
    },

    archiveStat: async (ref, path) => stat(get(ref), path),

    async archiveGet(ref, path) {
      const container = get(ref);
      const document = await stat(container, path);
      const { dir, name } = splitPath(path);
      const body = filled((out) =>
        within(ctx, container, dir, async (root, inner) => {
          using open = openInRoot(root, inner, { shown: shown(container, path) });
          await pack(open.fd, name, out);
          emitContainer(ctx, container, "archive-path");
        }),
      );
      return { stat: document, body };
    },

    async archivePut(ref, path, tar, options) {
      const container = get(ref);
      const { record } = container;
      const dir = posix.normalize(`/${path}`);
      const target = record.mounts.find((mount) => dir === mount.target || dir.startsWith(`${mount.target}/`));
      if (target && !target.rw) throw forbidden("mounted volume is marked read-only");
      if (!target && record.hostConfig.ReadonlyRootfs) throw forbidden("container rootfs is marked read-only");
      // With -a everything gets the container's user; one that has none keeps what the archive says.
      const owner =
        options.copyUidGid && record.config.User !== ""
          ? await ctx.runtime.userOf(container.id, record.config.User)
          : undefined;
      await within(ctx, container, dir, (root, inner) =>
        extract(root, inner, tar, {
          shown: shown(container, path),
          noOverwriteDirNonDir: options.noOverwriteDirNonDir,
          ...(owner && { owner }),
        }),
      );
      emitContainer(ctx, container, "extract-to-dir");
    },
  };
}
