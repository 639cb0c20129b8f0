/** Templates in a container's spec: filled in where the task runs, tried when the service is made. The words are SwarmKit's. */
import { clone, create } from "@bufbuild/protobuf";
import { type Task, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { type ContainerSpec, ContainerSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { type Annotations, type NodeDescription, NodeDescriptionSchema } from "#proto/docker/swarmkit/types_pb.js";
import { messageOf, SkeinError } from "../base/errors.ts";
import { expand, GoMap, GoStruct, type TemplateFunctions, type TemplateValue } from "../base/template.ts";

/** The container's name: `<service>.<slot or node id>.<task id>`, unless the managers gave another. */
export function taskContainerName(task: Task): string {
  if (task.annotations?.name) return task.annotations.name;
  return `${task.serviceAnnotations?.name ?? ""}.${task.slot ? task.slot : task.nodeId}.${task.id}`;
}

/** What a task's templates see; the types are named as Go's errors name them. */
export function templateContext(task: Task, node: NodeDescription): TemplateValue {
  const { architecture = "", os = "" } = node.platform ?? {};
  return new GoStruct("*template.Context", {
    Service: new GoStruct("struct { ID string; Name string; Labels map[string]string }", {
      ID: task.serviceId,
      Name: task.serviceAnnotations?.name ?? "",
      Labels: new GoMap(task.serviceAnnotations?.labels ?? {}),
    }),
    Node: new GoStruct("struct { ID string; Hostname string; Platform template.Platform }", {
      ID: task.nodeId,
      Hostname: node.hostname,
      Platform: new GoStruct("template.Platform", { Architecture: architecture, OS: os }),
    }),
    Task: new GoStruct("struct { ID string; Name string; Slot string }", {
      ID: task.id,
      Name: taskContainerName(task),
      Slot: task.slot ? String(task.slot) : task.nodeId,
    }),
  });
}

/** Runs `work`; its error is told with what it was about in front. */
function about<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const code = error instanceof SkeinError ? error.code : "invalid";
    throw new SkeinError(code, `${what}: ${messageOf(error)}`, { cause: error });
  }
}

function field(text: string, context: TemplateValue, functions?: TemplateFunctions): string {
  return text.includes("{{") ? expand(text, context, functions) : text;
}

function mapValues(what: string, values: Record<string, string>, context: TemplateValue): Record<string, string> {
  return about(`expanding ${what}`, () =>
    Object.fromEntries(
      Object.entries(values).map(([key, value]) => [
        key,
        about(`expanding map entry ${JSON.stringify(key)}=${JSON.stringify(value)}`, () => field(value, context)),
      ]),
    ),
  );
}

/** A copy with env values, hostname, mounts, volume labels and driver options expanded. */
export function expandContainerSpec(spec: ContainerSpec, context: TemplateValue): ContainerSpec {
  const out = clone(ContainerSpecSchema, spec);
  out.hostname = about("expanding hostname failed", () => field(out.hostname, context));
  out.env = about("expanding env failed", () =>
    out.env.map((entry) => {
      const equals = entry.indexOf("=");
      if (equals < 0) return entry;
      const value = about(`expanding env ${JSON.stringify(entry)}`, () => field(entry.slice(equals + 1), context));
      return `${entry.slice(0, equals)}=${value}`;
    }),
  );
  about("expanding mounts failed", () => {
    for (const mount of out.mounts) {
      const { source, target } = mount;
      mount.source = about(`expanding mount source ${JSON.stringify(source)}`, () => field(source, context));
      mount.target = about(`expanding mount target ${JSON.stringify(target)}`, () => field(target, context));
      if (!mount.volumeOptions) continue;
      mount.volumeOptions.labels = mapValues("volume labels", mount.volumeOptions.labels, context);
      const driver = mount.volumeOptions.driverConfig;
      if (driver) driver.options = mapValues("volume driver config", driver.options, context);
    }
  });
  return out;
}

/** Throws where a service's templates could not be expanded on any node. */
export function checkTemplates(spec: ContainerSpec, service: Annotations | undefined): void {
  const serviceAnnotations = { name: service?.name ?? "", labels: service?.labels ?? {} };
  const task = create(TaskSchema, {
    id: "taskid",
    serviceId: "serviceid",
    nodeId: "nodeid",
    slot: 1n,
    serviceAnnotations,
  });
  expandContainerSpec(spec, templateContext(task, create(NodeDescriptionSchema)));
}

/** The data of a secret or config with `templating.name = "golang"`. */
export function expandPayload(
  kind: "secret" | "config",
  { id, data }: { readonly id: string; readonly data: Uint8Array },
  context: TemplateValue,
  functions: TemplateFunctions,
): Uint8Array {
  const text = Buffer.from(data).toString("utf8");
  const fields = context instanceof GoStruct ? context.fields : {};
  const what = `unable to get ${kind} from ${kind} store: failed to expand templated ${kind} ${id}`;
  return Buffer.from(about(what, () => field(text, new GoStruct("*template.PayloadContext", fields), functions)));
}
