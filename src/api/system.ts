/** /_ping, /version, /info, /events, /system/df, /auth. */
import { notImplemented, SkeinError } from "../base/errors.ts";
import { str, struct } from "../base/shape.ts";
import type { Engine } from "../engine/types.ts";
import { json, jsonStream, text } from "./http/reply.ts";
import { type Route, route } from "./http/router.ts";

const credentials = struct({ username: str, password: str, serveraddress: str, identitytoken: str });

export function systemRoutes(engine: Engine): Route[] {
  return [
    route("GET", "/_ping", () => text("OK")),
    route("HEAD", "/_ping", () => text("")),
    route("GET", "/version", async () => json(await engine.system.version())),
    route("GET", "/info", async () => json(await engine.system.info())),
    route("GET", "/system/df", async (request) => json(await engine.system.diskUsage(request.query.all("type")))),
    route("GET", "/events", (request) => {
      const { query, signal } = request;
      return jsonStream(
        engine.events.watch({
          ...(query.has("since") && { since: query.string("since") }),
          ...(query.has("until") && { until: query.string("until") }),
          filters: query.filters(),
          signal,
        }),
      );
    }),
    route("POST", "/auth", async (request) => {
      const { username, serveraddress } = await request.json(credentials);
      if (username === "") throw new SkeinError("unauthorized", "login attempt failed: no user name");
      throw notImplemented(`docker login (${serveraddress || "docker.io"})`);
    }),
  ];
}
