/** Parts that several objects share: annotations, drivers, meta. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Meta } from "#proto/docker/swarmkit/objects_pb.js";
import type { Annotations, AnnotationsSchema, Driver } from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../../base/errors.ts";
import { dict, optional, type ShapeOf, str } from "../../../base/shape.ts";
import { nz, timeToJson } from "./render.ts";
import { strict } from "./strict.ts";

/** Annotations are embedded: their two fields stand among those of the spec. */
export const annotationFields = { Name: str, Labels: dict(str) };

const driverShape = strict({ Name: str, Options: dict(str) });
export const driver = optional(driverShape);
export type DriverJson = ShapeOf<typeof driverShape>;

export function annotationsToProto(spec: {
  Name: string;
  Labels: Record<string, string>;
}): MessageInitShape<typeof AnnotationsSchema> {
  return { name: spec.Name, labels: spec.Labels };
}

export function annotationsToJson(annotations: Annotations | undefined) {
  return { Name: nz(annotations?.name), Labels: annotations?.labels ?? {} };
}

export const driverToProto = (json: DriverJson | undefined) => json && { name: json.Name, options: json.Options };

export const driverToJson = (proto: Driver) => ({ Name: nz(proto.name), Options: nz(proto.options) });

/** The head of every object. */
export function metaToJson(id: string, meta: Meta | undefined) {
  return {
    ID: id,
    Version: versionToJson(meta?.version?.index),
    CreatedAt: timeToJson(meta?.createdAt),
    UpdatedAt: timeToJson(meta?.updatedAt),
  };
}

export const versionToJson = (index: bigint | undefined) => (index ? { Index: Number(index) } : {});

/** An integer of JSON as uint64. */
export function uint64(value: number, field: string): bigint {
  if (value < 0) throw invalid(`json: cannot unmarshal number ${value} into Go struct field ${field} of type uint64`);
  return BigInt(value);
}

export function uint32(value: number, field: string): number {
  if (value < 0 || value > 0xffffffff) {
    throw invalid(`json: cannot unmarshal number ${value} into Go struct field ${field} of type uint32`);
  }
  return value;
}
