/** What clients of older API versions cannot have meant: fields that came later are dropped, as Docker drops them. */
import type { ApiRequest } from "../http/request.ts";
import type { ServiceSpecJson } from "./convert/service.ts";

export function forVersion(spec: ServiceSpecJson, request: ApiRequest): ServiceSpecJson {
  const { ContainerSpec: container, Placement: placement, Resources: resources } = spec.TaskTemplate;
  if (!request.atLeast("1.40")) {
    if (container) {
      container.Sysctls = {};
      for (const config of container.Configs) config.Runtime = false;
    }
    if (placement) placement.MaxReplicas = 0;
  }
  if (!request.atLeast("1.41")) {
    if (container) {
      container.CapabilityAdd = [];
      container.CapabilityDrop = [];
      container.Ulimits = [];
    }
    if (resources?.Limits) resources.Limits.Pids = 0;
    spec.Mode.ReplicatedJob = undefined;
    spec.Mode.GlobalJob = false;
  }
  if (!request.atLeast("1.44")) {
    if (container?.Healthcheck) container.Healthcheck.StartInterval = 0;
    if (container?.Privileges) {
      container.Privileges.Seccomp = undefined;
      container.Privileges.AppArmor = undefined;
      container.Privileges.NoNewPrivileges = false;
    }
  }
  if (!request.atLeast("1.46") && container) container.OomScoreAdj = 0;
  return spec;
}
