/** /services. */
import type { Service } from "#proto/docker/swarmkit/objects_pb.js";
import type { ContainerSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { forbidden, invalid } from "../../base/errors.ts";
import { randomName } from "../../engine/containers/names.ts";
import { withDefaults } from "../../swarm/defaults.ts";
import type { ControlApi } from "../../swarm/types.ts";
import { empty, json } from "../http/reply.ts";
import type { ApiRequest, Filters } from "../http/request.ts";
import type { Route } from "../http/router.ts";
import { controlOf, findNetwork, findService, parseBool, type SwarmApi, swarmRoute, versionOf } from "./access.ts";
import { type ServiceSpecJson, serviceSpec, serviceSpecToProto, serviceToJson } from "./convert/service.ts";
import { accept, byLabels, byPrefix, byValue } from "./filters.ts";
import { logsReply } from "./logs.ts";
import { serviceStatuses } from "./status.ts";
import { forVersion } from "./versions.ts";

const modeWords = {
  replicated: "replicated",
  global: "global",
  replicatedJob: "replicated-job",
  globalJob: "global-job",
} as const;

function listServices(control: ControlApi, filters: Filters): Service[] {
  accept(filters, ["name", "id", "label", "mode", "runtime"]);
  return control.services().filter((service) => {
    const mode = service.spec?.mode.case;
    return (
      byValue(filters, "runtime", "container") &&
      byPrefix(filters, "name", service.spec?.annotations?.name ?? "") &&
      byPrefix(filters, "id", service.id) &&
      byLabels(filters, "label", service.spec?.annotations?.labels) &&
      byValue(filters, "mode", mode ? modeWords[mode] : "")
    );
  });
}

/** Names of networks become ids. A network of this host only is refused with Docker's reason. */
function resolveNetworks(api: SwarmApi, control: ControlApi, spec: ServiceSpecJson): void {
  const own = spec.TaskTemplate.Networks;
  for (const attachment of own.length ? own : spec.Networks) {
    try {
      attachment.Target = findNetwork(control, attachment.Target).id;
    } catch (error) {
      const local = api.localNetwork(attachment.Target);
      if (local?.scope !== "local") throw error;
      if (["bridge", "host", "none"].includes(local.name)) {
        attachment.Target = findNetwork(control, local.name).id;
        continue;
      }
      throw forbidden(
        `The network ${local.name} cannot be used with services. Only networks scoped to the swarm can be used, ` +
          "such as those created with the overlay driver.",
      );
    }
  }
}

const auth = (request: ApiRequest): string => {
  const header = request.headers["x-registry-auth"];
  return typeof header === "string" ? header : "";
};

const containerOf = (service: Service, which: "spec" | "previousSpec"): ContainerSpec | undefined => {
  const runtime = service[which]?.task?.runtime;
  return runtime?.case === "container" ? runtime.value : undefined;
};

/** The credentials an update goes on with when it brings none. */
function keptAuth(service: Service, from: string): string {
  if (from !== "" && from !== "spec" && from !== "previous-spec") throw invalid("unsupported registryAuthFrom value");
  if (from === "previous-spec" && !service.previousSpec) throw invalid("service does not have a previous spec");
  return containerOf(service, from === "previous-spec" ? "previousSpec" : "spec")?.pullOptions?.registryAuth ?? "";
}

/** Clients before 1.30 leave the pinning of images to the daemon, and are told when that was not possible. */
function pinWarnings(request: ApiRequest, image: string): string[] {
  if (request.atLeast("1.30") || image.includes("@sha256:")) return [];
  return [
    `image ${image} could not be accessed on a registry to record\nits digest. Each node will access ${image} ` +
      "independently,\npossibly leading to different nodes running different\nversions of the image.\n",
  ];
}

async function readSpec(api: SwarmApi, control: ControlApi, request: ApiRequest) {
  const body = forVersion(await request.json(serviceSpec), request);
  if (body.Name === "") {
    const taken = new Set(control.services().map((service) => service.spec?.annotations?.name));
    body.Name = randomName((name) => taken.has(name));
  }
  resolveNetworks(api, control, body);
  const spec = serviceSpecToProto(body);
  const runtime = spec.task?.runtime;
  if (runtime?.case !== "container") throw invalid("service does not use container tasks");
  return { spec, container: runtime.value };
}

function setAuth(container: ContainerSpec, registryAuth: string): void {
  if (registryAuth === "") return;
  container.pullOptions = { $typeName: "docker.swarmkit.v1.ContainerSpec.PullOptions", registryAuth };
}

export function serviceRoutes(api: SwarmApi): Route[] {
  return [
    swarmRoute("GET", "/services", (request) => {
      const control = controlOf(api);
      const services = listServices(control, request.query.filters());
      if (!request.atLeast("1.41") || !parseBool(request, "status")) {
        return json(services.map((service) => serviceToJson(service)));
      }
      const statuses = serviceStatuses(services, control.tasks(), control.nodes());
      return json(services.map((service) => serviceToJson(service, statuses.get(service.id))));
    }),

    swarmRoute("POST", "/services/create", async (request) => {
      const control = controlOf(api);
      const { spec, container } = await readSpec(api, control, request);
      setAuth(container, auth(request));
      const warnings = pinWarnings(request, container.image);
      const service = await control.createService(spec);
      return json({ ID: service.id, ...(warnings.length && { Warnings: warnings }) }, 201);
    }),

    swarmRoute("GET", "/services/:id", (request) => {
      const service = findService(controlOf(api), request.params.id);
      return json(serviceToJson(parseBool(request, "insertDefaults") ? withDefaults(service) : service));
    }),

    swarmRoute("POST", "/services/:id/update", async (request) => {
      const control = controlOf(api);
      const version = versionOf(request, "service");
      const { spec, container } = await readSpec(api, control, request);
      const service = findService(control, request.params.id);
      setAuth(container, auth(request) || keptAuth(service, request.query.string("registryAuthFrom")));
      const rollback = request.query.string("rollback");
      if (!["", "none", "previous"].includes(rollback)) throw invalid(`unrecognized rollback option ${rollback}`);
      const warnings = pinWarnings(request, container.image);
      await control.updateService(service.id, version, spec, rollback === "previous");
      return json({ Warnings: warnings.length ? warnings : null });
    }),

    swarmRoute("DELETE", "/services/:id", async ({ params }) => {
      const control = controlOf(api);
      await control.removeService(findService(control, params.id).id);
      return empty(200);
    }),

    swarmRoute("GET", "/services/:id/logs", (request) => {
      const control = controlOf(api);
      const service = findService(control, request.params.id);
      return logsReply(control, request, service.spec?.task, { serviceIds: [service.id], nodeIds: [], taskIds: [] });
    }),
  ];
}
