/** Secrets and configs: they differ by what a reader gets to see. */
import { create } from "@bufbuild/protobuf";
import type { Config, Secret } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type ConfigSpec,
  ConfigSpecSchema,
  type SecretSpec,
  SecretSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import type { ShapeOf } from "../../../base/shape.ts";
import {
  annotationFields,
  annotationsToJson,
  annotationsToProto,
  driver,
  driverToJson,
  driverToProto,
  metaToJson,
} from "./common.ts";
import { bytesToJson, ptr } from "./render.ts";
import { base64, refused, strict } from "./strict.ts";

export const secretSpec = strict({
  ...annotationFields,
  Data: base64,
  Driver: refused("secret drivers"),
  Templating: driver,
});
export const configSpec = strict({ ...annotationFields, Data: base64, Templating: driver });

export function secretSpecToProto(json: ShapeOf<typeof secretSpec>): SecretSpec {
  return create(SecretSpecSchema, {
    annotations: annotationsToProto(json),
    data: json.Data,
    templating: driverToProto(json.Templating),
  });
}

export function configSpecToProto(json: ShapeOf<typeof configSpec>): ConfigSpec {
  return create(ConfigSpecSchema, {
    annotations: annotationsToProto(json),
    data: json.Data,
    templating: driverToProto(json.Templating),
  });
}

/** A secret without its data: that never leaves the managers but to the tasks that use it. */
export function secretToJson(secret: Secret) {
  return {
    ...metaToJson(secret.id, secret.meta),
    Spec: {
      ...annotationsToJson(secret.spec?.annotations),
      Driver: ptr(secret.spec?.driver, driverToJson),
      Templating: ptr(secret.spec?.templating, driverToJson),
    },
  };
}

export function configToJson(config: Config) {
  return {
    ...metaToJson(config.id, config.meta),
    Spec: {
      ...annotationsToJson(config.spec?.annotations),
      Data: ptr(config.spec?.data, bytesToJson),
      Templating: ptr(config.spec?.templating, driverToJson),
    },
  };
}
