/**
 * A part of a volume (`--mount type=volume,volume-subpath=…`). What lies in a volume is its containers' doing: the way to
 * the part is gone component by component inside the volume, and what was opened is what is mounted, whatever links a
 * container puts there meanwhile. The OCI runtime wants a path, in a mount namespace of its own: for the time of a start
 * the part is mounted at a place that only we write to. So are images (`--mount type=image`), whole or in part.
 */
import { constants, fstatSync, lstatSync, mkdirSync, readdirSync, rmdirSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { errnoOf, invalid, SkeinError } from "../../base/errors.ts";
import { hexId } from "../../base/id.ts";
import { bindMount, touch, unmount } from "../../kernel/mount.ts";
import type { MountPoint } from "../containers/record.ts";
import { type OpenDir, openInRoot } from "../containers/rootpath.ts";

const placesIn = (run: string): string => join(run, "parts");

export interface Parts extends Disposable {
  /** A path that means the part as long as this is not disposed of. */
  partOf(mount: Pick<MountPoint, "image" | "name" | "source" | "subpath">): string;
  /** Mounts the images that mounts name; before `partOf` of one of them. */
  openImages(
    mounts: readonly MountPoint[],
    mountImage: (imageId: string, place: string) => Promise<void>,
  ): Promise<void>;
}

/** Parts for one start, mounted below the run directory. */
export function openParts(run: string): Parts {
  const places: string[] = [];
  const images = new Map<string, string>();
  const makePlace = (): string => {
    mkdirSync(placesIn(run), { recursive: true, mode: 0o700 });
    return join(placesIn(run), hexId().slice(0, 16));
  };
  return {
    async openImages(mounts, mountImage) {
      for (const image of new Set(mounts.flatMap((mount) => mount.image || []))) {
        const place = makePlace();
        mkdirSync(place);
        places.push(place);
        await mountImage(image, place);
        images.set(image, place);
      }
    },
    partOf({ image, name, subpath, ...mount }) {
      const whole = images.get(image);
      if (whole !== undefined && subpath === "") return whole;
      const source = whole ?? mount.source;
      const shown = `${image === "" ? source : name}/${subpath}`;
      using part = openPart(source, subpath, shown);
      const kind = fstatSync(part.fd).mode & constants.S_IFMT;
      if (kind !== constants.S_IFDIR && kind !== constants.S_IFREG) {
        throw invalid(`cannot mount ${shown}: it is neither a directory nor a file`);
      }
      const place = makePlace();
      if (kind === constants.S_IFDIR) mkdirSync(place);
      else touch(place);
      places.push(place);
      // With what is mounted below: a volume may be a mount itself.
      bindMount(`/proc/self/fd/${part.fd}`, place, { recursive: true });
      return place;
    },
    [Symbol.dispose]() {
      // A part of an image before the image.
      for (const place of places.reverse()) clear(place);
    },
  };
}

/** Takes away what a daemon that was killed in the middle of a start has left. */
export function sweepParts(run: string): void {
  try {
    for (const name of readdirSync(placesIn(run))) clear(join(placesIn(run), name));
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
  }
}

function clear(place: string): void {
  unmount(place);
  // Only what is empty goes: were it mounted still, this would be the volume's own.
  if (lstatSync(place).isDirectory()) rmdirSync(place);
  else unlinkSync(place);
}

function openPart(source: string, subpath: string, shown: string): OpenDir {
  try {
    return openInRoot(source, subpath, { shown, leaf: true });
  } catch (error) {
    if (!(error instanceof SkeinError) || error.code !== "notFound") throw error;
    throw invalid(`cannot access path ${shown}: no such file or directory`);
  }
}
