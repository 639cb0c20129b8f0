/** From layers in the content store to an image: config, manifest, snapshots, names. */
import type { Containerd, Lease } from "../containerd/client.ts";
import type { ImageConfig } from "../types.ts";
import { addLabels, type Descriptor, gcLabels, sha256, writeBytes } from "./content.ts";
import { chainIds, hostPlatform, mediaTypes } from "./manifest.ts";
import type { Records } from "./records.ts";
import { unpack } from "./unpack.ts";

export interface Parts {
  readonly config: Uint8Array;
  readonly configDigest: string;
  /** Descriptors of the layers, lowest first, all in the content store. */
  readonly layers: readonly Descriptor[];
  readonly diffIds: readonly string[];
}

/** The manifest as its maker wrote it: kept byte for byte, so that its digest stays true. */
export interface OriginalManifest {
  readonly bytes: Uint8Array;
  readonly mediaType: string;
}

/** Keeps an image whose layers are unpacked under its id and `names`. Gives the id. */
export async function keepImage(
  containerd: Containerd,
  records: Records,
  parts: Parts,
  names: readonly string[],
  lease: Lease,
  original?: OriginalManifest,
): Promise<string> {
  const { bytes, mediaType } = original ?? manifestOf(parts);
  await writeConfig(containerd, parts, lease);
  const labels = gcLabels.manifest(
    parts.configDigest,
    parts.layers.map((layer) => layer.digest),
  );
  const { digest } = await writeBytes(containerd, bytes, { lease, labels });
  const target = { mediaType, digest, size: bytes.length };
  await records.point(parts.configDigest, parts.configDigest, target, lease);
  for (const name of names) await records.point(name, parts.configDigest, target, lease);
  return parts.configDigest;
}

/** Docker's words for OCI's kinds of layers; zstd has none. */
const inDockersWords: Record<string, string> = {
  [mediaTypes.ociLayer]: mediaTypes.dockerLayer,
  [mediaTypes.ociLayerGzip]: mediaTypes.dockerLayerGzip,
};
const inOciWords = Object.fromEntries(Object.entries(inDockersWords).map(([oci, docker]) => [docker, oci]));

/** Docker's manifest, or OCI's where a layer needs it: the two are not mixed. */
function manifestOf(parts: Parts): { bytes: Uint8Array; mediaType: string } {
  const oci = parts.layers.some(({ mediaType }) => mediaType === mediaTypes.ociLayerZstd);
  const words = oci ? inOciWords : inDockersWords;
  const mediaType = oci ? mediaTypes.ociManifest : mediaTypes.dockerManifest;
  const document = {
    schemaVersion: 2,
    mediaType,
    config: {
      mediaType: oci ? mediaTypes.ociConfig : mediaTypes.dockerConfig,
      size: parts.config.length,
      digest: parts.configDigest,
    },
    layers: parts.layers.map((layer) => ({
      mediaType: words[layer.mediaType] ?? layer.mediaType,
      size: layer.size,
      digest: layer.digest,
    })),
  };
  return { bytes: Buffer.from(JSON.stringify(document)), mediaType };
}

/** The config leads the garbage collector to the unpacked root file system. */
async function writeConfig(containerd: Containerd, parts: Parts, lease: Lease): Promise<void> {
  const top = chainIds(parts.diffIds).at(-1);
  const labels = top === undefined ? {} : gcLabels.snapshot(top);
  await writeBytes(containerd, parts.config, { lease, labels });
  if (top !== undefined) await addLabels(containerd, parts.configDigest, labels);
}

/** One layer, already in the content store, becomes an image of its own (`docker import`). */
export async function imageOfLayer(
  containerd: Containerd,
  layer: Descriptor,
  options: { config?: ImageConfig; comment?: string; architecture?: string; now: Date },
  lease: Lease,
): Promise<Parts> {
  const diffIds = await unpack(containerd, [layer], lease);
  const platform = hostPlatform();
  const created = options.now.toISOString();
  const document = {
    architecture: options.architecture ?? platform.architecture,
    comment: options.comment ?? "",
    config: options.config ?? {},
    created,
    history: [{ created, comment: options.comment ?? "" }],
    os: platform.os,
    rootfs: { type: "layers", diff_ids: diffIds },
  };
  const bytes = Buffer.from(JSON.stringify(document));
  return { config: bytes, configDigest: sha256(bytes), layers: [layer], diffIds };
}
