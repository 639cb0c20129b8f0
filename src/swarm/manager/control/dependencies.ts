/** Secrets and configs: made once, used by services; only their labels may change. */
import { create, equals } from "@bufbuild/protobuf";
import { type Config, ConfigSchema, type Secret, SecretSchema } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type ConfigSpec,
  ConfigSpecSchema,
  type SecretSpec,
  SecretSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import { notFound } from "../../../base/errors.ts";
import { swarmId } from "../../../base/id.ts";
import type { Store } from "../../store/store.ts";
import type { Transaction } from "../../store/transaction.ts";
import type { ControlApi } from "../../types.ts";
import { dependenciesOf } from "../dispatcher/assignments.ts";
import { rpcError } from "./errors.ts";
import { checkFileName } from "./validate.ts";
import { atVersion, canonical, creating } from "./writing.ts";

const MAX_SECRET_BYTES = 500 * 1024;
const MAX_CONFIG_BYTES = 1000 * 1024;

type Half = Pick<
  ControlApi,
  | "secrets"
  | "secret"
  | "createSecret"
  | "updateSecret"
  | "removeSecret"
  | "configs"
  | "config"
  | "createConfig"
  | "updateConfig"
  | "removeConfig"
>;

export function dependencyApi(store: Store): Half {
  const get = <K extends "secret" | "config">(kind: K, id: string) => {
    const object = store.view.get(kind, id);
    if (!object) throw notFound(`${kind} ${id} not found`);
    return object;
  };
  const remove = (kind: "secret" | "config") => (id: string) =>
    store.update((tx) => {
      const object = tx.get(kind, id);
      if (!object) throw rpcError("NotFound", `could not find ${kind} ${id}`);
      const users = usersOf(kind, id, tx);
      if (users.length > 0) {
        const noun = users.length === 1 ? "service" : "services";
        const name = object.spec?.annotations?.name;
        throw rpcError("InvalidArgument", `${kind} '${name}' is in use by the following ${noun}: ${users.join(", ")}`);
      }
      tx.remove(kind, id);
    });
  return {
    secrets: () => store.view.all("secret"),
    secret: (id) => store.view.get("secret", id),
    createSecret: async (given) => {
      const spec = canonical(SecretSpecSchema, given);
      const name = checkFileName(spec.annotations);
      if (spec.driver) throw rpcError("Unimplemented", "secret drivers are not supported by skein yet");
      checkSize("secret", spec.data, MAX_SECRET_BYTES);
      const secret = create(SecretSchema, { id: swarmId(), spec });
      await creating(
        "secret",
        name,
        store.update((tx) => tx.create("secret", secret)),
      );
      return get("secret", secret.id);
    },
    updateSecret: async (id, version, spec) => {
      await store.update((tx) => {
        const secret: Secret = atVersion(tx, "secret", id, version);
        const kept = secret.spec ?? create(SecretSpecSchema);
        checkOnlyLabels(equals(SecretSpecSchema, frozen(kept, spec), kept), spec, kept);
        tx.update("secret", { ...secret, spec: relabelled(kept, spec) });
      });
      return get("secret", id);
    },
    removeSecret: remove("secret"),
    configs: () => store.view.all("config"),
    config: (id) => store.view.get("config", id),
    createConfig: async (given) => {
      const spec = canonical(ConfigSpecSchema, given);
      const name = checkFileName(spec.annotations);
      checkSize("config", spec.data, MAX_CONFIG_BYTES);
      const config = create(ConfigSchema, { id: swarmId(), spec });
      await creating(
        "config",
        name,
        store.update((tx) => tx.create("config", config)),
      );
      return get("config", config.id);
    },
    updateConfig: async (id, version, spec) => {
      await store.update((tx) => {
        const config: Config = atVersion(tx, "config", id, version);
        const kept = config.spec ?? create(ConfigSpecSchema);
        checkOnlyLabels(equals(ConfigSpecSchema, frozen(kept, spec), kept), spec, kept);
        tx.update("config", { ...config, spec: relabelled(kept, spec) });
      });
      return get("config", id);
    },
    removeConfig: remove("config"),
  };
}

function checkSize(kind: string, data: Uint8Array, max: number): void {
  if (data.length === 0 || data.length >= max) {
    throw rpcError("InvalidArgument", `${kind} data must be larger than 0 and less than ${max} bytes`);
  }
}

/** The new spec with the labels of the old one; data left out means unchanged. */
function frozen<S extends SecretSpec | ConfigSpec>(kept: S, spec: S): S {
  return { ...spec, annotations: kept.annotations, data: spec.data.length > 0 ? spec.data : kept.data };
}

function checkOnlyLabels(same: boolean, spec: SecretSpec | ConfigSpec, kept: SecretSpec | ConfigSpec): void {
  const name = spec.annotations?.name ?? "";
  if (!same || (name !== "" && name !== kept.annotations?.name)) {
    throw rpcError("InvalidArgument", "only updates to Labels are allowed");
  }
}

function relabelled<S extends SecretSpec | ConfigSpec>(kept: S, spec: S): S {
  return { ...kept, annotations: kept.annotations && { ...kept.annotations, labels: spec.annotations?.labels ?? {} } };
}

/** Names of the services that use a secret or config. */
function usersOf(kind: "secret" | "config", id: string, tx: Transaction): string[] {
  const uses = tx.all("service").filter(({ spec }) => {
    const { secrets, configs } = dependenciesOf(spec?.task);
    return (kind === "secret" ? secrets : configs).includes(id);
  });
  return uses.map((service) => service.spec?.annotations?.name ?? service.id);
}
