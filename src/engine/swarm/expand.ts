/** Templates in a container's spec, filled in where the task runs. */
import { clone } from "@bufbuild/protobuf";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { type ContainerSpec, ContainerSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import type { NodeDescription } from "#proto/docker/swarmkit/types_pb.js";
import { invalid, messageOf } from "../../base/errors.ts";
import { expand, type TemplateFunctions, type TemplateValue } from "./template.ts";

/** The container's name: `<service>.<slot or node id>.<task id>`, unless the managers gave another. */
export function taskContainerName(task: Task): string {
  if (task.annotations?.name) return task.annotations.name;
  return `${task.serviceAnnotations?.name ?? ""}.${task.slot ? task.slot : task.nodeId}.${task.id}`;
}

export function templateContext(task: Task, node: NodeDescription): TemplateValue {
  return {
    Service: {
      ID: task.serviceId,
      Name: task.serviceAnnotations?.name ?? "",
      Labels: task.serviceAnnotations?.labels ?? {},
    },
    Node: {
      ID: task.nodeId,
      Hostname: node.hostname,
      Platform: { Architecture: node.platform?.architecture ?? "", OS: node.platform?.os ?? "" },
    },
    Task: { ID: task.id, Name: taskContainerName(task), Slot: task.slot ? String(task.slot) : task.nodeId },
  };
}

/** Expands one field; an error names it. */
function field(what: string, text: string, context: TemplateValue, functions?: TemplateFunctions): string {
  if (!text.includes("{{")) return text;
  try {
    return expand(text, context, functions);
  } catch (error) {
    throw invalid(`expanding ${what} ${JSON.stringify(text)} failed: ${messageOf(error)}`);
  }
}

function mapValues(what: string, values: Record<string, string>, context: TemplateValue): Record<string, string> {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, field(what, value, context)]));
}

/** A copy with env values, hostname, mounts, volume labels and driver options expanded. */
export function expandContainerSpec(spec: ContainerSpec, context: TemplateValue): ContainerSpec {
  const out = clone(ContainerSpecSchema, spec);
  out.hostname = field("hostname", out.hostname, context);
  out.env = out.env.map((entry) => {
    const equals = entry.indexOf("=");
    if (equals < 0) return entry;
    return `${entry.slice(0, equals)}=${field("env", entry.slice(equals + 1), context)}`;
  });
  for (const mount of out.mounts) {
    mount.source = field("mount source", mount.source, context);
    mount.target = field("mount target", mount.target, context);
    if (!mount.volumeOptions) continue;
    mount.volumeOptions.labels = mapValues("volume label", mount.volumeOptions.labels, context);
    const driver = mount.volumeOptions.driverConfig;
    if (driver) driver.options = mapValues("volume driver option", driver.options, context);
  }
  return out;
}

/** The data of a secret or config with `templating.name = "golang"`. */
export function expandPayload(data: Uint8Array, context: TemplateValue, functions: TemplateFunctions): Uint8Array {
  return Buffer.from(field("payload", Buffer.from(data).toString("utf8"), context, functions));
}
