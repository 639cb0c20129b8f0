/** /secrets and /configs: the same life, but a config's data can be read again. */
import type { Annotations } from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../base/errors.ts";
import { empty, json } from "../http/reply.ts";
import type { ApiRequest, Filters } from "../http/request.ts";
import type { Route } from "../http/router.ts";
import { controlOf, findConfig, findSecret, type SwarmApi, swarmRoute, versionOf } from "./access.ts";
import {
  configSpec,
  configSpecToProto,
  configToJson,
  secretSpec,
  secretSpecToProto,
  secretToJson,
} from "./convert/secret.ts";
import { accept, byLabels, byPrefix, byValue } from "./filters.ts";

function matches(
  filters: Filters,
  object: { id: string; spec?: { annotations?: Annotations | undefined } | undefined },
): boolean {
  const name = object.spec?.annotations?.name ?? "";
  return (
    byPrefix(filters, "name", name) &&
    byValue(filters, "names", name) &&
    byPrefix(filters, "id", object.id) &&
    byLabels(filters, "label", object.spec?.annotations?.labels)
  );
}

function checkTemplating(request: ApiRequest, kind: string, templating: unknown): void {
  if (templating !== undefined && !request.atLeast("1.37")) {
    throw invalid(`${kind} templating is not supported on the specified API version: ${request.version}`);
  }
}

export function secretRoutes(api: SwarmApi): Route[] {
  return [
    swarmRoute("GET", "/secrets", ({ query }) => {
      const filters = query.filters();
      const control = controlOf(api);
      accept(filters, ["names", "name", "id", "label"]);
      return json(
        control
          .secrets()
          .filter((secret) => !secret.internal && matches(filters, secret))
          .map(secretToJson),
      );
    }),
    swarmRoute("POST", "/secrets/create", async (request) => {
      const body = await request.json(secretSpec);
      checkTemplating(request, "secret", body.Templating);
      const secret = await controlOf(api).createSecret(secretSpecToProto(body));
      return json({ ID: secret.id }, 201);
    }),
    swarmRoute("GET", "/secrets/:id", ({ params }) => json(secretToJson(findSecret(controlOf(api), params.id)))),
    swarmRoute("DELETE", "/secrets/:id", async ({ params }) => {
      const control = controlOf(api);
      await control.removeSecret(findSecret(control, params.id).id);
      return empty(204);
    }),
    swarmRoute("POST", "/secrets/:id/update", async (request) => {
      const body = await request.json(secretSpec);
      const version = versionOf(request, "secret");
      const control = controlOf(api);
      await control.updateSecret(findSecret(control, request.params.id).id, version, secretSpecToProto(body));
      return empty(200);
    }),
  ];
}

export function configRoutes(api: SwarmApi): Route[] {
  return [
    swarmRoute("GET", "/configs", ({ query }) => {
      const filters = query.filters();
      const control = controlOf(api);
      accept(filters, ["names", "name", "id", "label"]);
      return json(
        control
          .configs()
          .filter((config) => matches(filters, config))
          .map(configToJson),
      );
    }),
    swarmRoute("POST", "/configs/create", async (request) => {
      const body = await request.json(configSpec);
      checkTemplating(request, "config", body.Templating);
      const config = await controlOf(api).createConfig(configSpecToProto(body));
      return json({ ID: config.id }, 201);
    }),
    swarmRoute("GET", "/configs/:id", ({ params }) => json(configToJson(findConfig(controlOf(api), params.id)))),
    swarmRoute("DELETE", "/configs/:id", async ({ params }) => {
      const control = controlOf(api);
      await control.removeConfig(findConfig(control, params.id).id);
      return empty(204);
    }),
    swarmRoute("POST", "/configs/:id/update", async (request) => {
      const body = await request.json(configSpec);
      const version = versionOf(request, "config");
      const control = controlOf(api);
      await control.updateConfig(findConfig(control, request.params.id).id, version, configSpecToProto(body));
      return empty(200);
    }),
  ];
}
