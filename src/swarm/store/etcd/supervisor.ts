/**
 * Runs the `etcd` binary for a manager: its own data directory, client and peer ports on loopback, mutual TLS with the
 * swarm's certificates, where only a manager's certificate opens the client port. etcd outlives a crash of ours (it is
 * adopted at the next start) and is started again when it dies. Its writes are flushed to disk (etcd's default).
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { z } from "zod";
import { type Clock, sleep } from "../../../base/clock.ts";
import { messageOf, unavailable } from "../../../base/errors.ts";
import { readFileIfAny, writeFileAtomic } from "../../../base/file.ts";
import type { Logger } from "../../../base/log.ts";
import { certificatePaths } from "../../ca/files.ts";

export interface EtcdOptions {
  /** The swarm's state directory. */
  readonly stateDir: string;
  /** The member's name: the node id. */
  readonly name: string;
  readonly binary: string;
  readonly forceNewCluster: boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

const Running = z.object({
  pid: z.number(),
  startTicks: z.string(),
  clientPort: z.number(),
  peerPort: z.number(),
});
type Running = z.infer<typeof Running>;

const READY_TIMEOUT_MS = 15_000;
const STOP_TIMEOUT_MS = 5_000;
const ADOPTED_POLL_MS = 1_000;

export class EtcdSupervisor {
  readonly #options: EtcdOptions;
  readonly #dir: string;
  #running: Running | undefined;
  #child: ChildProcess | undefined;
  #stopping = false;
  #stopPoll: () => void = () => {};
  #backoff = 100;
  /** Cancels the return to the short pause. */
  #calm: () => void = () => {};

  private constructor(options: EtcdOptions) {
    this.#options = options;
    this.#dir = join(options.stateDir, "etcd");
  }

  /** Adopts the etcd left by a crash, or starts one; resolves when its client port answers. */
  static async start(options: EtcdOptions): Promise<EtcdSupervisor> {
    const supervisor = new EtcdSupervisor(options);
    mkdirSync(supervisor.#dir, { recursive: true, mode: 0o700 });
    if (!supervisor.#adopt()) await supervisor.#spawnOnFreePorts();
    await supervisor.#waitReady();
    return supervisor;
  }

  /** "ip:port" of the client side. */
  get address(): string {
    return `127.0.0.1:${this.#running?.clientPort ?? 0}`;
  }

  get pid(): number | undefined {
    return this.#running?.pid;
  }

  /** Ends etcd; resolves when it is gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#stopPoll();
    this.#calm();
    const running = this.#running;
    if (!running) return;
    this.#running = undefined;
    kill(running.pid, "SIGTERM");
    const deadline = this.#options.clock.now() + STOP_TIMEOUT_MS;
    while (alive(running)) {
      if (this.#options.clock.now() > deadline) kill(running.pid, "SIGKILL");
      await sleep(this.#options.clock, 20);
    }
    rmSync(this.#stateFile, { force: true });
  }

  get #stateFile(): string {
    return join(this.#dir, "running.json");
  }

  #adopt(): boolean {
    const text = readFileIfAny(this.#stateFile);
    if (text === undefined) return false;
    const parsed = Running.safeParse(parseJson(text));
    if (!parsed.success || !alive(parsed.data)) return false;
    this.#options.log.info("found etcd still running", { pid: parsed.data.pid });
    this.#running = parsed.data;
    this.#stopPoll = this.#options.clock.every(ADOPTED_POLL_MS, () => {
      if (alive(parsed.data) || this.#stopping) return;
      this.#stopPoll();
      this.#restart(parsed.data);
    });
    return true;
  }

  async #spawnOnFreePorts(): Promise<void> {
    const [clientPort, peerPort] = await freePorts();
    this.#spawn(clientPort, peerPort);
  }

  #spawn(clientPort: number, peerPort: number): void {
    const { name, binary, stateDir, forceNewCluster, log } = this.#options;
    const paths = certificatePaths(stateDir);
    const client = `https://127.0.0.1:${clientPort}`;
    const peer = `https://127.0.0.1:${peerPort}`;
    const args = [
      ...["--name", name, "--data-dir", join(this.#dir, "data")],
      ...["--listen-client-urls", client, "--advertise-client-urls", client],
      ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
      ...["--initial-cluster", `${name}=${peer}`, "--initial-cluster-state", "new"],
      ...["--client-cert-auth", "--trusted-ca-file", paths.root, "--cert-file", paths.cert, "--key-file", paths.key],
      ...["--client-cert-allowed-hostname", "swarm-manager"],
      ...["--peer-client-cert-auth", "--peer-trusted-ca-file", paths.root],
      ...["--peer-cert-file", paths.cert, "--peer-key-file", paths.key],
      ...["--peer-cert-allowed-hostname", "swarm-manager"],
      ...["--max-txn-ops", "20000", "--max-request-bytes", String(16 << 20)],
      ...["--auto-compaction-mode", "revision", "--auto-compaction-retention", "10000"],
      ...["--quota-backend-bytes", String(4 * 2 ** 30)],
      ...["--enable-grpc-gateway=false", "--logger", "zap", "--log-level", "warn", "--log-outputs", "stderr"],
      ...(forceNewCluster ? ["--force-new-cluster"] : []),
    ];
    const logFd = openSync(join(this.#dir, "etcd.log"), "a", 0o600);
    const child = spawn(binary, args, { stdio: ["ignore", logFd, logFd], detached: true, cwd: this.#dir });
    closeSync(logFd);
    child.unref();
    this.#child = child;
    child.once("error", (error) => log.error("etcd could not be started", { binary, error }));
    if (child.pid === undefined) return;
    const running = { pid: child.pid, startTicks: startTicks(child.pid) ?? "", clientPort, peerPort };
    this.#running = running;
    writeFileAtomic(this.#stateFile, JSON.stringify(running));
    child.once("exit", (code, signal) => {
      if (this.#stopping || this.#child !== child) return;
      log.error("etcd ended by itself, starting it again", { code: code ?? undefined, signal: signal ?? undefined });
      this.#restart(running);
    });
  }

  #restart(last: Running): void {
    this.#options.clock.after(this.#backoff, () => {
      if (!this.#stopping) this.#spawn(last.clientPort, last.peerPort);
    });
    this.#backoff = Math.min(this.#backoff * 2, 5_000);
    this.#calm();
    this.#calm = this.#options.clock.after(60_000, () => {
      this.#backoff = 100;
    });
  }

  async #waitReady(): Promise<void> {
    const { clock, binary } = this.#options;
    const deadline = clock.now() + READY_TIMEOUT_MS;
    while (clock.now() < deadline) {
      if (!this.#running) throw unavailable(`etcd (${binary}) could not be started: is it installed?`);
      if (await answers(this.#running.clientPort)) return;
      await sleep(clock, 10);
    }
    throw unavailable(
      `etcd did not become ready within ${READY_TIMEOUT_MS / 1000} s, see ${join(this.#dir, "etcd.log")}`,
    );
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    return messageOf(error);
  }
}

/** When the process started, in clock ticks since boot: tells a process from a later one with the same number. */
function startTicks(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

function alive(running: Running): boolean {
  return startTicks(running.pid) === running.startTicks;
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone already.
  }
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

async function freePorts(): Promise<[number, number]> {
  const take = () =>
    new Promise<{ port: number; close: () => void }>((resolve, reject) => {
      const server = createServer();
      server.once("error", reject);
      server.listen(0, "127.0.0.1", () => {
        const address = server.address();
        resolve({ port: address && typeof address === "object" ? address.port : 0, close: () => server.close() });
      });
    });
  const [first, second] = await Promise.all([take(), take()]);
  first.close();
  second.close();
  return [first.port, second.port];
}
