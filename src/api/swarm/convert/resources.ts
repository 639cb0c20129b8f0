/** Resource limits and reservations. Docker's API has the pids limit here, SwarmKit in the container. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { TaskSpec } from "#proto/docker/swarmkit/specs_pb.js";
import type {
  GenericResource,
  GenericResourceSchema,
  ResourceRequirementsSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../../base/errors.ts";
import { int, list, optional, type ShapeOf, str } from "../../../base/shape.ts";
import { nz, ptr } from "./render.ts";
import { strict } from "./strict.ts";

const genericResource = strict({
  NamedResourceSpec: optional(strict({ Kind: str, Value: str })),
  DiscreteResourceSpec: optional(strict({ Kind: str, Value: int })),
});

const resourcesShape = strict({
  Limits: optional(strict({ NanoCPUs: int, MemoryBytes: int, Pids: int })),
  Reservations: optional(strict({ NanoCPUs: int, MemoryBytes: int, GenericResources: list(genericResource) })),
  SwapBytes: optional(int),
  MemorySwappiness: optional(int),
});
export const resources = optional(resourcesShape);

function genericToProto(json: ShapeOf<typeof genericResource>): MessageInitShape<typeof GenericResourceSchema> {
  const { DiscreteResourceSpec: discrete, NamedResourceSpec: named } = json;
  if (discrete) {
    const value = { kind: discrete.Kind, value: BigInt(discrete.Value) };
    return { resource: { case: "discreteResourceSpec", value } };
  }
  if (named) return { resource: { case: "namedResourceSpec", value: { kind: named.Kind, value: named.Value } } };
  throw invalid("invalid generic resource: neither NamedResourceSpec nor DiscreteResourceSpec is set");
}

export function resourcesToProto(
  json: ShapeOf<typeof resourcesShape>,
): MessageInitShape<typeof ResourceRequirementsSchema> {
  return {
    limits: ptr(json.Limits, (l) => ({ nanoCpus: BigInt(l.NanoCPUs), memoryBytes: BigInt(l.MemoryBytes) })),
    reservations: ptr(json.Reservations, (r) => ({
      nanoCpus: BigInt(r.NanoCPUs),
      memoryBytes: BigInt(r.MemoryBytes),
      generic: r.GenericResources.map(genericToProto),
    })),
    swapBytes: ptr(json.SwapBytes, BigInt),
    memorySwappiness: ptr(json.MemorySwappiness, BigInt),
  };
}

export function genericToJson(proto: GenericResource) {
  const { resource } = proto;
  switch (resource.case) {
    case "discreteResourceSpec":
      return { DiscreteResourceSpec: { Kind: nz(resource.value.kind), Value: nz(Number(resource.value.value)) } };
    case "namedResourceSpec":
      return { NamedResourceSpec: { Kind: nz(resource.value.kind), Value: nz(resource.value.value) } };
    default:
      return {};
  }
}

export function resourcesToJson(task: TaskSpec) {
  const pids = task.runtime.case === "container" ? Number(task.runtime.value.pidsLimit) : 0;
  const requirements = task.resources;
  if (!requirements && pids === 0) return undefined;
  const limits = requirements?.limits;
  return {
    Limits:
      limits || pids
        ? {
            NanoCPUs: nz(Number(limits?.nanoCpus ?? 0)),
            MemoryBytes: nz(Number(limits?.memoryBytes ?? 0)),
            Pids: nz(pids),
          }
        : undefined,
    Reservations: ptr(requirements?.reservations, (r) => ({
      NanoCPUs: nz(Number(r.nanoCpus)),
      MemoryBytes: nz(Number(r.memoryBytes)),
      GenericResources: nz(r.generic.map(genericToJson)),
    })),
    SwapBytes: ptr(requirements?.swapBytes, Number),
    MemorySwappiness: ptr(requirements?.memorySwappiness, Number),
  };
}
