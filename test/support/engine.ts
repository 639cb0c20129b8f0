/**
 * One host with one engine for a test file. `SKEIN_CONTROL=1` puts the real Docker Engine in the place of ours: what the
 * tests say of Skein must hold there too, or be named in docs/differences.md.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { down, hostOf, type Lab, up } from "../../src/lab/lab.ts";
import { type Output, run } from "../../src/lab/process.ts";
import { makeImages } from "../../src/lab/tour.ts";
import { TestLab } from "./lab.ts";

export const control = process.env.SKEIN_CONTROL === "1";
/** For tests of what only one of the two has. */
export const skipControl = control ? { skip: "Skein's own" } : {};

/** The command lines of this machine, one per version, newest first. */
export const clis: readonly (readonly [version: string, path: string])[] = [
  ...new Map(
    ["/usr/local/bin/docker", "/usr/bin/docker", "/usr/local/lib/skein/docker"]
      .filter((path) => existsSync(path))
      .map((path) => [execFileSync(path, ["--version"], { encoding: "utf8" }).trim(), path] as const),
  ),
];
assert.ok(clis.length > 0, "there is no docker command line");

export class EngineHost extends TestLab {
  readonly scratch = mkdtempSync(join(tmpdir(), "skein-e2e-"));

  static async make(name: string, subnet: string): Promise<EngineHost> {
    await down(name);
    const lab: Lab = await up({ name, subnet, names: ["host"], ...(control && { dockerd: ["host"] }) });
    await makeImages(lab, "basic");
    return new EngineHost(lab);
  }

  get address(): string {
    return this.host("host").address;
  }

  /** The words of a `docker …`, with credentials of this test's own. */
  command(args: readonly string[], cli = clis[0]?.[1] ?? "docker"): string[] {
    return [cli, "--config", join(this.scratch, "config"), "-H", `unix://${this.host("host").socket}`, ...args];
  }

  attempt(...args: string[]): Promise<Output> {
    return run(this.command(args), { timeoutMs: 30_000 });
  }

  /** As `attempt`, with a command line of one's choice. */
  attemptWith(cli: string, ...args: string[]): Promise<Output> {
    return run(this.command(args, cli), { timeoutMs: 30_000 });
  }

  async docker(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.attempt(...args);
    assert.equal(code, 0, `docker ${args.join(" ")}: ${stderr}${stdout}`);
    return stdout.trim();
  }

  async json<T>(...args: string[]): Promise<T> {
    return JSON.parse(await this.docker(...args)) as T;
  }

  inspect(ref: string, format: string): Promise<string> {
    return this.docker("inspect", "-f", format, ref);
  }

  /** The host's state: its namespaces and its daemon. */
  get state() {
    return hostOf(this.lab, "host").state;
  }

  /** Removes all containers. */
  async clear(): Promise<void> {
    const ids = (await this.docker("ps", "-aq")).split("\n").filter(Boolean);
    if (ids.length) await this.docker("rm", "-fv", ...ids);
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    await super[Symbol.asyncDispose]();
    rmSync(this.scratch, { recursive: true, force: true });
  }
}
