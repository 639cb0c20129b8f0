/**
 * What runs while this host is a member of a swarm: its certificate and the renewal of that, the agent, and on a
 * manager the manager.
 */
import { join } from "node:path";
import type { SessionMessage } from "#proto/docker/swarmkit/dispatcher_pb.js";
import type { Node } from "#proto/docker/swarmkit/objects_pb.js";
import { IssuanceStatus_State, NodeRole } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { Agent } from "../agent/agent.ts";
import { type ManagerPeer, Remotes } from "../agent/remotes.ts";
import { openTaskDb } from "../agent/task-db.ts";
import { validityOf } from "../ca/certificates.ts";
import type { Manager } from "../manager/types.ts";
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
  readonly executor: Executor;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random: () => number;
  /** The list of managers, or what else is shown of this node, changed. */
  onChange(): void;
}

export class Member implements AsyncDisposable {
  readonly agent: Agent;
  readonly manager: Manager | undefined;
  readonly identity: NodeIdentity;
  readonly remotes: Remotes;
  #options: MemberOptions;
  #renewer: Renewer;
  #certificateState = IssuanceStatus_State.UNKNOWN;
  #desiredRole: NodeRole | undefined;
  #shown = "";

  constructor(options: MemberOptions) {
    const { clock, executor, identity, log, manager, random, remotes, stateDir } = options;
    this.#options = options;
    this.manager = manager;
    this.identity = identity;
    this.remotes = new Remotes(remotes);
    this.agent = new Agent({
      nodeId: identity.nodeId,
      executor,
      remotes: this.remotes,
      ...(manager ? { localManager: { nodeId: manager.nodeId, addr: manager.localAddr } } : {}),
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
      unsatisfied: () => this.#desiredRole === NodeRole.WORKER && identity.isManager,
      clock,
      log,
      random,
    });
  }

  async start(): Promise<void> {
    await this.agent.start();
    this.#renewer.start();
  }

  /** Ends this host's part; its tasks go on. */
  async close(): Promise<void> {
    await this.#renewer.close();
    await this.agent.close();
    await this.manager?.close();
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
          this.manager?.reloadCertificate();
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
    const role = node.spec?.desiredRole;
    if (role === undefined || role === this.#desiredRole) return;
    const before = this.#desiredRole;
    this.#desiredRole = role;
    const { log } = this.#options;
    if (role === NodeRole.MANAGER && !this.identity.isManager) {
      log.error("this node was promoted, but cannot become a manager: skein does not support that yet");
    } else if (role === NodeRole.WORKER && this.identity.isManager) {
      log.info("this node is demoted", { before });
      this.#renewer.force();
    }
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const { clock, log, random } = this.#options;
    const connect = () => {
      const addr = this.manager?.localAddr ?? this.remotes.select(random)?.addr;
      if (!addr) throw new Error("no manager is known");
      return this.identity.connect(addr);
    };
    const { rootPem } = this.identity;
    const issued = await requestCertificate({ rootPem, token: "", connect, clock, log, signal });
    this.identity.replaceCertificate(issued);
    log.info("the node's certificate was renewed", {
      until: new Date(validityOf(issued.certPem).notAfter).toISOString(),
    });
    this.manager?.reloadCertificate();
    this.agent.restartSession();
  }
}
