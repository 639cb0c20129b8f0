/** /exec. */
import { bool, int, list, optional, struct } from "../base/shape.ts";
import { execConfig } from "../engine/shapes.ts";
import type { Engine } from "../engine/types.ts";
import { empty, json } from "./http/reply.ts";
import { type Route, route } from "./http/router.ts";
import { sessionReply } from "./streams.ts";

const startBody = struct({ Detach: bool, Tty: bool, ConsoleSize: optional(list(int)) });

export function execRoutes(engine: Engine): Route[] {
  const { containers } = engine;
  return [
    route("POST", "/containers/:name*/exec", async (request) =>
      json(await containers.execCreate(request.params.name, await request.json(execConfig)), 201),
    ),
    route("POST", "/exec/:id/start", async (request) => {
      const { Detach, Tty, ConsoleSize } = await request.json(startBody);
      const session = await containers.execStart(request.params.id, {
        detach: Detach,
        tty: Tty,
        ...(ConsoleSize && { consoleSize: ConsoleSize }),
      });
      return Detach ? empty(200) : sessionReply(request, session);
    }),
    route("POST", "/exec/:id/resize", async ({ params, query }) => {
      await containers.execResize(params.id, query.int("w") ?? 0, query.int("h") ?? 0);
      return empty(200);
    }),
    route("GET", "/exec/:id/json", ({ params }) => json(containers.execInspect(params.id))),
  ];
}
