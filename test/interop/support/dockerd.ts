/** A real Docker Engine in a network namespace of its own, joined to this one by a veth pair. */
import { execFile, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);
const binary = "/usr/sbin/dockerd";

/** Why these tests cannot run here; undefined when they can. */
export function dockerdMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "needs root";
  if (!existsSync(binary)) return `needs a real Docker Engine: ${binary} is not installed`;
  return undefined;
}

/** Tries until `probe` gives something; the last failure is the reason when time is up. */
export async function eventually<T>(
  what: string,
  probe: () => Promise<T | undefined | false>,
  ms = 20_000,
): Promise<T> {
  const end = Date.now() + ms;
  let last: unknown;
  for (;;) {
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`in vain: ${what}`, { cause: last });
    await delay(100);
  }
}

export class Dockerd implements AsyncDisposable {
  readonly ns: string;
  readonly link: string;
  readonly dir: string;
  /** The engine's address, and this end's. */
  readonly address: string;
  readonly peerAddress: string;
  /** A bridge to which its cable goes; without one, this end has `peerAddress`. */
  readonly bridge: string | undefined;
  #pid: number | undefined;

  /** `prefix` names the namespace and the links; `subnet` like "10.211.1". */
  constructor(prefix: string, subnet: string, on: { bridge?: string; host?: number; gateway?: number } = {}) {
    this.ns = `${prefix}-dockerd`;
    this.link = `${prefix}-veth`;
    this.bridge = on.bridge;
    this.address = `${subnet}.${on.host ?? 1}`;
    this.peerAddress = `${subnet}.${on.gateway ?? 2}`;
    this.dir = mkdtempSync(join(tmpdir(), `${prefix}-`));
  }

  async start(): Promise<void> {
    const ip = (...args: string[]) => execFileSync("ip", args);
    execFileSync("sh", ["-c", `ip netns del ${this.ns} 2>/dev/null; ip link del ${this.link} 2>/dev/null; true`]);
    ip("netns", "add", this.ns);
    ip("link", "add", this.link, "type", "veth", "peer", "name", "eth0", "netns", this.ns);
    if (this.bridge) ip("link", "set", this.link, "master", this.bridge);
    else ip("addr", "add", `${this.peerAddress}/24`, "dev", this.link);
    ip("link", "set", this.link, "up");
    ip("-n", this.ns, "addr", "add", `${this.address}/24`, "dev", "eth0");
    ip("-n", this.ns, "link", "set", "eth0", "up");
    ip("-n", this.ns, "link", "set", "lo", "up");
    ip("-n", this.ns, "route", "add", "default", "via", this.peerAddress);
    await this.startDaemon();
  }

  async startDaemon(): Promise<void> {
    const log = openSync(join(this.dir, "log"), "a");
    const options = `--data-root ${this.dir}/data --exec-root ${this.dir}/exec --pidfile ${this.dir}/pid -H unix://${this.dir}/sock`;
    const script = `mount -t tmpfs tmpfs /run; exec ${binary} ${options}`;
    const child = spawn("nsenter", [`--net=/run/netns/${this.ns}`, "unshare", "-m", "sh", "-c", script], {
      stdio: ["ignore", log, log],
    });
    this.#pid = child.pid;
    await eventually("dockerd answers", async () => (await this.docker("version")) !== "");
  }

  async stopDaemon(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    const pid = this.#pid;
    if (pid === undefined) return;
    this.#pid = undefined;
    process.kill(pid, signal);
    await eventually("dockerd ends", async () => (!existsSync(`/proc/${pid}`) || isZombie(pid) ? true : undefined));
    rmSync(join(this.dir, "pid"), { force: true });
  }

  /** `docker …` at this engine: its output, trimmed. */
  async docker(...args: string[]): Promise<string> {
    const { stdout } = await run("docker", ["-H", `unix://${this.dir}/sock`, ...args], { timeout: 30_000 });
    return stdout.trim();
  }

  /** An inspection, parsed. */
  async inspect(...args: string[]): Promise<Record<string, unknown>[]> {
    return JSON.parse(await this.docker(...args)) as Record<string, unknown>[];
  }

  log(): string {
    return readFileSync(join(this.dir, "log"), "utf8");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopDaemon().catch(() => this.stopDaemon("SIGKILL"));
    // The engine's own containerd is its child and ends with it; what it mounted lived in its mount namespace.
    execFileSync("sh", ["-c", `ip netns del ${this.ns} 2>/dev/null; ip link del ${this.link} 2>/dev/null; true`]);
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

function isZombie(pid: number): boolean {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return true;
  }
}
