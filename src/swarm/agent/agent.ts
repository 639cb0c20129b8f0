/**
 * The agent: keeps a session with some manager, and through it does what the swarm wants of this node.
 * It goes on with its tasks while no manager answers.
 */
import { equals } from "@bufbuild/protobuf";
import type { SessionMessage } from "#proto/docker/swarmkit/dispatcher_pb.js";
import type { Node, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { type NodeDescription, NodeDescriptionSchema, type NodeTLSInfo } from "#proto/docker/swarmkit/types_pb.js";
import { type Deferred, deferred } from "../../base/async.ts";
import { type Clock, sleep } from "../../base/clock.ts";
import { grpcCodeOf, grpcMessageOf, status } from "../../base/grpc.ts";
import type { Logger } from "../../base/log.ts";
import type { Executor } from "../types.ts";
import { Attachments } from "./attachments.ts";
import { HostUpdates } from "./host-updates.ts";
import { AttachmentClient } from "./network-attach.ts";
import { badExperience, goodExperience, type ManagerPeer, type Remotes } from "./remotes.ts";
import { Reporter } from "./reporter.ts";
import { type Connection, type RegisteredSession, runSession } from "./session.ts";
import type { TaskDb } from "./task-db.ts";
import { Worker } from "./worker.ts";

/** The host describes itself anew this often; a change is told by a new session. */
const describeMs = 20_000;
const backoffMs = { step: 100, factor: 2, max: 8_000 };

export interface AgentOptions {
  readonly nodeId: string;
  readonly executor: Executor;
  /** Shared with the node, which persists it. */
  readonly remotes: Remotes;
  /** On a manager, its own while it serves: then always the one to talk to. */
  readonly localManager?: () => ManagerPeer | undefined;
  readonly db: TaskDb;
  readonly clock: Clock;
  readonly log: Logger;
  /** Uniform in [0,1). */
  readonly random?: () => number;
  /** Opens a connection under this node's present certificate. */
  connect(addr: string): Connection;
  /** Told to the managers with the description; root rotation waits for it. */
  tlsInfo(): NodeTLSInfo;
  /** Each session message, after the host was told: for certificates, roles, the list of managers. */
  onMessage?(message: SessionMessage): void;
}

export class Agent implements AsyncDisposable {
  readonly worker: Worker;
  #options: AgentOptions;
  #host: HostUpdates;
  #reporter: Reporter;
  #attachments: AttachmentClient;
  #session: Deferred<RegisteredSession> = deferred();
  #sessionId = "";
  #restart = new AbortController();
  #closing = new AbortController();
  #registered = deferred<void>();
  #lastError: unknown;
  #loop: Promise<void> | undefined;
  /**
   * Of a session that its manager ended (ABORTED) while it stayed itself: another manager leads now, and the next session
   * comes the same way. A thousand nodes need no new handshakes for that.
   */
  #kept: { readonly peer: ManagerPeer; readonly connection: Connection } | undefined;

  constructor(options: AgentOptions) {
    const { executor, db, clock, log, remotes } = options;
    this.#options = options;
    this.#reporter = new Reporter(clock, log);
    this.#host = new HostUpdates({ executor, remotes, clock, log });
    const attachments = new Attachments();
    this.#attachments = new AttachmentClient({
      attachments,
      clock,
      log,
      session: (signal) => this.#awaitSession(signal),
      tasks: () => this.worker.tasks(),
    });
    this.worker = new Worker({
      executor,
      attachments,
      db,
      clock,
      log,
      report: (id, status, passing) => this.#reporter.report(id, status, passing),
      forget: (id) => this.#reporter.forget(id),
    });
  }

  /** Resolves at the first registration. */
  get registered(): Promise<void> {
    return this.#registered.promise;
  }

  /** Why the last session ended. */
  get lastError(): unknown {
    return this.#lastError;
  }

  /** This node as the managers last told it. */
  get node(): Node | undefined {
    return this.#host.node;
  }

  /** Takes up the tasks of the last run, then looks for a manager, for ever. */
  async start(): Promise<void> {
    await this.worker.restore();
    this.#loop = this.#run();
  }

  /** Ends the session and opens a new one: after a new certificate or a changed description. */
  restartSession(): void {
    this.#restart.abort(new Error("a new session is wanted"));
  }

  attachNetwork(request: {
    target: string;
    addresses: string[];
    containerId: string;
    signal?: AbortSignal;
  }): Promise<{ attachmentId: string; task: Task }> {
    return this.#attachments.attach(request);
  }

  detachNetwork(attachmentId: string): Promise<void> {
    return this.#attachments.detach(attachmentId);
  }

  /** Ends the session. The tasks go on, unwatched. */
  async close(): Promise<void> {
    await this.#endSession();
    await this.worker.close();
  }

  /**
   * For a node that leaves: ends the session, so that no more is assigned, then stops and removes every task.
   * The agent is still to be closed.
   */
  async removeTasks(): Promise<void> {
    await this.#endSession();
    await this.worker.removeAll();
  }

  async #endSession(): Promise<void> {
    this.#closing.abort(new Error("the agent stops"));
    this.#host.close();
    this.#reporter.connect(undefined);
    await this.#loop;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #run(): Promise<void> {
    const { clock, localManager, log, remotes, random = Math.random } = this.#options;
    const { signal } = this.#closing;
    let backoff = 0;
    while (!signal.aborted) {
      const peer = localManager?.() ?? this.#kept?.peer ?? remotes.select(random);
      if (!peer) log.warn("no manager is known");
      const registered = peer !== undefined && (await this.#runOnce(peer));
      backoff = Math.min(backoffMs.step + backoffMs.factor * (registered ? 0 : backoff), backoffMs.max);
      await sleep(clock, random() * backoff, signal).catch(() => {});
    }
    this.#kept?.connection.close();
  }

  #connect(peer: ManagerPeer): Connection {
    const kept = this.#kept;
    this.#kept = undefined;
    if (kept?.peer.addr === peer.addr) return kept.connection;
    kept?.connection.close();
    return this.#options.connect(peer.addr);
  }

  /** One session to its end; says whether this node got registered. */
  async #runOnce(peer: ManagerPeer): Promise<boolean> {
    const { clock, log, remotes, nodeId } = this.#options;
    this.#restart = new AbortController();
    const signal = AbortSignal.any([this.#closing.signal, this.#restart.signal]);
    let registered = false;
    let connection: Connection | undefined;
    try {
      const description = await this.#describe();
      connection = this.#connect(peer);
      void this.#watchDescription(description, signal);
      await runSession({
        connection,
        description,
        sessionId: this.#sessionId,
        nodeId,
        worker: this.worker,
        clock,
        log,
        signal,
        onMessage: (message) => {
          this.#host.apply(message);
          this.#options.onMessage?.(message);
        },
        onRegistered: (session) => {
          registered = true;
          remotes.observeKnown(peer, goodExperience);
          this.#onRegistered(session, peer, description);
        },
      });
    } catch (error) {
      if (!signal.aborted) {
        this.#lastError = error;
        if (registered && connection && grpcCodeOf(error) === status.ABORTED) this.#kept = { peer, connection };
        else remotes.observeKnown(peer, badExperience);
        log.warn("the session with a manager ended", { manager: peer.addr, registered, error });
        this.#endIfRemoved(error);
      }
    } finally {
      if (this.#kept?.connection !== connection) connection?.close();
      // Ends the watch of the description too.
      this.#restart.abort(new Error("the session is over"));
      this.#reporter.connect(undefined);
      if (registered) this.#session = deferred();
    }
    return registered;
  }

  /**
   * A node that was removed while it was away hears so from the first manager it finds: what ran here runs elsewhere now,
   * and the addresses are others'.
   */
  #endIfRemoved(error: unknown): void {
    const { log, nodeId } = this.#options;
    if (grpcCodeOf(error) !== status.PERMISSION_DENIED || this.worker.tasks().length === 0) return;
    if (!grpcMessageOf(error).includes(`node ${nodeId} was removed from swarm`)) return;
    log.warn("this node was removed from the swarm: its tasks are ended");
    void this.worker.removeAll();
  }

  #onRegistered(session: RegisteredSession, peer: ManagerPeer, description: NodeDescription): void {
    const { log } = this.#options;
    const plugins = (description.engine?.plugins ?? []).map((plugin) => `${plugin.type}/${plugin.name}`);
    log.info("registered with a manager", { manager: peer.addr, session: session.id, plugins: plugins.join(",") });
    if (!plugins.includes("Network/overlay")) {
      log.warn("the host reports no overlay driver: no task with an overlay network will be placed here");
    }
    this.#sessionId = session.id;
    // The managers may have forgotten, or never heard, how our tasks are.
    for (const task of this.worker.tasks()) {
      if (task.status) this.#reporter.report(task.id, task.status);
    }
    this.#reporter.connect((updates) => session.sendUpdates(updates));
    this.#session.resolve(session);
    this.#registered.resolve();
    this.#attachments.resume();
  }

  #awaitSession(signal: AbortSignal): Promise<RegisteredSession> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) reject(signal.reason);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      this.#session.promise.then(resolve, reject);
    });
  }

  async #describe(): Promise<NodeDescription> {
    return { ...(await this.#options.executor.describe()), tlsInfo: this.#options.tlsInfo() };
  }

  async #watchDescription(told: NodeDescription, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    while (!signal.aborted) {
      try {
        await sleep(clock, describeMs, signal);
        if (equals(NodeDescriptionSchema, told, await this.#describe())) continue;
        log.info("the host's description changed");
        this.restartSession();
      } catch (error) {
        if (!signal.aborted) log.warn("the host could not be described", { error });
      }
    }
  }
}
