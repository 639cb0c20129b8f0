/**
 * A table of our own on the ingress network: one entry per Skein node with its door to the routing mesh. Real
 * Docker nodes carry it along and ignore it; a node without an entry is one of theirs, and gets Docker's
 * treatment (the entry node hides the client's address).
 */
import * as z from "zod";
import { isMac, parseIp } from "../address.ts";

export const meshTable = "skein_mesh";

/** `ingress_sbox` of a node on the ingress network. */
export interface MeshDoor {
  readonly address: string;
  readonly mac: string;
  /** The node's tasks can answer clients of other nodes through those nodes' doors. */
  readonly returns: boolean;
  /**
   * MAC of the host's own leg in the network, another way to the same node. A node that tells of its own understands the
   * others': its tasks answer by whichever of the two their client came.
   */
  readonly leg?: string | undefined;
}

const schema = z.object({
  address: z.string().refine((text) => parseIp(text)?.family === 4),
  mac: z.string().refine(isMac),
  returns: z.boolean(),
  leg: z.string().refine(isMac).optional(),
});

export const encodeDoor = (door: MeshDoor): Uint8Array => Buffer.from(JSON.stringify(door));

export function decodeDoor(bytes: Uint8Array): MeshDoor | undefined {
  try {
    return schema.parse(JSON.parse(Buffer.from(bytes).toString("utf8")));
  } catch {
    return undefined;
  }
}
