import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type Mount,
  Mount_BindOptions_Propagation,
  Mount_Consistency,
  Mount_Type,
  type MountSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import { invalid, notImplemented } from "../../../base/errors.ts";
import { bool, dict, int, optional, type ShapeOf, str } from "../../../base/shape.ts";
import { driver, driverToJson, driverToProto, uint32 } from "./common.ts";
import { enumValue, nz, ptr, wordOf } from "./render.ts";
import { refused, strict } from "./strict.ts";

export const mountShape = strict({
  Type: str,
  Source: str,
  Target: str,
  ReadOnly: bool,
  Consistency: str,
  BindOptions: optional(
    strict({
      Propagation: str,
      NonRecursive: bool,
      CreateMountpoint: bool,
      ReadOnlyNonRecursive: bool,
      ReadOnlyForceRecursive: bool,
    }),
  ),
  VolumeOptions: optional(strict({ NoCopy: bool, Labels: dict(str), Subpath: str, DriverConfig: driver })),
  TmpfsOptions: optional(strict({ SizeBytes: int, Mode: int, Options: refused("tmpfs options in service mounts") })),
  ImageOptions: refused("image mounts"),
  ClusterOptions: refused("cluster volumes (CSI)"),
});
export type MountJson = ShapeOf<typeof mountShape>;

export function mountToProto(json: MountJson): MessageInitShape<typeof MountSchema> {
  const type = json.Type === "" ? Mount_Type.BIND : enumValue(Mount_Type, json.Type);
  if (type === undefined) throw invalid(`invalid MountType: ${JSON.stringify(json.Type)}`);
  if (type === Mount_Type.NPIPE) throw notImplemented("named pipe mounts");
  if (type === Mount_Type.CLUSTER) throw notImplemented("cluster volumes (CSI)");
  const consistency =
    json.Consistency === "" ? Mount_Consistency.DEFAULT : enumValue(Mount_Consistency, json.Consistency);
  if (consistency === undefined) throw invalid(`invalid mount consistency: ${JSON.stringify(json.Consistency)}`);
  return {
    type,
    source: json.Source,
    target: json.Target,
    readonly: json.ReadOnly,
    consistency,
    bindOptions: ptr(json.BindOptions, (options) => {
      const propagation =
        options.Propagation === ""
          ? Mount_BindOptions_Propagation.RPRIVATE
          : enumValue(Mount_BindOptions_Propagation, options.Propagation);
      if (propagation === undefined) {
        throw invalid(`invalid MountPropagation: ${JSON.stringify(options.Propagation)}`);
      }
      return {
        propagation,
        nonrecursive: options.NonRecursive,
        createmountpoint: options.CreateMountpoint,
        readonlynonrecursive: options.ReadOnlyNonRecursive,
        readonlyforcerecursive: options.ReadOnlyForceRecursive,
      };
    }),
    volumeOptions: ptr(json.VolumeOptions, (options) => ({
      nocopy: options.NoCopy,
      labels: options.Labels,
      subpath: options.Subpath,
      driverConfig: driverToProto(options.DriverConfig),
    })),
    tmpfsOptions: ptr(json.TmpfsOptions, (options) => ({
      sizeBytes: BigInt(options.SizeBytes),
      mode: uint32(options.Mode, "Mounts.TmpfsOptions.Mode"),
    })),
  };
}

export function mountToJson(mount: Mount) {
  return {
    Type: wordOf(Mount_Type, mount.type),
    Source: nz(mount.source),
    Target: nz(mount.target),
    ReadOnly: nz(mount.readonly),
    Consistency:
      mount.consistency === Mount_Consistency.DEFAULT ? undefined : wordOf(Mount_Consistency, mount.consistency),
    BindOptions: ptr(mount.bindOptions, (options) => ({
      Propagation: wordOf(Mount_BindOptions_Propagation, options.propagation),
      NonRecursive: nz(options.nonrecursive),
      CreateMountpoint: nz(options.createmountpoint),
      ReadOnlyNonRecursive: nz(options.readonlynonrecursive),
      ReadOnlyForceRecursive: nz(options.readonlyforcerecursive),
    })),
    VolumeOptions: ptr(mount.volumeOptions, (options) => ({
      NoCopy: nz(options.nocopy),
      Labels: nz(options.labels),
      Subpath: nz(options.subpath),
      DriverConfig: ptr(options.driverConfig, driverToJson),
    })),
    TmpfsOptions: ptr(mount.tmpfsOptions, (options) => ({
      SizeBytes: nz(Number(options.sizeBytes)),
      Mode: nz(options.mode),
    })),
  };
}
