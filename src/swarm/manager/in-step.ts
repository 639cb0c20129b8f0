/** What every manager, leading or not, does as the store changes: it goes by the swarm's other managers, root and lock. */
import type { Cluster } from "#proto/docker/swarmkit/objects_pb.js";
import type { Logger } from "../../base/log.ts";
import { heldUnlockKey, lockKeysWith } from "../ca/files.ts";
import type { Store } from "../store/store.ts";
import { unlockKeyOf } from "./autolock.ts";

export interface Steps {
  /** Some node is another, came or went: it may be a manager. */
  readonly managers: () => void;
  readonly removed: (nodeId: string) => void;
  /** The root that certificates are judged by is another. */
  readonly root: () => void;
  readonly cluster: () => void;
}

const none = Buffer.of();

/** The result ends it. */
export function keepInStep(store: Store, steps: Steps): () => void {
  return store.onCommit((changes) => {
    if (changes.some(({ kind }) => kind === "node")) steps.managers();
    for (const { action, kind, object } of changes) {
      if (kind === "node" && action === "remove") steps.removed(object.id);
    }
    for (const { kind, object, old } of changes) {
      if (kind !== "cluster") continue;
      if (Buffer.compare(object.rootCa?.caCert ?? none, old?.rootCa?.caCert ?? none) !== 0) steps.root();
      steps.cluster();
    }
  });
}

/** Keeps the keys on disk as locked as the cluster says. */
export function lockAsWanted(stateDir: string, cluster: Cluster | undefined, log: Logger): void {
  const wanted = unlockKeyOf(cluster);
  const held = heldUnlockKey(stateDir);
  if (Buffer.compare(wanted ?? none, held ?? none) === 0) return;
  lockKeysWith(stateDir, wanted);
  log.info(wanted ? "the keys of this manager are locked from now on" : "the keys of this manager are unlocked");
}
