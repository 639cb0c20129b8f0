/**
 * Network keys: for gossip and for IPsec a ring of three AES-128 keys each. Senders use the middle one, receivers take
 * all three, so a rotation loses nothing while nodes are at most one rotation apart.
 */

import { randomBytes, randomInt } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { Cluster } from "#proto/docker/swarmkit/objects_pb.js";
import { type EncryptionKey, EncryptionKeySchema } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Store } from "../store/store.ts";
import { Loop } from "./loop.ts";

export const SUBSYSTEMS = ["networking:gossip", "networking:ipsec"] as const;
const RING = 3;
const KEY_BYTES = 16;
const ROTATION_MS = 12 * 3_600_000;

export interface KeyRing {
  readonly keys: EncryptionKey[];
  /** Lamport time of the newest key. */
  readonly clock: bigint;
}

function newKey(subsystem: string, clock: bigint, random: (size: number) => Uint8Array): EncryptionKey {
  return create(EncryptionKeySchema, { subsystem, key: random(KEY_BYTES), lamportTime: clock });
}

/** The first ring of a cluster. */
export function firstKeys(random: (size: number) => Uint8Array = randomBytes, start = randomInt(65536)): KeyRing {
  let clock = BigInt(start);
  const keys = SUBSYSTEMS.flatMap((subsystem) =>
    Array.from({ length: RING }, () => newKey(subsystem, ++clock, random)),
  );
  return { keys, clock };
}

/** Drops the oldest key of each subsystem and adds a fresh one. */
export function rotateKeys(ring: KeyRing, random: (size: number) => Uint8Array = randomBytes): KeyRing {
  let clock = ring.clock;
  const keys = SUBSYSTEMS.flatMap((subsystem) => {
    const kept = ring.keys
      .filter((key) => key.subsystem === subsystem)
      .sort((a, b) => (a.lamportTime < b.lamportTime ? -1 : 1))
      .slice(1 - RING);
    while (kept.length < RING) kept.push(newKey(subsystem, ++clock, random));
    return kept;
  });
  return { keys, clock };
}

/** Rotates every twelve hours, counted from the manager's start, as SwarmKit's leader does. */
export class KeyManager {
  readonly #loop: Loop;

  constructor(store: Store, clusterId: string, clock: Clock, log: Logger) {
    this.#loop = new Loop({
      name: "key rotation",
      clock,
      log,
      debounceMs: ROTATION_MS,
      work: async () => {
        await store.update((tx) => {
          const cluster = tx.get("cluster", clusterId);
          if (cluster) tx.update("cluster", withRing(cluster, rotateKeys(ringOf(cluster))));
        });
        log.info("rotated the network keys");
        this.#loop.mark();
      },
    });
    this.#loop.mark();
  }

  close(): void {
    this.#loop.close();
  }
}

function ringOf(cluster: Cluster): KeyRing {
  return { keys: cluster.networkBootstrapKeys, clock: cluster.encryptionKeyLamportClock };
}

function withRing(cluster: Cluster, ring: KeyRing): Cluster {
  return { ...cluster, networkBootstrapKeys: ring.keys, encryptionKeyLamportClock: ring.clock };
}
