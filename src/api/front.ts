/** The API as the daemon takes it. */
import type { ApiFront } from "../engine/daemon/daemon.ts";
import { assertFree, listenUnix } from "./http/listen.ts";
import { listenTls } from "./http/tls.ts";
import { MAX_API, MIN_API } from "./http/version.ts";
import { createApi } from "./index.ts";
import { swarmInfo } from "./swarm/index.ts";

export const apiFront: ApiFront = {
  range: { max: MAX_API, min: MIN_API },
  create: createApi,
  assertFree,
  async listen(server, endpoint, log) {
    const parts = new AsyncDisposableStack();
    parts.defer(() => {
      server.closeAllConnections();
      return new Promise<void>((resolve) => server.close(() => resolve()));
    });
    if (endpoint.kind === "unix") await listenUnix(server, endpoint.path);
    else parts.use(await listenTls(server, endpoint, log));
    return parts;
  },
  swarmInfo,
};
