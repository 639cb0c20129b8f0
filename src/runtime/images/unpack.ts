/** Layers from the content store into snapshots. */
import { invalid } from "../../base/errors.ts";
import { grpcCodeOf, grpcMessageOf, status } from "../../base/grpc.ts";
import { hexId } from "../../base/id.ts";
import { type Containerd, type Lease, snapshotter } from "../containerd/client.ts";
import { ifFound, isAlreadyExists } from "../containerd/errors.ts";
import type { Descriptor } from "./content.ts";
import { chainIds } from "./manifest.ts";
import { watched } from "./room.ts";

/**
 * Unpacks the layers one above the other. Each is checked against its diff id, if those are known; gives the
 * diff ids. Snapshots that are there already are taken under the lease and not made again.
 */
export async function unpack(
  containerd: Containerd,
  layers: readonly Descriptor[],
  lease: Lease,
  options: { diffIds?: readonly string[]; onLayer?: (layer: Descriptor) => void } = {},
): Promise<string[]> {
  const { diffIds } = options;
  if (diffIds && diffIds.length !== layers.length) {
    throw invalid(`invalid image: ${layers.length} layers, but ${diffIds.length} diff ids`);
  }
  const done: string[] = [];
  for (const [index, layer] of layers.entries()) {
    options.onLayer?.(layer);
    done.push(await unpackLayer(containerd, layer, done, diffIds?.[index], lease));
  }
  return done;
}

/** What containerd cannot read is the archive's fault; its own paths are nobody's business. */
function unpackError(error: unknown): unknown {
  if (grpcCodeOf(error) !== status.UNKNOWN) return error;
  const why = grpcMessageOf(error)
    .replace(/mount callback failed on \S+: /, "")
    .replace(/\/\S*\/containerd-mount\d+(?=\/|\s|:)/g, "");
  return /no space left|input\/output error/i.test(why) ? error : invalid(`failed to unpack layer: ${why}`);
}

async function unpackLayer(
  containerd: Containerd,
  layer: Descriptor,
  below: readonly string[],
  diffId: string | undefined,
  lease: Lease,
): Promise<string> {
  const { snapshots, diff } = containerd;
  const call = containerd.call({ lease });
  const parent = chainIds(below).at(-1) ?? "";
  if (diffId !== undefined) {
    const name = chainIds([...below, diffId]).at(-1) ?? "";
    if (await ifFound(snapshots.stat({ snapshotter, key: name }, call))) {
      await containerd.leases.addResource(
        { id: lease.id, resource: { id: name, type: `snapshots/${snapshotter}` } },
        call,
      );
      return diffId;
    }
  }
  const key = `extract-${hexId().slice(0, 24)}`;
  const { mounts } = await snapshots.prepare({ snapshotter, key, parent }, call);
  try {
    const { applied } = await watched(containerd.room, (signal) =>
      diff
        .apply({ diff: { ...layer, size: BigInt(layer.size) }, mounts }, containerd.call({ lease, signal }))
        .catch((error) => Promise.reject(unpackError(error))),
    );
    const actual = applied?.digest ?? "";
    if (diffId !== undefined && actual !== diffId) {
      throw invalid(`wrong diff id calculated on extraction: ${actual} instead of ${diffId}`);
    }
    const name = chainIds([...below, actual]).at(-1) ?? "";
    await snapshots.commit({ snapshotter, name, key }, call);
    return actual;
  } catch (error) {
    await snapshots.remove({ snapshotter, key }, call).catch(() => {});
    // Another load of the same layer was quicker.
    if (diffId !== undefined && isAlreadyExists(error)) return diffId;
    throw error;
  }
}
