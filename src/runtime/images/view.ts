/** How the files of an image are mounted without a container. */
import { hexId } from "../../base/id.ts";
import { type Containerd, snapshotter, withLease } from "../containerd/client.ts";
import type { SnapshotMount } from "../rootfs.ts";

/** The mount of a committed snapshot. It names the layers' own directories: the view is not needed once it is known. */
export async function viewOf(containerd: Containerd, parent: string): Promise<readonly SnapshotMount[]> {
  return await withLease(containerd, async (lease) => {
    const call = containerd.call({ lease });
    const key = `view-${hexId().slice(0, 24)}`;
    const { mounts } = await containerd.snapshots.view({ snapshotter, key, parent }, call);
    await containerd.snapshots.remove({ snapshotter, key }, call);
    return mounts;
  });
}
