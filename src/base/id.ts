import { randomBytes } from "node:crypto";

/**
 * A SwarmKit identifier: 25 characters of [0-9a-z]. 17 random bytes, top bit set, as an integer
 * in base 36, first digit dropped.
 */
export function swarmId(random: (size: number) => Uint8Array = randomBytes): string {
  const bytes = random(17);
  bytes[0] = (bytes[0] ?? 0) | 0x80;
  const text = BigInt(`0x${Buffer.from(bytes).toString("hex")}`).toString(36);
  return text.slice(1, 26);
}

/** 64 hex characters: ids of containers, local networks, endpoints, sandboxes, execs. */
export function hexId(): string {
  return randomBytes(32).toString("hex");
}

/** Docker's short form of an id. */
export function shortId(id: string): string {
  return id.slice(0, 12);
}
