/**
 * What runs while this host is a member of a swarm: its certificate and the renewal of that, the agent, and on a
 * manager the manager.
 */
import { join } from "node:path";
import type { SessionMessage } from "#proto/docker/swarmkit/dispatcher_pb.js";
import type { Node } from "#proto/docker/swarmkit/objects_pb.js";
import { IssuanceStatus_State, NodeRole } from "#proto/docker/swarmkit/types_pb.js";
import { Managers } from "#proto/skein/swarm/managers_pb.js";
import { type Clock, sleep } from "../../base/clock.ts";
import { type Channel, grpcCodeOf, status } from "../../base/grpc.ts";
import type { Logger } from "../../base/log.ts";
import { Agent } from "../agent/agent.ts";
import { type ManagerPeer, Remotes } from "../agent/remotes.ts";
import { openTaskDb } from "../agent/task-db.ts";
import { validityOf } from "../ca/certificates.ts";
import { forgetDataKeys } from "../ca/files.ts";
import { type Manager, removeManagerData } from "../manager/types.ts";
import type { Executor } from "../types.ts";
import { requestCertificate } from "./certificate-client.ts";
import type { NodeIdentity } from "./identity.ts";
import { Renewer } from "./renewal.ts";

export interface MemberOptions {
  readonly stateDir: string;
  readonly identity: NodeIdentity;
  readonly remotes: readonly ManagerPeer[];
  /** Already started. */
  readonly manager?: Manager | undefined;
  /** For a node that is promoted: starts a manager that asks `remotes` to take it in. */
  startManager(remotes: () => readonly string[], signal: AbortSignal): Promise<Manager>;
  /** This node became, or ceased to be, a manager: for the state on disk. */
  onRole(manager: Manager | undefined): void;
  readonly executor: Executor;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  /** The list of managers, or what else is shown of this node, changed. */
  onChange(): void;
}

export class Member implements AsyncDisposable {
  readonly agent: Agent;
  readonly identity: NodeIdentity;
  readonly remotes: Remotes;
  #options: MemberOptions;
  #renewer: Renewer;
  #certificateState = IssuanceStatus_State.UNKNOWN;
  #manager: Manager | undefined;
  /** What the managers say that this node is. */
  #role: NodeRole | undefined;
  #closing = new AbortController();
  /** A change of the role under way; one at a time. */
  #changing: Promise<void> = Promise.resolve();
  #shown = "";

  constructor(options: MemberOptions) {
    const { clock, executor, identity, log, manager, random, remotes, stateDir } = options;
    this.#options = options;
    this.identity = identity;
    this.remotes = new Remotes(remotes);
    this.agent = new Agent({
      nodeId: identity.nodeId,
      executor,
      remotes: this.remotes,
      localManager: () => {
        const local = this.#manager;
        return local?.serves() ? { nodeId: local.nodeId, addr: local.localAddr } : undefined;
      },
      db: openTaskDb(join(stateDir, "worker"), log),
      clock,
      log,
      random,
      connect: (addr) => identity.connect(addr),
      tlsInfo: () => identity.tlsInfo(),
      onMessage: (message) => this.#onMessage(message),
    });
    this.#renewer = new Renewer({
      validity: () => validityOf(identity.certPem),
      renew: (signal) => this.#renew(signal),
      unsatisfied: () => this.#misplaced(),
      clock,
      log,
      random,
    });
    if (manager) this.#use(manager);
  }

  get manager(): Manager | undefined {
    return this.#manager;
  }

  async start(): Promise<void> {
    await this.agent.start();
    this.#renewer.start();
  }

  /** Ends this host's part; its tasks go on. */
  async close(): Promise<void> {
    this.#closing.abort(new Error("the node stops"));
    await this.#renewer.close();
    await this.#changing;
    await this.agent.close();
    await this.#manager?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #onMessage(message: SessionMessage): void {
    const { log } = this.#options;
    if (message.RootCA.length > 0) {
      try {
        if (this.identity.replaceRoot(Buffer.from(message.RootCA).toString("utf8"))) {
          log.info("the swarm's root certificate changed");
          this.#manager?.reloadCertificate();
          // The managers wait for every node to tell which root it trusts.
          this.agent.restartSession();
        }
      } catch (error) {
        log.error("a new root certificate is not taken", { error });
      }
    }
    if (message.node) this.#onNode(message.node);
    const shown = JSON.stringify([this.remotes.peers(), message.node?.VXLANUDPPort]);
    if (shown !== this.#shown) {
      this.#shown = shown;
      this.#options.onChange();
    }
  }

  #onNode(node: Node): void {
    const state = node.certificate?.status?.state ?? IssuanceStatus_State.UNKNOWN;
    const wanted = state === IssuanceStatus_State.ROTATE && this.#certificateState !== state;
    this.#certificateState = state;
    if (wanted) this.#renewer.force();
    const isToBe = node.role === NodeRole.MANAGER && node.spec?.desiredRole === NodeRole.MANAGER;
    if (isToBe && this.#manager?.removed() && this.identity.isManager) {
      this.#changing = this.#changing.then(() => this.#rejoin());
    }
    if (node.role === this.#role) return;
    this.#role = node.role;
    if (this.#misplaced()) void this.#changeRole();
  }

  /** The certificate is one of another role than the managers say. */
  #misplaced(): boolean {
    return this.#role !== undefined && (this.#role === NodeRole.MANAGER) !== this.identity.isManager;
  }

  async #changeRole(): Promise<void> {
    const { log } = this.#options;
    if (this.#role === NodeRole.WORKER) {
      log.info("this node is demoted");
    } else if (await this.#managersAreDockers()) {
      log.error(
        "this node was promoted, but the swarm is managed by Docker, whose managers keep their state otherwise",
      );
      return;
    } else {
      log.info("this node is promoted");
    }
    this.#renewer.force();
  }

  /** Tells the managers that this node leaves, so that they need not find out. Docker's do not know the call. */
  async sayGoodbye(timeoutMs: number): Promise<void> {
    const channel = this.#connect();
    try {
      await channel.client(Managers).leave({ node: true }, { timeoutMs });
    } finally {
      channel.close();
    }
  }

  /** Asked before a certificate is renewed for nothing: a manager of Docker's does not know Skein's calls. */
  async #managersAreDockers(): Promise<boolean> {
    const channel = this.#connect();
    try {
      await channel.client(Managers).write({}, { timeoutMs: 5_000, signal: this.#closing.signal });
      return false;
    } catch (error) {
      return grpcCodeOf(error) === status.UNIMPLEMENTED;
    } finally {
      channel.close();
    }
  }

  #connect(): Channel {
    const { random } = this.#options;
    const local = this.#manager?.serves() ? this.#manager.localAddr : undefined;
    const addr = local ?? this.remotes.select(random)?.addr;
    if (!addr) throw new Error("no manager is known");
    return this.identity.connect(addr);
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    const { rootPem } = this.identity;
    const issued = await requestCertificate({
      rootPem,
      token: "",
      connect: () => this.#connect(),
      clock,
      log,
      signal,
    });
    this.identity.replaceCertificate(issued);
    log.info("the node's certificate was renewed", {
      until: new Date(validityOf(issued.certPem).notAfter).toISOString(),
    });
    this.#manager?.reloadCertificate();
    if (this.identity.isManager !== (this.#manager !== undefined)) {
      this.#changing = this.#changing.then(() => this.#followCertificate());
    } else {
      this.agent.restartSession();
    }
  }

  /** Starts or ends the manager, as the certificate says. The tasks go on. */
  async #followCertificate(): Promise<void> {
    const { log, onRole } = this.#options;
    if (!this.identity.isManager) {
      await this.#endManager();
      onRole(undefined);
      log.info("this node is a worker now");
    } else if (!this.#manager) {
      const manager = await this.#startManager(this.#closing.signal);
      if (manager) {
        this.#use(manager);
        onRole(manager);
      }
    }
    this.agent.restartSession();
  }

  /**
   * Demoted and promoted again before this node heard of the first: its certificate is right all the time, but the others
   * have removed its member, and will take in a new one.
   */
  async #rejoin(): Promise<void> {
    if (!this.#manager?.removed() || !this.identity.isManager) return;
    this.#options.log.info("this node was demoted and is promoted again");
    await this.#endManager();
    await this.#followCertificate();
    if (!this.#manager) this.#options.onRole(undefined);
  }

  async #endManager(): Promise<void> {
    const { stateDir } = this.#options;
    const last = this.#manager;
    this.#manager = undefined;
    await last?.close();
    if (last) removeManagerData(stateDir);
    forgetDataKeys(stateDir);
  }

  #use(manager: Manager): void {
    this.#manager = manager;
    let removed = false;
    manager.onChange(() => {
      if (removed || this.#manager !== manager || !manager.removed()) return;
      removed = true;
      // Another manager tells first of all what this node is to be now.
      this.agent.restartSession();
    });
  }

  /** Tries until it is one, or is to be one no more. */
  async #startManager(signal: AbortSignal): Promise<Manager | undefined> {
    const { clock, log, startManager } = this.#options;
    const own = this.identity.nodeId;
    const remotes = () => this.remotes.peers().flatMap(({ addr, nodeId }) => (nodeId === own ? [] : [addr]));
    for (let wait = 500; !signal.aborted && this.#role !== NodeRole.WORKER; wait = Math.min(2 * wait, 10_000)) {
      try {
        return await startManager(remotes, signal);
      } catch (error) {
        log.error("the manager of this node could not be started; it is tried again", { error });
        await sleep(clock, wait, signal).catch(() => {});
      }
    }
    return undefined;
  }
}
