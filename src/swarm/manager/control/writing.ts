/** What writing requests have in common: the version they expect, the name they may not take. */
import { type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import type { Service } from "#proto/docker/swarmkit/objects_pb.js";
import { UpdateStatus_UpdateState } from "#proto/docker/swarmkit/types_pb.js";
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
export function atVersion<K extends Kind>(
  tx: Pick<Transaction, "get">,
  kind: K,
  id: string,
  version: bigint,
): ObjectOf<K> {
  const object = tx.get(kind, id);
  if (!object) throw rpcError("NotFound", `${kind} ${id} not found`);
  if (versionOf(object) !== version) throw outOfSequence();
  return object;
}

/**
 * The service for an update by somebody who read it at `version`. Docker refuses when anything of the object changed
 * since, also what the managers write themselves (addresses, the update's progress), which makes quick scripts fail by
 * chance. What must not be lost is another's spec: `specVersion` is the version that the present spec was written on, so
 * who read a later one has seen it. A roll back puts an old number there; then only the very version will do.
 */
export function atSpecVersion(tx: Transaction, id: string, version: bigint): Service {
  const service = tx.get("service", id);
  const written = service?.specVersion?.index;
  if (
    service &&
    written !== undefined &&
    !isRolledBack(service) &&
    written < version &&
    version <= versionOf(service)
  ) {
    return service;
  }
  return atVersion(tx, "service", id, version);
}

function isRolledBack({ updateStatus }: Service): boolean {
  return updateStatus !== undefined && updateStatus.state >= UpdateStatus_UpdateState.ROLLBACK_STARTED;
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
