/** `docker events` of the swarm's objects, on managers. */
import type { Node, Service } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeSpec_Availability } from "#proto/docker/swarmkit/specs_pb.js";
import { NodeRole, NodeStatus_State, UpdateStatus_UpdateState } from "#proto/docker/swarmkit/types_pb.js";
import type { ControlApi, StoreObject } from "../../swarm/types.ts";
import type { EngineEvent, Events } from "../types.ts";

type Change = Parameters<Parameters<ControlApi["onChange"]>[0]>[0];
type Attributes = Record<string, string>;

/** Old and new value of something that changed. */
function pair(name: string, before: string | undefined, after: string): Attributes {
  if (before === undefined || before === after) return {};
  return { ...(before !== "" && before !== "unknown" && { [`${name}.old`]: before }), [`${name}.new`]: after };
}

const imageOf = (service: Service): string => {
  const runtime = service.spec?.task?.runtime;
  return runtime?.case === "container" ? runtime.value.image : "";
};

const replicasOf = (service: Service): string => {
  const mode = service.spec?.mode;
  return mode?.case === "replicated" ? String(mode.value.replicas) : "";
};

const word = (names: Record<string, string | number>, value: number | undefined) =>
  String(names[value ?? 0] ?? "").toLowerCase();

function serviceAttributes(service: Service, old: Service | undefined): Attributes {
  return {
    name: service.spec?.annotations?.name ?? "",
    ...pair("image", old && imageOf(old), imageOf(service)),
    ...pair("replicas", old && replicasOf(old), replicasOf(service)),
    ...pair(
      "updatestate",
      old && word(UpdateStatus_UpdateState, old.updateStatus?.state),
      word(UpdateStatus_UpdateState, service.updateStatus?.state),
    ),
  };
}

function nodeAttributes(node: Node, old: Node | undefined): Attributes {
  return {
    name: node.spec?.annotations?.name || (node.description?.hostname ?? ""),
    ...pair("role", old && word(NodeRole, old.role), word(NodeRole, node.role)),
    ...pair(
      "availability",
      old && word(NodeSpec_Availability, old.spec?.availability),
      word(NodeSpec_Availability, node.spec?.availability),
    ),
    ...pair("state", old && word(NodeStatus_State, old.status?.state), word(NodeStatus_State, node.status?.state)),
    ...pair("leader", old && String(old.managerStatus?.leader ?? false), String(node.managerStatus?.leader ?? false)),
  };
}

function is<N extends StoreObject["$typeName"]>(
  object: StoreObject | undefined,
  name: N,
): object is Extract<StoreObject, { $typeName: N }> {
  return object?.$typeName === name;
}

/** What a change of the store is to a reader of events; tasks and the cluster itself are none. */
export function eventOf(
  change: Change,
): Pick<EngineEvent, "type" | "action" | "id" | "attributes" | "scope"> | undefined {
  const { object, old, action } = change;
  const about = (type: EngineEvent["type"], attributes: Attributes) =>
    ({ type, action, id: object.id, attributes, scope: "swarm" }) as const;
  const name = (annotations: { name: string } | undefined) => ({ name: annotations?.name ?? "" });
  if (is(object, "docker.swarmkit.v1.Service")) {
    return about("service", serviceAttributes(object, is(old, "docker.swarmkit.v1.Service") ? old : undefined));
  }
  if (is(object, "docker.swarmkit.v1.Node")) {
    const attributes = nodeAttributes(object, is(old, "docker.swarmkit.v1.Node") ? old : undefined);
    // Heartbeats and descriptions change nodes all the time; only what is shown is news.
    if (action === "update" && Object.keys(attributes).length === 1) return undefined;
    return about("node", attributes);
  }
  if (is(object, "docker.swarmkit.v1.Network")) {
    if (action === "update") return undefined;
    return about("network", name(object.spec?.annotations));
  }
  if (is(object, "docker.swarmkit.v1.Secret")) return about("secret", name(object.spec?.annotations));
  if (is(object, "docker.swarmkit.v1.Config")) return about("config", name(object.spec?.annotations));
  return undefined;
}

/** Passes changes on until the returned function is called. */
export function forwardEvents(control: ControlApi, events: Events): () => void {
  return control.onChange((change) => {
    const event = eventOf(change);
    if (event) events.emit(event);
  });
}
