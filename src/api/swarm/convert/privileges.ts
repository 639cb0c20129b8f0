import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type Privileges,
  Privileges_AppArmorOpts_AppArmorMode,
  Privileges_SeccompOpts_SeccompMode,
  type PrivilegesSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../../base/errors.ts";
import { bool, optional, type ShapeOf, str } from "../../../base/shape.ts";
import { bytesToJson, enumValue, ptr, wordOf } from "./render.ts";
import { base64, refused, strict } from "./strict.ts";

const privilegesShape = strict({
  CredentialSpec: refused("credential specs"),
  SELinuxContext: optional(strict({ Disable: bool, User: str, Role: str, Type: str, Level: str })),
  Seccomp: optional(strict({ Mode: str, Profile: base64 })),
  AppArmor: optional(strict({ Mode: str })),
  NoNewPrivileges: bool,
});
export const privileges = optional(privilegesShape);
export type PrivilegesJson = ShapeOf<typeof privilegesShape>;

export function privilegesToProto(json: PrivilegesJson): MessageInitShape<typeof PrivilegesSchema> {
  return {
    noNewPrivileges: json.NoNewPrivileges,
    selinuxContext: ptr(json.SELinuxContext, (context) => ({
      disable: context.Disable,
      user: context.User,
      role: context.Role,
      type: context.Type,
      level: context.Level,
    })),
    seccomp: ptr(json.Seccomp, (seccomp) => {
      const mode = seccomp.Mode === "" ? 0 : enumValue(Privileges_SeccompOpts_SeccompMode, seccomp.Mode);
      if (mode === undefined) throw invalid(`unknown seccomp mode ${JSON.stringify(seccomp.Mode)}`);
      return { mode, profile: seccomp.Profile };
    }),
    apparmor: ptr(json.AppArmor, (apparmor) => {
      const mode = apparmor.Mode === "" ? 0 : enumValue(Privileges_AppArmorOpts_AppArmorMode, apparmor.Mode);
      if (mode === undefined) throw invalid(`unknown AppArmor mode ${JSON.stringify(apparmor.Mode)}`);
      return { mode };
    }),
  };
}

export function privilegesToJson(proto: Privileges) {
  const source = proto.credentialSpec?.source;
  return {
    CredentialSpec: proto.credentialSpec
      ? {
          Config: source?.case === "config" ? source.value : "",
          File: source?.case === "file" ? source.value : "",
          Registry: source?.case === "registry" ? source.value : "",
        }
      : null,
    SELinuxContext: proto.selinuxContext
      ? {
          Disable: proto.selinuxContext.disable,
          User: proto.selinuxContext.user,
          Role: proto.selinuxContext.role,
          Type: proto.selinuxContext.type,
          Level: proto.selinuxContext.level,
        }
      : null,
    Seccomp: ptr(proto.seccomp, (seccomp) => ({
      Mode: wordOf(Privileges_SeccompOpts_SeccompMode, seccomp.mode),
      Profile: bytesToJson(seccomp.profile),
    })),
    AppArmor: ptr(proto.apparmor, (apparmor) => ({
      Mode: wordOf(Privileges_AppArmorOpts_AppArmorMode, apparmor.mode),
    })),
    NoNewPrivileges: proto.noNewPrivileges,
  };
}
