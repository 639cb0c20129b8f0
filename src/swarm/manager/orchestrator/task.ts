/** Making tasks, and telling whether one still is what its service asks for. */
import { create, equals } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type Cluster,
  EndpointSchema,
  type Node,
  type Service,
  type Task,
  TaskSchema,
} from "#proto/docker/swarmkit/objects_pb.js";
import { EndpointSpecSchema, TaskSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { swarmId } from "../../../base/id.ts";
import { publishLabels } from "../../../base/publish.ts";
import { taskWithDefaults } from "../../defaults.ts";
import { timestampMs } from "../defaults.ts";
import { constraintsOf, meets } from "../scheduler/constraints.ts";

export interface NewTask {
  readonly service: Service;
  /** 0 in global mode. */
  readonly slot: bigint;
  readonly nodeId: string;
  readonly desiredState: TaskState;
}

/**
 * `before`: the tasks that had its place. It counts as younger than they are, also when a clock was set back, or another
 * manager's is ahead: which task of a place is the last one is told by age.
 */
export function newTask(
  { service, slot, nodeId, desiredState }: NewTask,
  before: readonly Task[],
  { cluster, wall }: { readonly cluster: Cluster | undefined; readonly wall: number },
): Task {
  const spec = service.spec;
  const logDriver = spec?.task?.logDriver ?? cluster?.spec?.taskDefaults?.logDriver;
  const endpointSpec = spec?.endpoint;
  return create(TaskSchema, {
    id: swarmId(),
    serviceId: service.id,
    slot,
    nodeId,
    desiredState,
    spec: spec?.task ?? {},
    specVersion: service.specVersion ?? {},
    annotations: {},
    serviceAnnotations: spec?.annotations ?? {},
    meta: {
      createdAt: timestampFromMs(before.reduce((at, task) => Math.max(at, Math.floor(createdAt(task)) + 1), wall)),
    },
    status: { state: TaskState.NEW, timestamp: timestampFromMs(wall), message: "created" },
    endpoint: create(EndpointSchema, endpointSpec ? { spec: endpointSpec } : {}),
    ...(logDriver ? { logDriver } : {}),
    ...(service.jobStatus?.jobIteration ? { jobIteration: service.jobStatus.jobIteration } : {}),
  });
}

/**
 * True when the task's spec asks for the same as the service's. A default that is said is the same as one that is not:
 * clients that send back the whole spec as they were shown it (Docker's SDK for Python, to scale) change nothing by it.
 * Fresh credentials of a registry are nothing to start a task anew for, nor is another placement that its node fits.
 */
function isSameWork({ spec }: Service, task: Task, node: Node | undefined): boolean {
  const wanted = spec?.task ?? create(TaskSpecSchema);
  const has = task.spec ?? create(TaskSpecSchema);
  if (equals(TaskSpecSchema, wanted, has)) return true;
  const mode = spec?.mode ?? { case: undefined };
  const [a, b] = [taskWithDefaults(wanted, mode), taskWithDefaults(has, mode)];
  if (a.runtime.case === "container" && b.runtime.case === "container" && hasItsImage(task)) {
    a.runtime.value.pullOptions = b.runtime.value.pullOptions;
  }
  const constraints = constraintsOf(wanted);
  if (node && constraints && meets(node, constraints)) a.placement = b.placement;
  return equals(TaskSpecSchema, a, b);
}

function hasItsImage({ status }: Task): boolean {
  return status !== undefined && status.state >= TaskState.READY && status.state <= TaskState.RUNNING;
}

/** Labels of a service concern its tasks no further than that some say how their ports are published. */
function hasSameLabels({ spec }: Service, { serviceAnnotations }: Task): boolean {
  const wanted = publishLabels(spec?.annotations?.labels ?? {});
  return JSON.stringify(wanted) === JSON.stringify(publishLabels(serviceAnnotations?.labels ?? {}));
}

/** True when the task is not what its service asks for now. `node`: where it is. */
export function isDirty(service: Service, task: Task, node: Node | undefined): boolean {
  if (service.specVersion && task.specVersion && service.specVersion.index === task.specVersion.index) return false;
  if (!isSameWork(service, task, node)) return true;
  if (!hasSameLabels(service, task)) return true;
  const none = create(EndpointSpecSchema);
  return (
    task.endpoint !== undefined &&
    !equals(EndpointSpecSchema, service.spec?.endpoint ?? none, task.endpoint.spec ?? none)
  );
}

export const createdAt = (task: Task) => timestampMs(task.meta?.createdAt);

/** Oldest first. */
export const byAge = (a: Task, b: Task) => createdAt(a) - createdAt(b) || (a.id < b.id ? -1 : 1);
