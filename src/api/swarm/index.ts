/** Every route of the swarm. */
import type { Route } from "../http/router.ts";
import type { SwarmApi } from "./access.ts";
import { nodeRoutes } from "./nodes.ts";
import { configRoutes, secretRoutes } from "./secrets.ts";
import { serviceRoutes } from "./services.ts";
import { swarmRoutes } from "./swarm.ts";
import { taskRoutes } from "./tasks.ts";

export type { SwarmApi } from "./access.ts";
export { swarmHeader, swarmInfo } from "./info.ts";

/** Routes of /swarm, /nodes, /services, /tasks, /secrets, /configs. */
export function allSwarmRoutes(api: SwarmApi): Route[] {
  return [
    ...swarmRoutes(api),
    ...nodeRoutes(api),
    ...serviceRoutes(api),
    ...taskRoutes(api),
    ...secretRoutes(api),
    ...configRoutes(api),
  ];
}
