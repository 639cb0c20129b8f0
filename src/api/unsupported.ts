/** What Docker's API has and Skein has not: 501 by name instead of "page not found". */
import { notFound, notImplemented } from "../base/errors.ts";
import { json } from "./http/reply.ts";
import { type Method, type Route, route } from "./http/router.ts";

const refuse = (method: Method, pattern: string, what: string): Route =>
  route(method, pattern, () => {
    throw notImplemented(what);
  });

export const unsupportedRoutes: Route[] = [
  route("GET", "/plugins", () => json([])),
  refuse("POST", "/plugins/:rest*", "plugins"),
  route("GET", "/plugins/:name*/json", ({ params }) => {
    throw notFound(`plugin ${JSON.stringify(params.name)} not found`);
  }),
  refuse("GET", "/plugins/:rest*", "plugins"),
  refuse("DELETE", "/plugins/:rest*", "plugins"),
  // There is no build cache, so that all of it is pruned.
  route("POST", "/build/prune", () => json({ CachesDeleted: null, SpaceReclaimed: 0 })),
  refuse("POST", "/build/cancel", "image build"),
  refuse("POST", "/session", "BuildKit sessions"),
  refuse("POST", "/grpc", "BuildKit"),
];
