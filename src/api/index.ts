/** The Engine API put together: one file per resource, no logic of its own. Start reading here. */
import type { Server } from "node:http";
import type { Logger } from "../base/log.ts";
import type { TlsFiles } from "../engine/daemon/endpoint.ts";
import type { HostInterface } from "../engine/swarm/address.ts";
import type { Engine } from "../engine/types.ts";
import { VERSION } from "../engine/version.ts";
import { archiveRoutes } from "./archive.ts";
import { containerRoutes } from "./containers.ts";
import { distributionRoutes } from "./distribution.ts";
import { execRoutes } from "./exec.ts";
import { type Route, Router } from "./http/router.ts";
import { createHttpServer } from "./http/server.ts";
import { imageRoutes } from "./images.ts";
import { networkRoutes } from "./networks.ts";
import { showRoutes } from "./show.ts";
import { streamRoutes } from "./streams.ts";
import { allSwarmRoutes, swarmHeader } from "./swarm/index.ts";
import { systemRoutes } from "./system.ts";
import { unsupportedRoutes } from "./unsupported.ts";
import { volumeRoutes } from "./volumes.ts";

export interface ApiOptions {
  readonly engine: Engine;
  readonly log: Logger;
  readonly interfaces: () => HostInterface[];
  readonly tls?: TlsFiles | undefined;
}

/** Every route, the more special patterns first. */
export function apiRoutes({ engine, interfaces }: Pick<ApiOptions, "engine" | "interfaces">): Route[] {
  return [
    ...systemRoutes(engine),
    // Streams and execs before containers: `:name*` takes slashes, and the more special pattern must win.
    ...streamRoutes(engine),
    ...execRoutes(engine),
    ...archiveRoutes(engine),
    ...containerRoutes(engine),
    ...imageRoutes(engine),
    ...distributionRoutes(engine),
    ...networkRoutes(engine),
    ...volumeRoutes(engine),
    ...allSwarmRoutes({
      node: () => engine.swarm,
      interfaces,
      localNetwork: (ref) => engine.networks.find(ref),
    }),
    ...showRoutes(engine),
    ...unsupportedRoutes,
  ];
}

export function createApi({ engine, log, interfaces, tls }: ApiOptions): Server {
  const router = new Router().add(apiRoutes({ engine, interfaces }));
  return createHttpServer({
    router,
    log,
    tls,
    headers: () => ({
      Ostype: "linux",
      "Docker-Experimental": "false",
      "Builder-Version": "1",
      Swarm: swarmHeader(engine.swarm),
      Server: `Skein/${VERSION} (linux)`,
      "Cache-Control": "no-cache, no-store, must-revalidate",
      Pragma: "no-cache",
    }),
  });
}
