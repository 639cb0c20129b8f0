/** /_ping, /version, /info, /events, /system/df, /auth. */
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
      await engine.images.login(await request.json(credentials), request.signal);
      return json({ Status: "Login Succeeded", IdentityToken: "" });
    }),
  ];
}
