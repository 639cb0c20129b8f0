/** The kinds of objects the store keeps, their messages and what is common to all. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import {
  type Cluster,
  ClusterSchema,
  type Config,
  ConfigSchema,
  MetaSchema,
  type Network,
  NetworkSchema,
  type Node,
  NodeSchema,
  type Secret,
  SecretSchema,
  type Service,
  ServiceSchema,
  type Task,
  TaskSchema,
} from "#proto/docker/swarmkit/objects_pb.js";
import { VersionSchema } from "#proto/docker/swarmkit/types_pb.js";

export interface ObjectTypes {
  cluster: Cluster;
  node: Node;
  network: Network;
  service: Service;
  task: Task;
  secret: Secret;
  config: Config;
}

export type Kind = keyof ObjectTypes;
export type ObjectOf<K extends Kind> = ObjectTypes[K];
export type AnyObject = ObjectTypes[Kind];

export const KINDS = ["cluster", "node", "network", "service", "task", "secret", "config"] as const satisfies Kind[];

const schemas = {
  cluster: ClusterSchema,
  node: NodeSchema,
  network: NetworkSchema,
  service: ServiceSchema,
  task: TaskSchema,
  secret: SecretSchema,
  config: ConfigSchema,
} as const;

/** True for the name of a kind. */
export function isKind(text: string): text is Kind {
  return Object.hasOwn(schemas, text);
}

/** The object's bytes as they are stored. */
export function encode<K extends Kind>(kind: K, object: ObjectOf<K>): Uint8Array {
  return toBinary(schemas[kind] as never, object as never);
}

/** Reads stored bytes; `version` is the revision at which they were written. */
export function decode<K extends Kind>(kind: K, bytes: Uint8Array, version: bigint): ObjectOf<K> {
  const object = fromBinary(schemas[kind] as never, bytes) as ObjectOf<K>;
  return withVersion(object, version);
}

/** The object's version; 0 for one that was never stored. */
export function versionOf(object: AnyObject): bigint {
  return object.meta?.version?.index ?? 0n;
}

/** A copy that carries this version. */
export function withVersion<T extends AnyObject>(object: T, index: bigint): T {
  const meta = object.meta ?? create(MetaSchema);
  return { ...object, meta: { ...meta, version: create(VersionSchema, { index }) } };
}

/** A copy whose meta says that it was created or updated now. Whoever creates may ask for a later moment of creation. */
export function stamped<T extends AnyObject>(object: T, now: number, version: bigint, created: boolean): T {
  const time = timestampFromMs(now);
  const asked = object.meta?.createdAt;
  const later = asked && timestampMs(asked) > now ? asked : time;
  const meta = create(MetaSchema, {
    version: { index: version },
    createdAt: created ? later : (asked ?? time),
    updatedAt: time,
  });
  return { ...object, meta };
}

/** The name by which the object is indexed, lower case; undefined when it has none. */
export function nameOf(kind: Kind, object: AnyObject): string | undefined {
  if (kind === "task") return undefined;
  const spec = (object as Exclude<AnyObject, Task>).spec;
  return spec?.annotations?.name.toLowerCase() || undefined;
}
