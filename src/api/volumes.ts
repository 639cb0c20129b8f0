/** /volumes. */
import { volumeCreate } from "../engine/shapes.ts";
import type { Engine } from "../engine/types.ts";
import { empty, json } from "./http/reply.ts";
import { type Route, route } from "./http/router.ts";

export function volumeRoutes(engine: Engine): Route[] {
  const { volumes } = engine;
  return [
    route("GET", "/volumes", async ({ query }) => json(await volumes.list(query.filters()))),
    route("POST", "/volumes/create", async (request) =>
      json(await volumes.create(await request.json(volumeCreate)), 201),
    ),
    route("POST", "/volumes/prune", async (request) => {
      const filters = request.query.filters();
      // Before 1.42 named volumes were pruned as well.
      const all = !request.atLeast("1.42") && !filters.has("all");
      return json(await volumes.prune(all ? new Map([...filters, ["all", ["true"]]]) : filters));
    }),
    route("GET", "/volumes/:name", async ({ params }) => json(await volumes.inspect(params.name))),
    route("DELETE", "/volumes/:name", async ({ params, query }) => {
      await volumes.remove(params.name, query.bool("force"));
      return empty();
    }),
  ];
}
