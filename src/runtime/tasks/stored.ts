/**
 * What containerd keeps of a container while nothing of it need run: its record, with the OCI spec of the last start, and
 * its snapshot.
 *
 * The record comes first, because it is a root for containerd's garbage collector: the snapshot is referred to before it
 * exists and needs no lease. Who deletes the record deletes what was written.
 */
import { notFound } from "../../base/errors.ts";
import { type Containerd, snapshotter } from "../containerd/client.ts";
import { ifFound, ignoreNotFound, isAlreadyExists, translate } from "../containerd/errors.ts";
import { layersOf, readInLayers, type SnapshotMount } from "../rootfs.ts";
import type { OciSpec, OciUser } from "../spec/oci.ts";
import { resolveUser } from "../spec/user.ts";
import type { ContainerSpec } from "../types.ts";
import { readRecord, specAny } from "./encode.ts";

/** How long containerd may take to write a spec, ms. */
const updateMs = 120_000;
const shim = "io.containerd.runc.v2";
const mounted = (imageId: string): string => `skein.mounted/${imageId}`;

export class StoredContainers {
  readonly #containerd: Containerd;
  /** Name of the snapshot that an image's topmost layer is. */
  readonly #topOf: (imageId: string) => Promise<string>;
  readonly #mounts = new Map<string, SnapshotMount[]>();
  readonly #specs = new Map<string, OciSpec>();

  constructor(containerd: Containerd, topOf: (imageId: string) => Promise<string>) {
    this.#containerd = containerd;
    this.#topOf = topOf;
  }

  /** Gives the mounts of a container's snapshot, made if it is not there. */
  async create(spec: ContainerSpec): Promise<SnapshotMount[]> {
    const { id } = spec;
    const known = this.#mounts.get(id);
    if (known) return known;
    const { containers, snapshots } = this.#containerd;
    const call = this.#containerd.call();
    let made = false;
    try {
      const parent = await this.#topOf(spec.imageId);
      const container = {
        id,
        labels: { "skein.image": spec.imageId, ...(await this.#keeping(spec.mountedImages ?? [])) },
        runtime: { name: shim },
        spec: specAny({}),
        snapshotter,
        snapshotKey: id,
      };
      made = (await allowExisting(containers.create({ container }, call))) !== undefined;
      const { mounts } =
        (await allowExisting(snapshots.prepare({ snapshotter, key: id, parent }, call))) ??
        (await snapshots.mounts({ snapshotter, key: id }, call));
      this.#mounts.set(id, mounts);
      return mounts;
    } catch (error) {
      if (made) await ignoreNotFound(containers.delete({ id }, call)).catch(() => {});
      // One of an earlier daemon, whose image was forgotten since.
      const before = made ? undefined : await this.mountsOf(id).catch(() => undefined);
      if (before) return before;
      throw translate(error);
    }
  }

  /** Labels that keep the layers of images from containerd's collector, and remember them when the image is forgotten. */
  async #keeping(images: readonly string[]): Promise<Record<string, string>> {
    const tops = await Promise.all(images.map(async (id) => [id, await this.#topOf(id)] as const));
    const labels = tops.flatMap(([id, top], index) => [
      [`containerd.io/gc.ref.snapshot.${snapshotter}/${index}`, top],
      [mounted(id), top],
    ]);
    return Object.fromEntries(labels);
  }

  /** Name of the snapshot that the topmost layer of an image is which the container was made to mount. */
  async mountedTop(id: string, imageId: string): Promise<string> {
    const found = await ifFound(this.#containerd.containers.get({ id }, this.#containerd.call()));
    return found?.container?.labels[mounted(imageId)] ?? (await this.#topOf(imageId));
  }

  async mountsOf(id: string): Promise<SnapshotMount[]> {
    const known = this.#mounts.get(id);
    if (known) return known;
    const found = await ifFound(this.#containerd.snapshots.mounts({ snapshotter, key: id }, this.#containerd.call()));
    if (!found) throw notFound(`No such container: ${id}`);
    this.#mounts.set(id, found.mounts);
    return found.mounts;
  }

  /** Numbers of "user[:group]" by the container's own account files; `groups` are additional ones. */
  async userOf(id: string, user: string, groups: readonly string[] = []): Promise<OciUser> {
    const layers = layersOf(await this.mountsOf(id));
    const { uid, gid, additionalGids } = resolveUser(user, groups, {
      passwd: readInLayers(layers, "/etc/passwd") ?? "",
      group: readInLayers(layers, "/etc/group") ?? "",
    });
    return { uid, gid, ...(additionalGids ? { additionalGids } : {}) };
  }

  /** The OCI spec of the last start. */
  async specOf(id: string): Promise<OciSpec> {
    const known = this.#specs.get(id);
    if (known) return known;
    const found = await ifFound(this.#containerd.containers.get({ id }, this.#containerd.call()));
    const spec = readRecord(found?.container?.spec);
    if (!spec) throw notFound(`No such container: ${id}`);
    this.#specs.set(id, spec);
    return spec;
  }

  /** Whether `specOf` knows the spec already: this daemon has started the container, or asked. */
  knows(id: string): boolean {
    return this.#specs.has(id);
  }

  /** What the next task runs by. `started` once it does. */
  async setSpec(id: string, spec: OciSpec): Promise<void> {
    const { containers } = this.#containerd;
    const change = { container: { id, spec: specAny(spec) }, updateMask: { paths: ["spec"] } };
    await containers.update(change, this.#containerd.call({ timeoutMs: updateMs }));
  }

  started(id: string, spec: OciSpec): void {
    this.#specs.set(id, spec);
  }

  /** Deletes record and writable layer, whatever of them is there. */
  async remove(id: string): Promise<void> {
    const { containers, snapshots } = this.#containerd;
    const call = this.#containerd.call();
    await Promise.all([
      ignoreNotFound(snapshots.remove({ snapshotter, key: id }, call)),
      ignoreNotFound(containers.delete({ id }, call)),
    ]);
    this.#mounts.delete(id);
    this.#specs.delete(id);
  }
}

/** Undefined where what was to be made is there already. */
export async function allowExisting<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (isAlreadyExists(error)) return undefined;
    throw error;
  }
}
