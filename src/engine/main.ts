/** The entry of `skeind`. Compiled modules are kept between starts; the rest is loaded after that is switched on. */
import { enableCompileCache } from "node:module";

enableCompileCache();

const [{ runDaemon }, { apiFront }] = await Promise.all([
  import("./daemon/daemon.ts"),
  // biome-ignore lint/style/noRestrictedImports: only here, where the daemon is put together, the engine meets its API.
  import("../api/front.ts"),
]);

process.exit(await runDaemon(process.argv.slice(2), apiFront));
