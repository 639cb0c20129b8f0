/** Docker's rules for the keys of gossip. */
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
  const sorted = keys.toSorted((a, b) => (a.lamportTime < b.lamportTime ? -1 : a.lamportTime > b.lamportTime ? 1 : 0));
  const [first, second, ...rest] = sorted.map(({ key }) => key);
  return [second, first, ...rest].filter((key) => key !== undefined);
}
