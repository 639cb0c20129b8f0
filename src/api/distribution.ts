/** /distribution: what a registry says of an image. Clients pin services by it. */
import type { Engine } from "../engine/types.ts";
import { json } from "./http/reply.ts";
import { type Route, route } from "./http/router.ts";
import { registryAuth } from "./images.ts";

export function distributionRoutes(engine: Engine): Route[] {
  return [
    route("GET", "/distribution/:name*/json", async (request) => {
      const auth = registryAuth(request.headers["x-registry-auth"]);
      const { descriptor, platforms } = await engine.runtime.images.distribution(request.params.name, {
        ...(auth && { auth }),
        signal: request.signal,
      });
      return json({ Descriptor: descriptor, Platforms: platforms });
    }),
  ];
}
