/** The stock `docker` command line, pointed at a lab host. */
import { createReadStream, existsSync } from "node:fs";
import { delimiter } from "node:path";
import { SkeinError } from "../base/errors.ts";
import { patience } from "./host.ts";
import { type Output, run } from "./process.ts";
import type { HostSpec } from "./spec.ts";

/** The stock CLI: the first `docker` in PATH, or the one that the set-up fetched. */
export function dockerCli(): string {
  const own = "/usr/local/lib/skein/docker";
  const dirs = (process.env.PATH ?? "").split(delimiter);
  const found = [...dirs.map((dir) => `${dir}/docker`), own].find((path) => existsSync(path));
  if (!found) throw new SkeinError("notFound", "there is no docker command line", { hint: "bin/setup installs one" });
  return found;
}

export interface DockerOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
}

/** Runs `docker -H <host> …` to its end. */
export function docker(host: HostSpec, args: readonly string[], options: DockerOptions = {}): Promise<Output> {
  return run([dockerCli(), "-H", `unix://${host.socket}`, ...args], {
    ...(options.input === undefined ? {} : { input: createReadStream(options.input) }),
    timeoutMs: (options.timeoutMs ?? 60_000) * patience,
  });
}

/** As `docker`, and throws with the CLI's own words when it fails. Gives its output, trimmed. */
export async function dockerOk(host: HostSpec, args: readonly string[], options: DockerOptions = {}): Promise<string> {
  const { code, stdout, stderr } = await docker(host, args, options);
  if (code !== 0) {
    throw new SkeinError("internal", `${host.name}: docker ${args.join(" ")}: ${(stderr || stdout).trim()}`, {
      hint: `see ${host.logFile}`,
    });
  }
  return stdout.trim();
}
