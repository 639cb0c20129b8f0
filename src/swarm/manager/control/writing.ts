/** What writing requests have in common: the version they expect, the name they may not take. */
import { type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { SkeinError } from "../../../base/errors.ts";
import { type Kind, type ObjectOf, versionOf } from "../../store/objects.ts";
import type { Transaction } from "../../store/transaction.ts";
import { outOfSequence, rpcError } from "./errors.ts";

/**
 * A copy of what a user gave, as it would come over the wire: complete, and nobody else's to change later. What is no
 * such message throws here and not in some loop.
 */
export function canonical<S extends DescMessage>(schema: S, given: MessageShape<S>): MessageShape<S> {
  return fromBinary(schema, toBinary(schema, given));
}

/** The object at this version; throws "not found" or "update out of sequence". */
export function atVersion<K extends Kind>(tx: Transaction, kind: K, id: string, version: bigint): ObjectOf<K> {
  const object = tx.get(kind, id);
  if (!object) throw rpcError("NotFound", `${kind} ${id} not found`);
  if (versionOf(object) !== version) throw outOfSequence();
  return object;
}

/** Runs a transaction; a name that is taken is told in Docker's words for this kind. */
export async function creating<T>(kind: string, name: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof SkeinError && error.message.startsWith("name conflicts")) {
      const prefix = kind === "service" ? "name conflicts with an existing object: " : "";
      throw rpcError("AlreadyExists", `${prefix}${kind} ${name} already exists`);
    }
    throw error;
  }
}
