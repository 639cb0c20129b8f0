/** Secrets and configs of a task as the files its container gets. */
import { isAbsolute, join } from "node:path";
import type { Config, Secret, Task } from "#proto/docker/swarmkit/objects_pb.js";
import type { ContainerSpec } from "#proto/docker/swarmkit/specs_pb.js";
import type { Driver, FileTarget } from "#proto/docker/swarmkit/types_pb.js";
import { invalid, notFound } from "../../base/errors.ts";
import { ofStrings, type TemplateFunctions, type TemplateValue } from "../../base/template.ts";
import { expandPayload } from "../../swarm/expand.ts";
import type { Dependencies } from "../../swarm/types.ts";
import type { TaskExtras } from "../types.ts";

type PayloadFile = TaskExtras["files"][number];

function number(text: string, what: string): number {
  if (text === "") return 0;
  if (!/^\d{1,10}$/.test(text))
    throw invalid(`invalid ${what} ${JSON.stringify(text)} of a secret or config: not a number`);
  return Number(text);
}

function fileOf(file: FileTarget, directory: string, data: Uint8Array): PayloadFile {
  return {
    target: isAbsolute(file.name) ? file.name : join(directory, file.name),
    data,
    uid: number(file.uid, "uid"),
    gid: number(file.gid, "gid"),
    mode: file.mode & 0o7777,
  };
}

function rendered(
  kind: "secret" | "config",
  {
    id,
    spec,
  }: { readonly id: string; readonly spec?: { data: Uint8Array; templating?: Driver | undefined } | undefined },
  context: TemplateValue,
  functions: TemplateFunctions,
): Uint8Array {
  const { data = new Uint8Array(), templating } = spec ?? {};
  if (!templating || templating.name === "") return data;
  if (templating.name !== "golang") throw invalid("unrecognized template type");
  return expandPayload(kind, { id, data }, context, functions);
}

/** Throws when a secret or config that the spec names has not come to this node. */
export function payloadFiles(
  task: Task,
  spec: ContainerSpec,
  dependencies: Dependencies,
  context: TemplateValue,
): PayloadFile[] {
  const env = new Map(spec.env.map((entry) => [entry.split("=", 1)[0] ?? "", entry.slice(entry.indexOf("=") + 1)]));
  const secretOf = (id: string): Secret => {
    // A secret from a driver that may not be reused has an id of its own per task.
    const secret = dependencies.secret(id) ?? dependencies.secret(`${id}.${task.id}`);
    if (!secret) throw notFound(`unable to get secret from secret store: secret ${id} not found`);
    return secret;
  };
  const configOf = (id: string): Config => {
    const config = dependencies.config(id);
    if (!config) throw notFound(`unable to get config from config store: config ${id} not found`);
    return config;
  };
  const text = (data: Uint8Array | undefined) => Buffer.from(data ?? []).toString("utf8");
  const target = (reference: { target: { case: string | undefined; value?: unknown } }, name: string): boolean =>
    reference.target.case === "file" && (reference.target.value as FileTarget).name === name;
  const functions: TemplateFunctions = {
    env: ofStrings(1, (name) => env.get(name) ?? ""),
    secret: ofStrings(1, (name) => {
      const reference = spec.secrets.find((entry) => target(entry, name));
      if (!reference) throw invalid(`secret target ${name} not found`);
      return text(secretOf(reference.secretId).spec?.data);
    }),
    config: ofStrings(1, (name) => {
      const reference = spec.configs.find((entry) => target(entry, name));
      if (!reference) throw invalid(`config target ${name} not found`);
      return text(configOf(reference.configId).spec?.data);
    }),
  };
  const files: PayloadFile[] = [];
  for (const reference of spec.secrets) {
    if (reference.target.case !== "file") continue;
    const data = rendered("secret", secretOf(reference.secretId), context, functions);
    files.push(fileOf(reference.target.value, "/run/secrets", data));
  }
  for (const reference of spec.configs) {
    if (reference.target.case !== "file") continue;
    const data = rendered("config", configOf(reference.configId), context, functions);
    files.push(fileOf(reference.target.value, "/", data));
  }
  return files;
}
