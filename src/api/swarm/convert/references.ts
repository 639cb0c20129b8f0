/** References of a container to secrets and configs. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  ConfigReference,
  ConfigReferenceSchema,
  FileTarget,
  SecretReference,
  SecretReferenceSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../../base/errors.ts";
import { int, optional, type ShapeOf, str } from "../../../base/shape.ts";
import { uint32 } from "./common.ts";
import { marker, strict } from "./strict.ts";

const fileTarget = strict({ Name: str, UID: str, GID: str, Mode: int });
export const secretReference = strict({ File: optional(fileTarget), SecretID: str, SecretName: str });
export const configReference = strict({
  File: optional(fileTarget),
  Runtime: marker,
  ConfigID: str,
  ConfigName: str,
});

const fileToProto = (file: ShapeOf<typeof fileTarget>) => ({
  name: file.Name,
  uid: file.UID,
  gid: file.GID,
  mode: uint32(file.Mode, "File.Mode"),
});

const fileToJson = (file: FileTarget) => ({ Name: file.name, UID: file.uid, GID: file.gid, Mode: file.mode });

export function secretReferenceToProto(
  json: ShapeOf<typeof secretReference>,
): MessageInitShape<typeof SecretReferenceSchema> {
  if (!json.File) throw invalid("malformed secret reference: a target file must be given");
  return {
    secretId: json.SecretID,
    secretName: json.SecretName,
    target: { case: "file", value: fileToProto(json.File) },
  };
}

export function configReferenceToProto(
  json: ShapeOf<typeof configReference>,
): MessageInitShape<typeof ConfigReferenceSchema> {
  if (!json.File && !json.Runtime) throw invalid("invalid Config: either File or Runtime should be set");
  if (json.File && json.Runtime) throw invalid("invalid Config: cannot specify both File and Runtime");
  return {
    configId: json.ConfigID,
    configName: json.ConfigName,
    target: json.File ? { case: "file", value: fileToProto(json.File) } : { case: "runtime", value: {} },
  };
}

/** Empty for a reference whose target is no file, as Docker drops it. */
export function secretReferenceToJson(proto: SecretReference) {
  if (proto.target.case !== "file") return [];
  return [{ File: fileToJson(proto.target.value), SecretID: proto.secretId, SecretName: proto.secretName }];
}

interface ConfigReferenceOut {
  readonly File?: ReturnType<typeof fileToJson>;
  readonly Runtime?: Record<string, never>;
  readonly ConfigID: string;
  readonly ConfigName: string;
}

export function configReferenceToJson(proto: ConfigReference): ConfigReferenceOut[] {
  const ids = { ConfigID: proto.configId, ConfigName: proto.configName };
  if (proto.target.case === "runtime") return [{ Runtime: {}, ...ids }];
  if (proto.target.case === "file") return [{ File: fileToJson(proto.target.value), ...ids }];
  return [];
}
