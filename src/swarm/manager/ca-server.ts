/**
 * Certificates over the wire: hands out the root, takes signing requests (a join token or a certificate of this swarm
 * says who asks), signs what is accepted, and lets the requester wait for the result.
 */
import { create } from "@bufbuild/protobuf";
import type { CA, NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import { type Node, NodeSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { type NodeSpec_Availability, NodeSpec_Membership } from "#proto/docker/swarmkit/specs_pb.js";
import {
  CertificateSchema,
  type IssuanceStatus,
  IssuanceStatus_State,
  IssuanceStatusSchema,
  NodeRole,
  NodeStatus_State,
  RootCASchema,
} from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import { GrpcError, status } from "../../base/grpc.ts";
import type { CallContext, Handlers } from "../../base/grpc-server.ts";
import { swarmId } from "../../base/id.ts";
import type { Logger } from "../../base/log.ts";
import { checkCsr, MANAGER_OU, type RootCa, signCsr, WORKER_OU } from "../ca/certificates.ts";
import { sameToken } from "../ca/token.ts";
import type { Store } from "../store/store.ts";
import { type Authority, MANAGERS } from "./auth.ts";
import { durationMs } from "./defaults.ts";
import { Loop } from "./loop.ts";
import { BoundedWarning } from "./strangers.ts";

const { ISSUED, FAILED, ROTATE, PENDING, RENEW } = IssuanceStatus_State;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

function isFinal(state: IssuanceStatus | undefined): boolean {
  return state !== undefined && [ISSUED, FAILED, ROTATE].includes(state.state);
}

/** True when the node's certificate waits for a signature. */
export function needsSigning(node: Node): boolean {
  const state = node.certificate?.status?.state;
  return state === RENEW || (state === PENDING && node.spec?.membership === NodeSpec_Membership.ACCEPTED);
}

export class CaServer {
  readonly #store: Store;
  readonly #clusterId: string;
  readonly #authority: Authority;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #unsigned = new Set<string>();
  readonly #waiters = new Map<string, Set<() => void>>();
  readonly #signing: Loop;
  readonly #refused: BoundedWarning;
  readonly #stopWatching: () => void;

  constructor(store: Store, clusterId: string, authority: Authority, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clusterId = clusterId;
    this.#authority = authority;
    this.#clock = clock;
    this.#log = log;
    this.#refused = new BoundedWarning(log, clock, "refused to let a node join: its token is not one of this swarm");
    this.#signing = new Loop({ name: "certificate signing", clock, log, debounceMs: 0, work: () => this.#sign() });
    this.#stopWatching = store.onCommit((changes) => {
      for (const change of changes)
        if (change.kind === "node" && change.action !== "remove") this.#onNode(change.object);
    });
    for (const node of store.view.all("node")) this.#onNode(node);
  }

  close(): void {
    this.#stopWatching();
    this.#signing.close();
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

  #onNode(node: Node): void {
    if (needsSigning(node)) {
      this.#unsigned.add(node.id);
      this.#signing.mark();
    }
    for (const wake of this.#waiters.get(node.id) ?? []) wake();
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

  async #sign(): Promise<void> {
    const ids = [...this.#unsigned];
    this.#unsigned.clear();
    const results = await Promise.allSettled(ids.map((id) => this.#signOne(id)));
    const failed = results.find((result) => result.status === "rejected");
    for (const [at, id] of ids.entries()) if (results[at]?.status === "rejected") this.#unsigned.add(id);
    if (failed) throw failed.reason;
  }

  async #signOne(id: string): Promise<void> {
    const node = this.#store.view.get("node", id);
    const cluster = this.#cluster();
    const csr = node?.certificate?.csr;
    if (!node || !cluster || !csr || !needsSigning(node)) return;
    // While the root is being rotated the new one signs, and the old one vouches for it.
    const { caCert, caKey, rootRotation } = cluster.rootCa ?? create(RootCASchema);
    const root: RootCa = {
      certPem: text(rootRotation?.caCert ?? caCert),
      keyPem: text(rootRotation?.caKey ?? caKey),
    };
    const intermediatesPem = text(rootRotation?.crossSignedCaCert ?? new Uint8Array());
    const ou = node.certificate?.role === NodeRole.MANAGER ? MANAGER_OU : WORKER_OU;
    const expiryMs = durationMs(cluster.spec?.caConfig?.nodeCertExpiry, 0);
    let chain: string | undefined;
    let err = "";
    try {
      chain = await signCsr({
        root,
        csrPem: text(csr),
        cn: id,
        ou,
        o: cluster.id,
        now: this.#clock.now(),
        expiryMs,
        intermediatesPem,
      });
    } catch (error) {
      err = messageOf(error);
      this.#log.error("a certificate could not be signed", { node: id, error });
    }
    await this.#store.update((tx) => {
      const current = tx.get("node", id);
      if (!current || Buffer.compare(current.certificate?.csr ?? new Uint8Array(), csr) !== 0) return;
      const certificate = {
        ...(current.certificate ?? create(CertificateSchema)),
        certificate: chain === undefined ? new Uint8Array() : new TextEncoder().encode(chain),
        status: create(IssuanceStatusSchema, { state: chain === undefined ? FAILED : ISSUED, err }),
      };
      tx.update("node", { ...current, certificate });
    });
  }
}
