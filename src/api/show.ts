/** /skein/v1: the inside of this engine, read-only. What Docker has no call for; `skein show` is its client. */
import type { Engine } from "../engine/types.ts";
import { json } from "./http/reply.ts";
import { type Route, route } from "./http/router.ts";

export function showRoutes({ views }: Engine): Route[] {
  return [
    route("GET", "/skein/v1/status", async () => json(await views.status())),
    route("GET", "/skein/v1/networks", async () => json(await views.networks())),
    route("GET", "/skein/v1/networks/:name", async ({ params }) => json(await views.network(params.name))),
    route("GET", "/skein/v1/gossip", () => json(views.gossip())),
    route("GET", "/skein/v1/services", () => json(views.services())),
    route("GET", "/skein/v1/services/:name", ({ params }) => json(views.service(params.name))),
    route("GET", "/skein/v1/ports", () => json(views.ports())),
    route("GET", "/skein/v1/ports/:port*", ({ params }) => json(views.ports(params.port))),
    route("GET", "/skein/v1/trace", async ({ query }) =>
      json(await views.trace(query.string("from"), query.string("to"))),
    ),
  ];
}
