/** Docker's rules for the keys of gossip. */
import { createHash } from "node:crypto";
import { invalid } from "../base/errors.ts";
import type { GossipKey } from "./types.ts";

/** The ring of a swarm has three keys: one going, one in use, one coming. */
const maxKeys = 3;

/**
 * The ring in memberlist's order. The second oldest key is used to send: nodes that are one rotation apart in
 * either direction still understand each other.
 */
export function keyRing(keys: readonly GossipKey[]): Uint8Array[] {
  if (keys.length === 0 || keys.length > maxKeys) throw invalid(`invalid number of gossip keys: ${keys.length}`);
  for (const { key } of keys) {
    if (![16, 24, 32].includes(key.length)) throw invalid(`invalid size of gossip key: ${key.length}`);
  }
  const [first, second, ...rest] = byAge(keys).map(({ key }) => key);
  return [second, first, ...rest].filter((key) => key !== undefined);
}

const byAge = (keys: readonly GossipKey[]): GossipKey[] =>
  keys.toSorted((a, b) => (a.lamportTime < b.lamportTime ? -1 : a.lamportTime > b.lamportTime ? 1 : 0));

/** A key as it may be shown. */
export interface KeyId {
  /** The same on every node that has the key, and nothing that leads back to it. */
  readonly id: string;
  readonly lamportTime: bigint;
  /** Sending uses this one; the others are only read with. */
  readonly sends: boolean;
}

export function keyIds(keys: readonly GossipKey[]): KeyId[] {
  return byAge(keys).map(({ key, lamportTime }, index, all) => ({
    id: createHash("sha256").update("skein key id").update(key).digest("hex").slice(0, 8),
    lamportTime,
    sends: index === Math.min(1, all.length - 1),
  }));
}
