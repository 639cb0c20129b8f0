/** Tasks and the task template of services. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import type { TaskSpec, TaskSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import {
  type NetworkAttachmentConfig,
  type NetworkAttachmentConfigSchema,
  type Placement,
  type PlacementSchema,
  type RestartPolicy,
  RestartPolicy_RestartCondition,
  type RestartPolicySchema,
  TaskState,
} from "#proto/docker/swarmkit/types_pb.js";
import { invalid, notImplemented } from "../../../base/errors.ts";
import { dict, int, list, optional, type ShapeOf, str } from "../../../base/shape.ts";
import { annotationsToJson, driver, driverToJson, driverToProto, metaToJson, uint64, versionToJson } from "./common.ts";
import { containerSpec, containerSpecToJson, containerSpecToProto } from "./container.ts";
import { portToJson } from "./endpoint.ts";
import { attachmentToJson } from "./network.ts";
import { durationFromJson, durationToJson, nz, ptr, timeToJson, wordOf } from "./render.ts";
import { genericToJson, resources, resourcesToJson, resourcesToProto } from "./resources.ts";
import { refused, strict } from "./strict.ts";

export const networkAttachmentConfig = strict({ Target: str, Aliases: list(str), DriverOpts: dict(str) });
export type NetworkAttachmentConfigJson = ShapeOf<typeof networkAttachmentConfig>;

const placementShape = strict({
  Constraints: list(str),
  Preferences: list(strict({ Spread: optional(strict({ SpreadDescriptor: str })) })),
  MaxReplicas: int,
  Platforms: list(strict({ Architecture: str, OS: str })),
});

const restartShape = strict({
  Condition: str,
  Delay: optional(int),
  MaxAttempts: optional(int),
  Window: optional(int),
});

export const taskSpec = strict({
  ContainerSpec: optional(containerSpec),
  PluginSpec: refused("the plugin runtime of services"),
  NetworkAttachmentSpec: refused("network attachments as services"),
  Resources: resources,
  RestartPolicy: optional(restartShape),
  Placement: optional(placementShape),
  Networks: list(networkAttachmentConfig),
  LogDriver: driver,
  ForceUpdate: int,
  Runtime: str,
});
export type TaskSpecJson = ShapeOf<typeof taskSpec>;

export const attachmentConfigToProto = (
  json: NetworkAttachmentConfigJson,
): MessageInitShape<typeof NetworkAttachmentConfigSchema> => ({
  target: json.Target,
  aliases: json.Aliases,
  driverAttachmentOpts: json.DriverOpts,
});

export const attachmentConfigToJson = (proto: NetworkAttachmentConfig) => ({
  Target: nz(proto.target),
  Aliases: nz(proto.aliases),
  DriverOpts: nz(proto.driverAttachmentOpts),
});

const restartWords: Record<string, RestartPolicy_RestartCondition> = {
  none: RestartPolicy_RestartCondition.NONE,
  "on-failure": RestartPolicy_RestartCondition.ON_FAILURE,
  any: RestartPolicy_RestartCondition.ANY,
  "": RestartPolicy_RestartCondition.ANY,
};

function restartToProto(json: ShapeOf<typeof restartShape>): MessageInitShape<typeof RestartPolicySchema> {
  const condition = restartWords[json.Condition];
  if (condition === undefined) throw invalid(`invalid RestartCondition: ${JSON.stringify(json.Condition)}`);
  return {
    condition,
    delay: ptr(json.Delay, durationFromJson),
    window: ptr(json.Window, durationFromJson),
    maxAttempts: uint64(json.MaxAttempts ?? 0, "RestartPolicy.MaxAttempts"),
  };
}

function restartToJson(proto: RestartPolicy) {
  return {
    Condition: wordOf(RestartPolicy_RestartCondition, proto.condition).replace("_", "-"),
    Delay: ptr(proto.delay, durationToJson),
    MaxAttempts: Number(proto.maxAttempts),
    Window: ptr(proto.window, durationToJson),
  };
}

function placementToProto(json: ShapeOf<typeof placementShape>): MessageInitShape<typeof PlacementSchema> {
  return {
    constraints: json.Constraints,
    preferences: json.Preferences.flatMap(({ Spread }) =>
      Spread ? [{ preference: { case: "spread" as const, value: { spreadDescriptor: Spread.SpreadDescriptor } } }] : [],
    ),
    maxReplicas: uint64(json.MaxReplicas, "Placement.MaxReplicas"),
    platforms: json.Platforms.map((platform) => ({ architecture: platform.Architecture, os: platform.OS })),
  };
}

function placementToJson(proto: Placement) {
  return {
    Constraints: nz(proto.constraints),
    Preferences: nz(
      proto.preferences.map(({ preference }) => ({
        Spread: preference.case === "spread" ? { SpreadDescriptor: preference.value.spreadDescriptor } : null,
      })),
    ),
    MaxReplicas: nz(Number(proto.maxReplicas)),
    Platforms: nz(proto.platforms.map((p) => ({ Architecture: nz(p.architecture), OS: nz(p.os) }))),
  };
}

export function taskSpecToProto(json: TaskSpecJson): MessageInitShape<typeof TaskSpecSchema> {
  if (json.Runtime !== "" && json.Runtime !== "container") {
    if (json.Runtime === "plugin") throw notImplemented("the plugin runtime of services");
    throw invalid("unsupported runtime");
  }
  if (!json.ContainerSpec) throw invalid("mismatched Runtime and *Spec fields");
  const pids = json.Resources?.Limits?.Pids ?? 0;
  return {
    runtime: { case: "container", value: containerSpecToProto(json.ContainerSpec, pids) },
    resources: ptr(json.Resources, resourcesToProto),
    restart: ptr(json.RestartPolicy, restartToProto),
    placement: ptr(json.Placement, placementToProto),
    networks: json.Networks.map(attachmentConfigToProto),
    logDriver: driverToProto(json.LogDriver),
    forceUpdate: uint64(json.ForceUpdate, "TaskTemplate.ForceUpdate"),
  };
}

export function taskSpecToJson(proto: TaskSpec) {
  const { runtime } = proto;
  return {
    ContainerSpec: runtime.case === "container" ? containerSpecToJson(runtime.value) : undefined,
    NetworkAttachmentSpec: runtime.case === "attachment" ? { ContainerID: runtime.value.containerId } : undefined,
    Resources: resourcesToJson(proto),
    RestartPolicy: ptr(proto.restart, restartToJson),
    Placement: ptr(proto.placement, placementToJson),
    Networks: nz(proto.networks.map(attachmentConfigToJson)),
    LogDriver: ptr(proto.logDriver, driverToJson),
    ForceUpdate: Number(proto.forceUpdate),
    Runtime: runtime.case === "container" ? "container" : runtime.case === "attachment" ? "attachment" : undefined,
  };
}

/** A task as `GET /tasks` gives it. */
export function taskToJson(task: Task) {
  const status = task.status;
  const container = status?.runtimeStatus.case === "container" ? status.runtimeStatus.value : undefined;
  return {
    ...metaToJson(task.id, task.meta),
    ...annotationsToJson(task.annotations),
    Spec: task.spec ? taskSpecToJson(task.spec) : {},
    ServiceID: nz(task.serviceId),
    Slot: nz(Number(task.slot)),
    NodeID: nz(task.nodeId),
    Status: {
      Timestamp: timeToJson(status?.timestamp),
      State: wordOf(TaskState, status?.state ?? TaskState.NEW),
      Message: nz(status?.message),
      Err: nz(status?.err),
      ContainerStatus: ptr(container, (c) => ({ ContainerID: c.containerId, PID: c.pid, ExitCode: c.exitCode })),
      PortStatus: { Ports: nz(status?.portStatus?.ports.map(portToJson)) },
    },
    DesiredState: wordOf(TaskState, task.desiredState),
    NetworksAttachments: nz(task.networks.map(attachmentToJson)),
    GenericResources: nz(task.assignedGenericResources.map(genericToJson)),
    JobIteration: ptr(task.jobIteration, (version) => versionToJson(version.index)),
    Volumes: null,
  };
}
