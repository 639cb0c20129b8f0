/** Services. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Service } from "#proto/docker/swarmkit/objects_pb.js";
import { type ServiceSpec, ServiceSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import {
  type UpdateConfig,
  UpdateConfig_FailureAction,
  UpdateConfig_UpdateOrder,
  type UpdateConfigSchema,
  type UpdateStatus,
  UpdateStatus_UpdateState,
} from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../../base/errors.ts";
import { int, list, num, optional, type ShapeOf, str } from "../../../base/shape.ts";
import {
  annotationFields,
  annotationsToJson,
  annotationsToProto,
  metaToJson,
  uint64,
  versionToJson,
} from "./common.ts";
import { endpointSpec, endpointSpecToJson, endpointSpecToProto, endpointToJson } from "./endpoint.ts";
import { durationFromJson, durationOrZero, nz, ptr, timeToJson, wordOf } from "./render.ts";
import { marker, strict } from "./strict.ts";
import {
  attachmentConfigToJson,
  attachmentConfigToProto,
  networkAttachmentConfig,
  taskSpec,
  taskSpecToJson,
  taskSpecToProto,
} from "./task.ts";

const updateConfigShape = strict({
  Parallelism: int,
  Delay: int,
  FailureAction: str,
  Monitor: int,
  MaxFailureRatio: num,
  Order: str,
});

export const serviceSpec = strict({
  ...annotationFields,
  TaskTemplate: taskSpec,
  Mode: strict({
    Replicated: optional(strict({ Replicas: optional(int) })),
    Global: marker,
    ReplicatedJob: optional(strict({ MaxConcurrent: optional(int), TotalCompletions: optional(int) })),
    GlobalJob: marker,
  }),
  UpdateConfig: optional(updateConfigShape),
  RollbackConfig: optional(updateConfigShape),
  Networks: list(networkAttachmentConfig),
  EndpointSpec: optional(endpointSpec),
});
export type ServiceSpecJson = ShapeOf<typeof serviceSpec>;

const failureActions: Record<string, UpdateConfig_FailureAction> = {
  "": UpdateConfig_FailureAction.PAUSE,
  pause: UpdateConfig_FailureAction.PAUSE,
  continue: UpdateConfig_FailureAction.CONTINUE,
  rollback: UpdateConfig_FailureAction.ROLLBACK,
};
const updateOrders: Record<string, UpdateConfig_UpdateOrder> = {
  "": UpdateConfig_UpdateOrder.STOP_FIRST,
  "stop-first": UpdateConfig_UpdateOrder.STOP_FIRST,
  "start-first": UpdateConfig_UpdateOrder.START_FIRST,
};

function updateConfigToProto(json: ShapeOf<typeof updateConfigShape>): MessageInitShape<typeof UpdateConfigSchema> {
  const failureAction = failureActions[json.FailureAction];
  if (failureAction === undefined) throw invalid(`unrecognized update failure action ${json.FailureAction}`);
  const order = updateOrders[json.Order];
  if (order === undefined) throw invalid(`unrecognized update order ${json.Order}`);
  return {
    parallelism: uint64(json.Parallelism, "UpdateConfig.Parallelism"),
    delay: durationFromJson(json.Delay),
    failureAction,
    monitor: json.Monitor === 0 ? undefined : durationFromJson(json.Monitor),
    maxFailureRatio: json.MaxFailureRatio,
    order,
  };
}

/** A float32 as Go prints it: the shortest decimal that gives the same float32. */
function float32(value: number): number {
  for (let digits = 1; digits <= 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}

function updateConfigToJson(proto: UpdateConfig) {
  return {
    Parallelism: Number(proto.parallelism),
    Delay: nz(durationOrZero(proto.delay)),
    FailureAction: wordOf(UpdateConfig_FailureAction, proto.failureAction),
    Monitor: nz(durationOrZero(proto.monitor)),
    MaxFailureRatio: float32(proto.maxFailureRatio),
    Order: wordOf(UpdateConfig_UpdateOrder, proto.order).replace("_", "-"),
  };
}

function modeToProto(mode: ServiceSpecJson["Mode"]): MessageInitShape<typeof ServiceSpecSchema>["mode"] {
  const given = [mode.Replicated, mode.Global || undefined, mode.ReplicatedJob, mode.GlobalJob || undefined];
  if (given.filter((entry) => entry !== undefined).length > 1) throw invalid("must specify only one service mode");
  if (mode.Global) return { case: "global", value: {} };
  if (mode.GlobalJob) return { case: "globalJob", value: {} };
  if (mode.ReplicatedJob) {
    const maxConcurrent = uint64(mode.ReplicatedJob.MaxConcurrent ?? 1, "Mode.ReplicatedJob.MaxConcurrent");
    const total = mode.ReplicatedJob.TotalCompletions;
    const totalCompletions = total === undefined ? maxConcurrent : uint64(total, "Mode.ReplicatedJob.TotalCompletions");
    return { case: "replicatedJob", value: { maxConcurrent, totalCompletions } };
  }
  return {
    case: "replicated",
    value: { replicas: uint64(mode.Replicated?.Replicas ?? 1, "Mode.Replicated.Replicas") },
  };
}

function modeToJson(mode: ServiceSpec["mode"]) {
  switch (mode.case) {
    case "global":
      return { Global: {} };
    case "globalJob":
      return { GlobalJob: {} };
    case "replicated":
      return { Replicated: { Replicas: Number(mode.value.replicas) } };
    case "replicatedJob":
      return {
        ReplicatedJob: {
          MaxConcurrent: Number(mode.value.maxConcurrent),
          TotalCompletions: Number(mode.value.totalCompletions),
        },
      };
    default:
      return {};
  }
}

/** The caller fills in a name where there is none, and network ids for names. */
export function serviceSpecToProto(json: ServiceSpecJson): ServiceSpec {
  return create(ServiceSpecSchema, {
    annotations: annotationsToProto(json),
    task: taskSpecToProto(json.TaskTemplate),
    mode: modeToProto(json.Mode),
    update: ptr(json.UpdateConfig, updateConfigToProto),
    rollback: ptr(json.RollbackConfig, updateConfigToProto),
    networks: json.Networks.map(attachmentConfigToProto),
    endpoint: ptr(json.EndpointSpec, endpointSpecToProto),
  });
}

export function serviceSpecToJson(spec: ServiceSpec) {
  return {
    ...annotationsToJson(spec.annotations),
    TaskTemplate: spec.task ? taskSpecToJson(spec.task) : {},
    Mode: modeToJson(spec.mode),
    UpdateConfig: ptr(spec.update, updateConfigToJson),
    RollbackConfig: ptr(spec.rollback, updateConfigToJson),
    Networks: nz(spec.networks.map(attachmentConfigToJson)),
    EndpointSpec: ptr(spec.endpoint, endpointSpecToJson),
  };
}

function updateStatusToJson(status: UpdateStatus) {
  const time = (at: UpdateStatus["startedAt"]) =>
    at && (at.seconds !== 0n || at.nanos !== 0) ? timeToJson(at) : undefined;
  return {
    State: status.state === 0 ? undefined : wordOf(UpdateStatus_UpdateState, status.state),
    StartedAt: time(status.startedAt),
    CompletedAt: time(status.completedAt),
    Message: nz(status.message),
  };
}

export interface ServiceStatusJson {
  readonly RunningTasks: number;
  readonly DesiredTasks: number;
  readonly CompletedTasks: number;
}

/** A service as `GET /services` gives it; `status` only where it was asked for. */
export function serviceToJson(service: Service, status?: ServiceStatusJson) {
  return {
    ...metaToJson(service.id, service.meta),
    Spec: service.spec ? serviceSpecToJson(service.spec) : {},
    PreviousSpec: ptr(service.previousSpec, serviceSpecToJson),
    Endpoint: endpointToJson(service.endpoint),
    UpdateStatus: ptr(service.updateStatus, updateStatusToJson),
    ServiceStatus: status,
    JobStatus: ptr(service.jobStatus, (job) => ({
      JobIteration: versionToJson(job.jobIteration?.index),
      LastExecution: timeToJson(job.lastExecution),
    })),
  };
}
