/** The entry of `skeind`. Compiled modules are kept between starts; the rest is loaded after that is switched on. */
import { enableCompileCache } from "node:module";
import { fileURLToPath } from "node:url";

// Beside the code and no less trusted than it; never in /tmp, where others could plant what root then runs.
enableCompileCache(fileURLToPath(new URL("../../node_modules/.cache/skein", import.meta.url)));

const [{ runDaemon }, { apiFront }] = await Promise.all([
  import("./daemon/daemon.ts"),
  // biome-ignore lint/style/noRestrictedImports: only here, where the daemon is put together, the engine meets its API.
  import("../api/front.ts"),
]);

process.exit(await runDaemon(process.argv.slice(2), apiFront));
