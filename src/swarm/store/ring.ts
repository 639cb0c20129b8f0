/**
 * Which data key the store's values are encrypted under, and what follows from that. Pure. The ring lies in the store and
 * tells no key, only names (`keyId`); the keys themselves are on the managers' disks only (`data-keys.ts`).
 *
 * A change of the data key goes: a new key is put on the disks of a quorum of managers; the ring names it (from here on
 * nothing can be written under another one: each commit compares the ring); every value is encrypted anew; the ring says
 * that this is done; each manager takes the former ciphertexts out of its database and then forgets the former keys. A
 * leader that finds the ring changing goes on from there, and so does a manager that finds keys that are not needed.
 */
import * as z from "zod";
import { SkeinError } from "../../base/errors.ts";
import type { DataKey } from "../ca/files.ts";
import { keyId, sealedAs } from "../ca/seal.ts";

const schema = z.object({
  generation: z.number().int().nonnegative(),
  /** Under which everything is written. */
  current: z.string(),
  /** Values may still be encrypted under a former key, or under none. */
  changing: z.boolean(),
});
export type Ring = z.infer<typeof schema>;

/** Throws UNAVAILABLE for what a later version wrote otherwise. */
export function parseRing(bytes: Uint8Array): Ring {
  try {
    return schema.parse(JSON.parse(new TextDecoder().decode(bytes)));
  } catch (cause) {
    throw new SkeinError("unavailable", "the ring of data keys in the swarm store is not understood", { cause });
  }
}

export const formatRing = (ring: Ring): Uint8Array => new TextEncoder().encode(JSON.stringify(ring));

/** The generation of the next data key. A store without a ring has its first key, or none. */
export const nextGeneration = (ring: Ring | undefined): number => (ring?.generation ?? 0) + 1;

/** The ring once this key is on the disks of a quorum. */
export function changedTo({ generation, key }: DataKey): Ring {
  return { generation, current: keyId(key), changing: true };
}

/** Once every value is encrypted under the current key. */
export const settled = (ring: Ring): Ring => ({ ...ring, changing: false });

/**
 * Whether a manager may need this key. One of a later generation was brought by a leader that is about to change the ring;
 * as generations only grow, one that the ring passed over never comes into it.
 */
export function isNeeded({ generation, key }: DataKey, ring: Ring | undefined): boolean {
  return !ring || ring.changing || generation > ring.generation || keyId(key) === ring.current;
}

/** Keys of attempts that came to nothing, at most so many: each one more pushes out the oldest. */
const MAX_FUTURE = 16;

/** The keys without the oldest of those brought too often. In the order in which they came. */
export function bounded(keys: readonly DataKey[], ring: Ring | undefined): DataKey[] {
  const generation = ring?.generation ?? 0;
  let surplus = keys.filter((key) => key.generation > generation).length - MAX_FUTURE;
  return keys.filter((key) => key.generation <= generation || surplus-- <= 0);
}

/** Whether this value is to be encrypted anew. */
export const isStale = (value: Uint8Array, ring: Ring): boolean => sealedAs(value) !== ring.current;

/** What a manager said when it was to keep a new key. */
export type Answer = "kept" | "away" | "older";

/** True when a key is on enough disks for the ring to name it. `answers`: of the voting members but the leader. */
export function isSafe(answers: readonly Answer[]): boolean {
  const kept = 1 + answers.filter((answer) => answer === "kept").length;
  return kept > (answers.length + 1) / 2;
}
