/** What `docker rmi` takes away: a pure decision over the images there are. */
import { conflict } from "../../base/errors.ts";
import { shortId } from "../../base/id.ts";
import type { Image } from "../types.ts";
import { chainIds } from "./manifest.ts";
import { familiar, parseReference, repositoryOf } from "./reference.ts";

export interface Removal {
  /** Full names whose records go. */
  readonly untag: string[];
  /** The image itself goes too. */
  readonly deleteImage: boolean;
  /** Layers (by chain id, topmost first) that no other image needs. */
  readonly deletedLayers: string[];
}

/**
 * @param image what `nameOrId` names
 * @param name the full name, if it was named so and not by id
 * @param user a container that uses the image
 */
export function planRemoval(
  image: Image,
  name: string | undefined,
  others: readonly Image[],
  options: { force: boolean; user: string | undefined },
): Removal {
  const all = [...image.references, ...image.repoDigests];
  const repositories = new Set(all.map((reference) => repositoryOf(parseReference(reference))));
  const short = shortId(image.id.replace("sha256:", ""));
  let untag: string[];
  if (name === undefined) {
    if (repositories.size > 1 && !options.force) {
      throw conflict(
        `conflict: unable to delete ${short} (must be forced) - image is referenced in multiple repositories`,
      );
    }
    untag = all;
  } else {
    untag = [name];
    const repository = repositoryOf(parseReference(name));
    const sameRepository = (reference: string) => repositoryOf(parseReference(reference)) === repository;
    const tagsLeft = image.references.filter((reference) => reference !== name && sameRepository(reference));
    // A digest alone does not keep a repository's image once its last tag is gone.
    if (tagsLeft.length === 0) untag.push(...image.repoDigests.filter((d) => d !== name && sameRepository(d)));
  }
  const last = all.every((reference) => untag.includes(reference));
  if (last && options.user !== undefined) {
    if (!options.force) {
      const user = shortId(options.user);
      throw conflict(
        name === undefined
          ? `conflict: unable to delete ${short} (must be forced) - image is being used by stopped container ${user}`
          : `conflict: unable to remove repository reference "${familiar(name)}" (must force) - container ${user} is using its referenced image ${short}`,
      );
    }
    // Forced: the names go; the image stays, nameless, for its container.
    return { untag, deleteImage: false, deletedLayers: [] };
  }
  if (!last) return { untag, deleteImage: false, deletedLayers: [] };
  const needed = new Set(others.filter((other) => other.id !== image.id).flatMap((other) => chainIds(other.layers)));
  const layers = chainIds(image.layers).reverse();
  return { untag, deleteImage: true, deletedLayers: layers.filter((layer) => !needed.has(layer)) };
}
