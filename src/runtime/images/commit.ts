/** `docker commit`: what a container wrote becomes a layer above those of its image. */
import { notFound } from "../../base/errors.ts";
import { hexId } from "../../base/id.ts";
import { type Containerd, type Lease, snapshotter, withLease } from "../containerd/client.ts";
import type { CommitOptions } from "../types.ts";
import { keepImage } from "./assemble.ts";
import { type Descriptor, readBytes, sha256 } from "./content.ts";
import { chainIds, hostPlatform, mediaTypes, parseConfig } from "./manifest.ts";
import type { Records, StoredImage } from "./records.ts";
import { unpack } from "./unpack.ts";

/** containerd notes the digest of the layer before compression here. */
const uncompressed = "containerd.io/uncompressed";

/** Gives the id of the new image. */
export async function commitContainer(
  containerd: Containerd,
  records: Records,
  base: StoredImage,
  options: CommitOptions,
  name: string | undefined,
): Promise<string> {
  return await withLease(containerd, async (lease) => {
    const { layer, diffId } = await layerOf(containerd, options.containerId, base, lease);
    const layers = [...base.manifest.layers, layer];
    const diffIds = [...base.layers, diffId];
    await unpack(containerd, layers, lease, { diffIds });
    const bytes = await readBytes(containerd, base.id);
    if (!bytes) throw notFound(`No such image: ${base.id}`);
    const before = parseConfig(bytes);
    const created = options.now.toISOString();
    const { comment = "", author = "" } = options;
    const step = { created, ...(author && { author }), created_by: options.createdBy, ...(comment && { comment }) };
    const document = {
      architecture: before.architecture || hostPlatform().architecture,
      ...(before.variant && { variant: before.variant }),
      ...(author && { author }),
      ...(comment && { comment }),
      config: options.config,
      container: options.containerId,
      created,
      history: [...(before.history ?? []), step],
      os: before.os,
      rootfs: { type: "layers", diff_ids: diffIds },
    };
    const config = Buffer.from(JSON.stringify(document));
    const parts = { config, configDigest: sha256(config), layers, diffIds };
    return await keepImage(containerd, records, parts, name === undefined ? [] : [name], lease);
  });
}

async function layerOf(
  containerd: Containerd,
  containerId: string,
  base: StoredImage,
  lease: Lease,
): Promise<{ layer: Descriptor; diffId: string }> {
  const { snapshots, diff, content } = containerd;
  const call = containerd.call({ lease });
  const key = `commit-${hexId().slice(0, 24)}`;
  const parent = chainIds(base.layers).at(-1) ?? "";
  const [{ mounts: right }, { mounts: left }] = await Promise.all([
    snapshots.mounts({ snapshotter, key: containerId }, call),
    snapshots.view({ snapshotter, key, parent }, call),
  ]);
  try {
    const mediaType = mediaTypes.ociLayerGzip;
    const { diff: made } = await diff.diff({ left, right, mediaType, ref: `skein-${key}` }, call);
    if (!made) throw new Error("containerd made no layer");
    const { info } = await content.info({ digest: made.digest }, call);
    const diffId = info?.labels[uncompressed];
    if (!diffId) throw new Error(`layer ${made.digest} has no digest of its contents`);
    return { layer: { mediaType: mediaTypes.dockerLayerGzip, digest: made.digest, size: Number(made.size) }, diffId };
  } finally {
    await snapshots.remove({ snapshotter, key }, call).catch(() => {});
  }
}
