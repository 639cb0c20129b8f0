/** `docker save`: an OCI layout that is also Docker's format, as Docker 25 and later write it. */

import type { Writable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Pack, pack } from "tar-stream";
import { notFound } from "../../base/errors.ts";
import type { Containerd } from "../containerd/client.ts";
import { type Descriptor, readBytes, readStream } from "./content.ts";
import { mediaTypes } from "./manifest.ts";
import type { StoredImage } from "./records.ts";
import { familiar } from "./reference.ts";

/** An image, and the full name by which it was asked for, if by name. */
export interface Saved {
  readonly image: StoredImage;
  readonly name?: string;
}

export async function saveArchive(containerd: Containerd, wanted: readonly Saved[], out: Writable): Promise<void> {
  const tar = pack();
  const writing = pipeline(tar, out);
  try {
    await writeAll(containerd, wanted, tar);
    tar.finalize();
  } catch (error) {
    tar.destroy(error instanceof Error ? error : new Error(String(error)));
    await writing.catch(() => {});
    throw error;
  }
  await writing;
}

async function writeAll(containerd: Containerd, wanted: readonly Saved[], tar: Pack): Promise<void> {
  const images = new Map<string, { image: StoredImage; names: string[] }>();
  for (const { image, name } of wanted) {
    const entry = images.get(image.id) ?? { image, names: [] };
    if (name !== undefined && !name.includes("@") && !entry.names.includes(name)) entry.names.push(name);
    images.set(image.id, entry);
  }
  const written = new Set<string>();
  const manifests: object[] = [];
  const docker: object[] = [];
  for (const { image, names } of images.values()) {
    const { manifest, manifestDigest } = image;
    const bytes = await readBytes(containerd, manifestDigest);
    if (!bytes) throw notFound(`the manifest of ${image.id} is gone`);
    const mediaType = manifest.mediaType ?? mediaTypes.ociManifest;
    for (const blob of [
      ...manifest.layers,
      manifest.config,
      { mediaType, digest: manifestDigest, size: bytes.length },
    ]) {
      if (written.has(blob.digest)) continue;
      written.add(blob.digest);
      await writeBlobEntry(containerd, blob, tar);
    }
    const descriptor = { mediaType, digest: manifestDigest, size: bytes.length };
    if (names.length === 0) manifests.push(descriptor);
    for (const name of names) {
      const tag = name.slice(name.lastIndexOf(":") + 1);
      const annotations = { "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag };
      manifests.push({ ...descriptor, annotations });
    }
    docker.push({
      Config: blobPath(image.id),
      RepoTags: names.length > 0 ? names.map(familiar) : null,
      Layers: manifest.layers.map((layer) => blobPath(layer.digest)),
    });
  }
  const json = (name: string, value: unknown) => tar.entry({ name, mode: 0o644 }, JSON.stringify(value));
  json("index.json", { schemaVersion: 2, mediaType: mediaTypes.ociIndex, manifests });
  json("manifest.json", docker);
  json("oci-layout", { imageLayoutVersion: "1.0.0" });
}

async function writeBlobEntry(containerd: Containerd, blob: Descriptor, tar: Pack): Promise<void> {
  const entry = tar.entry({ name: blobPath(blob.digest), size: blob.size, mode: 0o644 });
  async function* bytes(): AsyncGenerator<Uint8Array> {
    for await (const { data } of readStream(containerd, blob.digest)) yield data;
  }
  await pipeline(bytes(), entry);
}

const blobPath = (digest: string): string => `blobs/${digest.replace(":", "/")}`;
