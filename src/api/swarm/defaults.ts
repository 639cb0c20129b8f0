/** SwarmKit's defaults, shown by `service inspect` where a spec says nothing. */
import { clone, create } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { type Service, ServiceSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { ContainerSpec_DNSConfigSchema } from "#proto/docker/swarmkit/specs_pb.js";
import {
  PlacementSchema,
  ResourceRequirementsSchema,
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

/** A copy with the defaults filled in. Jobs are never updated gradually and have no update config. */
export function withDefaults(service: Service): Service {
  const full = clone(ServiceSchema, service);
  const { spec } = full;
  const task = spec?.task;
  if (!spec || !task) return full;
  if (task.runtime.case === "container") {
    const container = task.runtime.value;
    container.stopGracePeriod ??= seconds(10);
    container.dnsConfig ??= create(ContainerSpec_DNSConfigSchema);
  }
  task.resources ??= create(ResourceRequirementsSchema, { limits: {}, reservations: {} });
  const isJob = spec.mode.case === "replicatedJob" || spec.mode.case === "globalJob";
  task.restart ??= create(RestartPolicySchema, {
    condition: isJob ? RestartPolicy_RestartCondition.ON_FAILURE : RestartPolicy_RestartCondition.ANY,
  });
  task.restart.delay ??= seconds(5);
  task.placement ??= create(PlacementSchema);
  if (!isJob) {
    spec.update = updateDefaults(spec.update);
    spec.rollback = updateDefaults(spec.rollback);
  }
  return full;
}
