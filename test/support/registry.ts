/** Debian's docker-registry inside a lab host, on its loopback or where the other hosts reach it. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { inside } from "../../src/lab/host.ts";
import { end, run, startDetached } from "../../src/lab/process.ts";
import type { EngineHost } from "./engine.ts";
import { eventually } from "./lab.ts";

/** bcrypt of "secret". */
const secret = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

export interface TestRegistry extends AsyncDisposable {
  /** "localhost:5000", "10.78.0.11:5000" */
  readonly address: string;
  /** Where it keeps its blobs: a test may lie with them. */
  readonly files: string;
}

/** With `password` only user "anna" with password "secret" may read and write. */
export async function startRegistry(
  host: Pick<EngineHost, "scratch" | "state">,
  port: number,
  options: { password?: boolean; address?: string } = {},
): Promise<TestRegistry> {
  const at = options.address ?? "127.0.0.1";
  const dir = join(host.scratch, `registry-${port}`);
  const files = join(dir, "data");
  mkdirSync(files, { recursive: true });
  writeFileSync(join(dir, "htpasswd"), `anna:${secret}\n`);
  const auth = options.password ? { auth: { htpasswd: { realm: "test", path: join(dir, "htpasswd") } } } : {};
  const config = {
    version: "0.1",
    log: { level: "warn" },
    storage: { filesystem: { rootdirectory: files }, delete: { enabled: true } },
    http: { addr: `${at}:${port}` },
    ...auth,
  };
  // JSON is YAML.
  writeFileSync(join(dir, "config.yml"), JSON.stringify(config));
  const address = options.address ? `${at}:${port}` : `localhost:${port}`;
  const outer = startDetached(
    inside(host.state, ["docker-registry", "serve", join(dir, "config.yml")]),
    join(dir, "log"),
  );
  await eventually("the registry answers", async () => {
    const { stdout } = await run(
      inside(host.state, ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", `http://${at}:${port}/v2/`]),
    );
    return /^[24]/.test(stdout);
  });
  return {
    address,
    files,
    async [Symbol.asyncDispose]() {
      await end(outer, "SIGTERM", 3_000);
    },
  };
}
