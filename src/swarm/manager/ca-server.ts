/**
 * Certificates over the wire: hands out the root, takes signing requests (a join token or a certificate of this swarm
 * says who asks), and lets the requester wait for the result; `signing.ts` signs.
 */
import { create } from "@bufbuild/protobuf";
import type { CA, NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import { NodeSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { type NodeSpec_Availability, NodeSpec_Membership } from "#proto/docker/swarmkit/specs_pb.js";
import {
  CertificateSchema,
  type IssuanceStatus,
  IssuanceStatus_State,
  NodeRole,
  NodeStatus_State,
} from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import { GrpcError, status } from "../../base/grpc.ts";
import type { CallContext, Handlers } from "../../base/grpc-server.ts";
import { swarmId } from "../../base/id.ts";
import type { Logger } from "../../base/log.ts";
import { checkCsr, MANAGER_OU, WORKER_OU } from "../ca/certificates.ts";
import { sameToken } from "../ca/token.ts";
import type { Store } from "../store/store.ts";
import { type Authority, MANAGERS } from "./auth.ts";
import { BoundedWarning } from "./strangers.ts";

const { ISSUED, FAILED, ROTATE, PENDING, RENEW } = IssuanceStatus_State;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

function isFinal(state: IssuanceStatus | undefined): boolean {
  return state !== undefined && [ISSUED, FAILED, ROTATE].includes(state.state);
}

export class CaServer {
  readonly #store: Store;
  readonly #clusterId: string;
  readonly #authority: Authority;
  readonly #log: Logger;
  readonly #waiters = new Map<string, Set<() => void>>();
  readonly #refused: BoundedWarning;
  readonly #stopWatching: () => void;

  constructor(store: Store, clusterId: string, authority: Authority, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clusterId = clusterId;
    this.#authority = authority;
    this.#log = log;
    this.#refused = new BoundedWarning(log, clock, "refused to let a node join: its token is not one of this swarm");
    this.#stopWatching = store.onCommit((changes) => {
      for (const change of changes)
        if (change.kind === "node" && change.action !== "remove")
          for (const wake of this.#waiters.get(change.object.id) ?? []) wake();
    });
  }

  close(): void {
    this.#stopWatching();
    this.#refused.close();
    for (const set of this.#waiters.values()) for (const wake of set) wake();
  }

  /** Handlers of the `CA` service. */
  root(): Handlers<typeof CA> {
    return {
      getRootCACertificate: () => ({ certificate: this.#cluster()?.rootCa?.caCert ?? new Uint8Array() }),
      getUnlockKey: (_request, context) => {
        this.#authority.require(context, MANAGERS);
        const key = this.#cluster()?.unlockKeys.find(({ subsystem }) => subsystem === "manager");
        return { unlockKey: key?.key ?? new Uint8Array(), version: this.#cluster()?.meta?.version };
      },
    };
  }

  /** Handlers of the `NodeCA` service. */
  node(): Handlers<typeof NodeCA> {
    return {
      issueNodeCertificate: async ({ csr, token, availability }, context) => {
        if (csr.length === 0) throw new GrpcError(status.INVALID_ARGUMENT, "InvalidArgument");
        const member = this.#member(context);
        const role = member === undefined ? this.#roleOf(token) : undefined;
        if (member === undefined && role === undefined) {
          this.#refused.tell({ peer: context.peer });
          throw new GrpcError(status.INVALID_ARGUMENT, "A valid join token is necessary to join this cluster");
        }
        // Looked into only now: what a stranger sends is not even parsed.
        try {
          await checkCsr(text(csr));
        } catch (error) {
          throw new GrpcError(status.INVALID_ARGUMENT, messageOf(error));
        }
        if (member !== undefined) return this.#renew(csr, member);
        return this.#enroll(csr, role ?? NodeRole.WORKER, availability);
      },
      nodeCertificateStatus: async ({ nodeId }, context) => {
        if (!nodeId) throw new GrpcError(status.INVALID_ARGUMENT, "InvalidArgument");
        for (;;) {
          const node = this.#store.view.get("node", nodeId);
          if (!node) throw new GrpcError(status.NOT_FOUND, "NotFound");
          const { certificate } = node;
          if (certificate?.status && isFinal(certificate.status)) return { status: certificate.status, certificate };
          await this.#change(nodeId, context.signal);
          context.signal.throwIfAborted();
        }
      },
    };
  }

  #cluster() {
    return this.#store.view.get("cluster", this.#clusterId);
  }

  #roleOf(token: string): NodeRole | undefined {
    const tokens = this.#cluster()?.rootCa?.joinTokens;
    if (!tokens) return undefined;
    if (sameToken(token, tokens.manager)) return NodeRole.MANAGER;
    return sameToken(token, tokens.worker) ? NodeRole.WORKER : undefined;
  }

  /** The node that calls with a certificate of this swarm; throws when it was withdrawn. */
  #member(context: CallContext): string | undefined {
    const caller = this.#authority.caller(context);
    if (!caller || caller.o !== this.#clusterId) return undefined;
    return this.#authority.require(context, [MANAGER_OU, WORKER_OU]).cn;
  }

  async #renew(csr: Uint8Array, cn: string) {
    return this.#store.update((tx) => {
      const node = tx.get("node", cn);
      if (!node) throw new GrpcError(status.NOT_FOUND, `node ${cn} not found when attempting to renew certificate`);
      const certificate = create(CertificateSchema, { csr, cn, role: node.role, status: { state: RENEW } });
      tx.update("node", { ...node, certificate });
      return { nodeId: cn, nodeMembership: node.spec?.membership ?? NodeSpec_Membership.ACCEPTED };
    });
  }

  async #enroll(csr: Uint8Array, role: NodeRole, availability: NodeSpec_Availability) {
    const id = swarmId();
    const membership = NodeSpec_Membership.ACCEPTED;
    const node = create(NodeSchema, {
      id,
      role,
      spec: { annotations: {}, desiredRole: role, membership, availability },
      status: { state: NodeStatus_State.UNKNOWN },
      certificate: { csr, cn: id, role, status: { state: PENDING } },
      VXLANUDPPort: this.#cluster()?.VXLANUDPPort ?? 0,
    });
    await this.#store.update((tx) => tx.create("node", node));
    this.#log.info("a node joins", { node: id, role: role === NodeRole.MANAGER ? "manager" : "worker" });
    return { nodeId: id, nodeMembership: membership };
  }

  #change(nodeId: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const set = this.#waiters.get(nodeId) ?? new Set();
      this.#waiters.set(nodeId, set);
      const wake = () => {
        set.delete(wake);
        if (set.size === 0) this.#waiters.delete(nodeId);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      set.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
  }
}
