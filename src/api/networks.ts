/** /networks. */
import { bool, str, struct } from "../base/shape.ts";
import { endpointSettings, networkCreate } from "../engine/shapes.ts";
import type { Engine } from "../engine/types.ts";
import { empty, json } from "./http/reply.ts";
import type { ApiRequest } from "./http/request.ts";
import { type Route, route } from "./http/router.ts";

const connectBody = struct({ Container: str, EndpointConfig: endpointSettings });
const disconnectBody = struct({ Container: str, Force: bool });

export function networkRoutes(engine: Engine): Route[] {
  const { networks, containers } = engine;
  const list = async ({ query }: ApiRequest) => json(await networks.list(query.filters()));
  return [
    route("GET", "/networks", list),
    route("GET", "/networks/", list),
    route("POST", "/networks/create", async (request) =>
      json(await networks.create(await request.json(networkCreate)), 201),
    ),
    route("POST", "/networks/prune", async ({ query }) => json(await networks.prune(query.filters()))),
    route("GET", "/networks/:name*", async ({ params, query }) => {
      const scope = query.string("scope");
      return json(await networks.inspect(params.name, { verbose: query.bool("verbose"), ...(scope && { scope }) }));
    }),
    route("POST", "/networks/:name*/connect", async (request) => {
      const body = await request.json(connectBody);
      await containers.connect(body.Container, request.params.name, body.EndpointConfig);
      return empty(200);
    }),
    route("POST", "/networks/:name*/disconnect", async (request) => {
      const body = await request.json(disconnectBody);
      await containers.disconnect(body.Container, request.params.name, body.Force);
      return empty(200);
    }),
    route("DELETE", "/networks/:name*", async ({ params }) => {
      await networks.remove(params.name);
      return empty();
    }),
  ];
}
