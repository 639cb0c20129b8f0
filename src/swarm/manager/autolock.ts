/** The key that unlocks the managers: in the store, where every manager learns it, and with the users. */
import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { Cluster } from "#proto/docker/swarmkit/objects_pb.js";
import type { ClusterSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { type EncryptionKey, EncryptionKeySchema } from "#proto/docker/swarmkit/types_pb.js";
import { KEY_BYTES } from "../ca/seal.ts";

const SUBSYSTEM = "manager";

/** The cluster's unlock keys under this spec: none, the one there is, or a new one. */
export function unlockKeysFor(spec: ClusterSpec, present: readonly EncryptionKey[], rotate: boolean): EncryptionKey[] {
  if (!spec.encryptionConfig?.autoLockManagers) return [];
  const own = present.filter(({ subsystem }) => subsystem === SUBSYSTEM);
  if (own.length > 0 && !rotate) return [...own];
  return [create(EncryptionKeySchema, { subsystem: SUBSYSTEM, key: randomBytes(KEY_BYTES) })];
}

/** Whether `unlockKeysFor` makes a new one. */
export function makesUnlockKey(spec: ClusterSpec, { unlockKeys }: Cluster, rotate: boolean): boolean {
  if (!spec.encryptionConfig?.autoLockManagers) return false;
  return rotate || !unlockKeys.some(({ subsystem }) => subsystem === SUBSYSTEM);
}

/** With what this cluster's managers are to be locked; undefined when they are not. */
export function unlockKeyOf(cluster: Cluster | undefined): Uint8Array | undefined {
  if (!cluster?.spec?.encryptionConfig?.autoLockManagers) return undefined;
  return cluster.unlockKeys.find(({ subsystem }) => subsystem === SUBSYSTEM)?.key;
}
