/**
 * Images as containerd's image service keeps them. Each image has one record named by its id, which holds it
 * while it has no other name, and one per reference. All point at the same manifest.
 */
import { notFound } from "../../base/errors.ts";
import type { Containerd, Lease } from "../containerd/client.ts";
import { snapshotter } from "../containerd/client.ts";
import { ifFound, isAlreadyExists } from "../containerd/errors.ts";
import type { Image, ImageConfig } from "../types.ts";
import { type Descriptor, readBytes } from "./content.ts";
import { type ConfigDocument, chainIds, type Manifest, parseConfig, parseManifest } from "./manifest.ts";

const idLabel = "skein.image.id";

/** What never changes about an image; read once. */
interface Details {
  readonly manifest: Manifest;
  readonly document: ConfigDocument;
  readonly size: number;
  readonly layerSizes: readonly number[];
}

export interface StoredImage extends Image {
  readonly manifestDigest: string;
  readonly manifest: Manifest;
}

export class Records {
  readonly #containerd: Containerd;
  readonly #tops = new Map<string, string>();
  readonly #details = new Map<string, Promise<Details | undefined>>();

  constructor(containerd: Containerd) {
    this.#containerd = containerd;
  }

  /** Points `name` (a full reference, or the id itself) at an image. Takes the name from another image. */
  async point(name: string, id: string, target: Descriptor, lease?: Lease): Promise<void> {
    const { images } = this.#containerd;
    const call = this.#containerd.call(lease ? { lease } : undefined);
    const image = {
      name,
      labels: { [idLabel]: id },
      target: { mediaType: target.mediaType, digest: target.digest, size: BigInt(target.size) },
    };
    try {
      await images.create({ image }, call);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      await images.update({ image, updateMask: { paths: ["target", "labels"] } }, call);
    }
  }

  /** The image that a record of this name points at. */
  async get(name: string): Promise<{ id: string; target: Descriptor } | undefined> {
    const found = (await ifFound(this.#containerd.images.get({ name }, this.#containerd.call())))?.image;
    const id = found?.labels[idLabel];
    if (!found?.target || !id) return undefined;
    const { mediaType, digest, size } = found.target;
    return { id, target: { mediaType, digest, size: Number(size) } };
  }

  /** Name of the snapshot that is the image's whole root file system; empty for an image without layers. */
  async topOf(id: string): Promise<string> {
    const known = this.#tops.get(id);
    if (known !== undefined) return known;
    const record = await this.get(id);
    const details = record && (await this.#read(record.target.digest));
    if (!details) throw notFound(`No such image: ${id}`);
    const top = chainIds(details.document.rootfs.diff_ids ?? []).at(-1) ?? "";
    this.#tops.set(id, top);
    return top;
  }

  async forget(name: string, sync = false): Promise<void> {
    this.#tops.delete(name);
    await ifFound(this.#containerd.images.delete({ name, sync }, this.#containerd.call()));
  }

  /** All images, newest first. Records whose content is gone are left out. */
  async list(): Promise<StoredImage[]> {
    const { images } = await this.#containerd.images.list({}, this.#containerd.call());
    const byId = new Map<string, { digest: string; names: string[] }>();
    for (const { name, labels, target } of images) {
      const id = labels[idLabel];
      if (!id || !target) continue;
      const entry = byId.get(id) ?? { digest: target.digest, names: [] };
      if (name !== id) entry.names.push(name);
      byId.set(id, entry);
    }
    const found = await Promise.all(
      [...byId].map(async ([id, { digest, names }]) => {
        const details = await this.#read(digest);
        return details && describe(id, digest, names, details);
      }),
    );
    return found.filter((image) => image !== undefined).sort((a, b) => b.created.localeCompare(a.created));
  }

  #read(manifestDigest: string): Promise<Details | undefined> {
    let details = this.#details.get(manifestDigest);
    if (!details) {
      details = this.#readNow(manifestDigest);
      this.#details.set(manifestDigest, details);
      // Only what was found is remembered.
      details.then(
        (value) => value ?? this.#details.delete(manifestDigest),
        () => this.#details.delete(manifestDigest),
      );
    }
    return details;
  }

  async #readNow(manifestDigest: string): Promise<Details | undefined> {
    const bytes = await readBytes(this.#containerd, manifestDigest);
    if (!bytes) return undefined;
    const manifest = parseManifest(bytes);
    const config = await readBytes(this.#containerd, manifest.config.digest);
    if (!config) return undefined;
    const document = parseConfig(config);
    const sizes = chainIds(document.rootfs.diff_ids ?? []).map(async (key) => {
      const usage = await ifFound(this.#containerd.snapshots.usage({ snapshotter, key }, this.#containerd.call()));
      return Number(usage?.size ?? 0);
    });
    const layerSizes = await Promise.all(sizes);
    return { manifest, document, size: layerSizes.reduce((sum, one) => sum + one, 0), layerSizes };
  }
}

function describe(
  id: string,
  manifestDigest: string,
  names: string[],
  { manifest, document, size, layerSizes }: Details,
): StoredImage {
  const tagged = names.filter((name) => !name.includes("@"));
  return {
    id,
    references: tagged.sort(),
    repoDigests: [...new Set(names.filter((name) => name.includes("@")))].sort(),
    created: document.created ?? "1970-01-01T00:00:00Z",
    size,
    layerSizes,
    author: document.author ?? "",
    config: (document.config ?? {}) as ImageConfig,
    layers: document.rootfs.diff_ids ?? [],
    os: document.os,
    architecture: document.architecture,
    history: document.history ?? [],
    manifestDigest,
    manifest,
  };
}
