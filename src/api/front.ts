/** The API as the daemon takes it. */
import type { ApiFront } from "../engine/daemon/daemon.ts";
import { assertFree, listenUnix } from "./http/listen.ts";
import { MAX_API, MIN_API } from "./http/version.ts";
import { createApi } from "./index.ts";
import { swarmInfo } from "./swarm/index.ts";

export const apiFront: ApiFront = {
  range: { max: MAX_API, min: MIN_API },
  create: createApi,
  assertFree,
  listen: listenUnix,
  swarmInfo,
};
