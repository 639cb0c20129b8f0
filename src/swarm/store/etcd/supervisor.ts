/**
 * Runs the `etcd` binary for a manager: its own data directory, client port on loopback, mutual TLS with the
 * swarm's certificates, where only a manager's certificate opens the client port. Members of other hosts are reached
 * through `tunnel.ts`. etcd outlives a crash of ours (it is adopted at the next start) and is started again when it
 * dies. Its writes are flushed to disk (etcd's default).
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import * as z from "zod";
import { type Clock, sleep } from "../../../base/clock.ts";
import { messageOf, unavailable } from "../../../base/errors.ts";
import { readFileIfAny, writeFileAtomic } from "../../../base/file.ts";
import type { Logger } from "../../../base/log.ts";
import { verifyChain } from "../../ca/certificates.ts";
import { certificatePaths, type NodeCredentials } from "../../ca/files.ts";
import { TlsFiles } from "./tls-files.ts";
import { PeerSockets, type PeerSocketsOptions, peerUrl } from "./tunnel.ts";

export interface EtcdOptions {
  /** The swarm's state directory. */
  readonly stateDir: string;
  /** The member's name: the node id. */
  readonly name: string;
  readonly binary: string;
  readonly forceNewCluster: boolean;
  /** The way to the members of other hosts; without it this member stays alone. */
  readonly peers?: Pick<PeerSocketsOptions, "addrOf" | "credentials">;
  /** Names of all members, this one among them, of the cluster to join; for the first start only. */
  readonly join?: readonly string[];
  /** The others removed this member: etcd is not started again. */
  readonly onRemoved?: () => void;
  readonly clock: Clock;
  readonly log: Logger;
}

/** etcd's working directory. */
export const etcdDir = (stateDir: string): string => join(stateDir, "etcd");

/** True when this host's etcd was a member before. */
export function hasEtcdData(stateDir: string): boolean {
  return existsSync(join(etcdDir(stateDir), "data", "member"));
}

const Running = z.object({
  /** Digest of the roots that it believes. */
  roots: z.string().default(""),
  pid: z.number(),
  startTicks: z.string(),
  clientPort: z.number(),
});
type Running = z.infer<typeof Running>;

/**
 * A leader that is silent for one to two times the election timeout is replaced. What members say to each other passes
 * through the event loops of two managers (`tunnel.ts`): one that is stalled for less than the timeout keeps the lead.
 */
const HEARTBEAT_MS = 100;
const ELECTION_MS = 1_500;
const READY_TIMEOUT_MS = 15_000;
const STOP_TIMEOUT_MS = 5_000;
const ADOPTED_POLL_MS = 1_000;
/** As long as other managers are given. */
const SETTLING_MS = 5_000;

export class EtcdSupervisor {
  readonly #options: EtcdOptions;
  readonly #dir: string;
  #running: Running | undefined;
  readonly #peers: PeerSockets | undefined;
  readonly #tls: TlsFiles | undefined;
  #child: ChildProcess | undefined;
  #stopping = false;
  /** A cluster is begun anew once, not each time etcd is started again. */
  #forced = false;
  #stopPoll: () => void = () => {};
  #cancelRoots: () => void = () => {};
  #rootsDue: number | undefined;
  /** Roots with which etcd was started; undefined when it was found running. */
  #believed: string | undefined;
  #settledAt = 0;
  #backoff = 100;
  /** Cancels the return to the short pause. */
  #calm: () => void = () => {};

  private constructor(options: EtcdOptions) {
    this.#options = options;
    this.#dir = etcdDir(options.stateDir);
    const { log, name, peers } = options;
    if (!peers) return;
    this.#peers = new PeerSockets({ ...peers, dir: this.#dir, self: name, log });
    this.#tls = new TlsFiles(name, this.#dir);
  }

  /** Adopts the etcd left by a crash, or starts one; resolves when its client port is open. */
  static async start(options: EtcdOptions): Promise<EtcdSupervisor> {
    const supervisor = new EtcdSupervisor(options);
    mkdirSync(supervisor.#dir, { recursive: true, mode: 0o700 });
    if (options.peers) supervisor.setCertificates(options.peers.credentials());
    if (options.join) supervisor.setPeers(options.join);
    try {
      if (!(await supervisor.#adopt())) await supervisor.#spawnOnFreePort();
      await supervisor.#waitReady();
    } catch (error) {
      await supervisor.stop();
      throw error;
    }
    return supervisor;
  }

  /** "ip:port" of the client side. */
  get address(): string {
    return `127.0.0.1:${this.#running?.clientPort ?? 0}`;
  }

  /** etcd uses these from its next connection on. */
  setCertificates(credentials: Pick<NodeCredentials, "certPem" | "keyPem" | "rootPem">): void {
    this.#tls?.write(credentials);
  }

  /**
   * etcd reads the roots that it believes only when it starts: it is started again, after so many milliseconds, when they
   * are others by now.
   */
  followRoots(afterMs: number): void {
    if (this.#running?.roots === this.#roots()) return;
    const due = this.#options.clock.steady() + afterMs;
    if (this.#rootsDue !== undefined && this.#rootsDue <= due) return;
    this.#cancelRoots();
    this.#rootsDue = due;
    this.#cancelRoots = this.#options.clock.after(afterMs, () => {
      this.#rootsDue = undefined;
      void this.#startAgain();
    });
  }

  /** Whether the etcd that runs believes this certificate, as far as is known. */
  believes(certPem: string): boolean {
    return this.#believed === undefined || verifyChain(certPem, this.#believed) === undefined;
  }

  /** While etcd is started again on purpose: its silence, and that it knows no leader, mean nothing. */
  get settling(): boolean {
    return this.#options.clock.steady() < this.#settledAt;
  }

  async #startAgain(): Promise<void> {
    const running = this.#running;
    if (!running || this.#stopping || running.roots === this.#roots()) return;
    this.#options.log.info("etcd is started again: the swarm has another root certificate");
    this.#child = undefined;
    this.#stopPoll();
    this.#settledAt = this.#options.clock.steady() + SETTLING_MS;
    await this.#end(running);
    if (this.#stopping || this.#running !== running) return;
    try {
      this.#spawn(running.clientPort);
    } catch (error) {
      this.#options.log.error("etcd could not be started again, trying on", { error });
      this.#restart(running);
    }
  }

  get #tlsPaths() {
    return this.#tls?.paths ?? certificatePaths(this.#options.stateDir);
  }

  #roots(): string {
    return createHash("sha256")
      .update(readFileIfAny(this.#tlsPaths.root) ?? "")
      .digest("hex");
  }

  /** The nodes that are members, as far as is known: only to them there is a way. */
  setPeers(nodeIds: readonly string[]): void {
    this.#peers?.set(nodeIds);
  }

  get pid(): number | undefined {
    return this.#running?.pid;
  }

  /** Ends etcd; resolves when it is gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#stopPoll();
    this.#cancelRoots();
    this.#calm();
    const running = this.#running;
    this.#running = undefined;
    if (running) {
      await this.#end(running);
      rmSync(this.#stateFile, { force: true });
    }
    this.#peers?.close();
    this.#tls?.remove();
  }

  async #end(running: Running): Promise<void> {
    kill(running.pid, "SIGTERM");
    const deadline = this.#options.clock.steady() + STOP_TIMEOUT_MS;
    while (alive(running)) {
      if (this.#options.clock.steady() > deadline) kill(running.pid, "SIGKILL");
      await sleep(this.#options.clock, 20);
    }
  }

  get #stateFile(): string {
    return join(this.#dir, "running.json");
  }

  async #adopt(): Promise<boolean> {
    const text = readFileIfAny(this.#stateFile);
    if (text === undefined) return false;
    const parsed = Running.safeParse(parseJson(text));
    if (!parsed.success || !alive(parsed.data)) return false;
    if (this.#options.forceNewCluster) {
      await this.#end(parsed.data);
      return false;
    }
    this.#options.log.info("found etcd still running", { pid: parsed.data.pid });
    this.#running = parsed.data;
    this.#stopPoll = this.#options.clock.every(ADOPTED_POLL_MS, () => {
      if (alive(parsed.data) || this.#stopping) return;
      this.#stopPoll();
      this.#restart(parsed.data);
    });
    return true;
  }

  async #spawnOnFreePort(): Promise<void> {
    this.#spawn(await freePort());
  }

  #spawn(clientPort: number): void {
    const { name, binary, forceNewCluster, log } = this.#options;
    const paths = this.#tlsPaths;
    const client = `https://127.0.0.1:${clientPort}`;
    const joining = this.#options.join;
    const members = joining ?? [name];
    const args = [
      ...["--name", name, "--data-dir", join(this.#dir, "data")],
      ...["--listen-client-urls", client, "--advertise-client-urls", client],
      ...["--listen-peer-urls", peerUrl(name), "--initial-advertise-peer-urls", peerUrl(name)],
      ...["--initial-cluster", members.map((member) => `${member}=${peerUrl(member)}`).join(",")],
      ...["--initial-cluster-state", joining ? "existing" : "new"],
      // Membership is changed by the leading manager only, whose order is safe.
      ...["--strict-reconfig-check=false", "--pre-vote"],
      ...["--heartbeat-interval", String(HEARTBEAT_MS), "--election-timeout", String(ELECTION_MS)],
      ...["--client-cert-auth", "--trusted-ca-file", paths.root, "--cert-file", paths.cert, "--key-file", paths.key],
      ...["--client-cert-allowed-hostname", "swarm-manager"],
      ...["--peer-client-cert-auth", "--peer-trusted-ca-file", paths.root],
      ...["--peer-cert-file", paths.cert, "--peer-key-file", paths.key],
      ...["--peer-cert-allowed-hostname", "swarm-manager"],
      // Peers come through a socket: their certificate names no address.
      "--experimental-peer-skip-client-san-verification",
      ...["--max-txn-ops", "20000", "--max-request-bytes", String(16 << 20)],
      // Its log holds former values until a segment of 64 MB is dropped: not for longer than etcd needs it.
      ...["--snapshot-count", "10000", "--max-wals", "2", "--max-snapshots", "2"],
      ...["--auto-compaction-mode", "revision", "--auto-compaction-retention", "10000"],
      ...["--quota-backend-bytes", String(4 * 2 ** 30)],
      ...["--enable-grpc-gateway=false", "--logger", "zap", "--log-level", "warn", "--log-outputs", "stderr"],
      ...(forceNewCluster && !this.#forced ? ["--force-new-cluster"] : []),
    ];
    this.#forced = true;
    const logFd = openSync(join(this.#dir, "etcd.log"), "a", 0o600);
    const child = spawn(binary, args, { stdio: ["ignore", logFd, logFd], detached: true, cwd: this.#dir });
    closeSync(logFd);
    child.unref();
    this.#child = child;
    child.once("error", (error) => log.error("etcd could not be started", { binary, error }));
    if (child.pid === undefined) return;
    const running = { pid: child.pid, startTicks: startTicks(child.pid) ?? "", clientPort, roots: this.#roots() };
    this.#running = running;
    this.#believed = readFileIfAny(paths.root);
    try {
      writeFileAtomic(this.#stateFile, JSON.stringify(running));
    } catch (error) {
      // One that could not be found again after a crash would keep its successor from the data.
      this.#child = undefined;
      kill(child.pid, "SIGKILL");
      throw error;
    }
    child.once("exit", (code, signal) => {
      if (this.#stopping || this.#child !== child) return;
      if (this.#wasRemoved()) {
        log.warn("this host's etcd is no member any more");
        this.#options.onRemoved?.();
        return;
      }
      log.error("etcd ended by itself, starting it again", { code: code ?? undefined, signal: signal ?? undefined });
      this.#restart(running);
    });
  }

  #wasRemoved(): boolean {
    const text = readFileIfAny(join(this.#dir, "etcd.log"))?.slice(-4000) ?? "";
    return text.includes("permanently removed");
  }

  #restart(last: Running): void {
    this.#options.clock.after(this.#backoff, () => {
      if (this.#stopping) return;
      try {
        this.#spawn(last.clientPort);
      } catch (error) {
        this.#options.log.error("etcd could not be started again, trying on", { error });
        this.#restart(last);
      }
    });
    this.#backoff = Math.min(this.#backoff * 2, 5_000);
    this.#calm();
    this.#calm = this.#options.clock.after(60_000, () => {
      this.#backoff = 100;
    });
  }

  async #waitReady(): Promise<void> {
    const { clock, binary } = this.#options;
    const deadline = clock.steady() + READY_TIMEOUT_MS;
    while (clock.steady() < deadline) {
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

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(address && typeof address === "object" ? address.port : 0));
    });
  });
}
