/** SwarmKit's defaults where a spec says nothing: shown by `service inspect`, and the same as said when tasks are compared. */
import { clone, create } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { type Service, ServiceSchema } from "#proto/docker/swarmkit/objects_pb.js";
import {
  ContainerSpec_DNSConfigSchema,
  type ServiceSpec,
  type TaskSpec,
  TaskSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import {
  PlacementSchema,
  ResourceRequirementsSchema,
  ResourcesSchema,
  RestartPolicy_RestartCondition,
  RestartPolicySchema,
  type UpdateConfig,
  UpdateConfigSchema,
} from "#proto/docker/swarmkit/types_pb.js";

const seconds = (n: number) => create(DurationSchema, { seconds: BigInt(n) });

function updateDefaults(given: UpdateConfig | undefined): UpdateConfig {
  const config = given ?? create(UpdateConfigSchema, { parallelism: 1n });
  config.delay ??= seconds(0);
  config.monitor ??= seconds(5);
  return config;
}

const isJob = (mode: ServiceSpec["mode"]) => mode.case === "replicatedJob" || mode.case === "globalJob";

/** A copy with the defaults filled in, as they are for services of this mode. */
export function taskWithDefaults(given: TaskSpec, mode: ServiceSpec["mode"]): TaskSpec {
  const task = clone(TaskSpecSchema, given);
  if (task.runtime.case === "container") {
    const container = task.runtime.value;
    container.stopGracePeriod ??= seconds(10);
    container.dnsConfig ??= create(ContainerSpec_DNSConfigSchema);
  }
  task.resources ??= create(ResourceRequirementsSchema);
  task.resources.limits ??= create(ResourcesSchema);
  task.resources.reservations ??= create(ResourcesSchema);
  task.restart ??= create(RestartPolicySchema, {
    condition: isJob(mode) ? RestartPolicy_RestartCondition.ON_FAILURE : RestartPolicy_RestartCondition.ANY,
  });
  task.restart.delay ??= seconds(5);
  task.placement ??= create(PlacementSchema);
  return task;
}

/** A copy with the defaults filled in. Jobs are never updated gradually and have no update config. */
export function withDefaults(service: Service): Service {
  const full = clone(ServiceSchema, service);
  const { spec } = full;
  if (!spec?.task) return full;
  spec.task = taskWithDefaults(spec.task, spec.mode);
  if (!isJob(spec.mode)) {
    spec.update = updateDefaults(spec.update);
    spec.rollback = updateDefaults(spec.rollback);
  }
  return full;
}
