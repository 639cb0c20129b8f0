/**
 * Signs what nodes ask for: with the swarm's own key, or, where the spec names authorities for the root, by one of those.
 *
 * An external authority may be away, mended or replaced meanwhile, and a node waits as long as it takes: a request stays
 * as it is, with the reason in its status, and is sent again after a growing pause. Nobody is there: one request at a time
 * finds out when somebody is again. One node is refused: only that node waits.
 */
import { create } from "@bufbuild/protobuf";
import type { Cluster, Node } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeSpec_Membership } from "#proto/docker/swarmkit/specs_pb.js";
import {
  CertificateSchema,
  IssuanceStatus_State,
  IssuanceStatusSchema,
  NodeRole,
  RootCASchema,
} from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { MANAGER_OU, normalPem, type RootCa, signCsr, WORKER_OU } from "../ca/certificates.ts";
import { NotSigned } from "../ca/cfssl.ts";
import { Unreachable } from "../ca/external.ts";
import type { Store } from "../store/store.ts";
import { addressesFor, type ExternalAuthorities } from "./authorities.ts";
import { durationMs } from "./defaults.ts";
import { Loop } from "./loop.ts";
import { BoundedWarning } from "./strangers.ts";

const { ISSUED, FAILED, PENDING, RENEW } = IssuanceStatus_State;
/** Pauses after a failure, doubling. Milliseconds; SwarmKit's is always ten seconds. */
const PAUSE_MS = { first: 500, max: 10_000 };
/** Requests that an authority has at a time. */
const AT_ONCE = 8;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** True when the node's certificate waits for a signature. */
export function needsSigning(node: Node): boolean {
  const state = node.certificate?.status?.state;
  return state === RENEW || (state === PENDING && node.spec?.membership === NodeSpec_Membership.ACCEPTED);
}

interface Signer {
  /** Without a key where only authorities have it. */
  readonly root: RootCa;
  /** Authorities that sign under this root; none: the managers do. */
  readonly addresses: readonly string[];
  /** While the root is being rotated the new one signs, and the old one vouches for it. */
  readonly crossing: { readonly intermediatesPem: string; readonly oldRootPem: string } | undefined;
}

/** Who signs now. */
export function signerOf(cluster: Cluster): Signer {
  const { caCert, caKey, rootRotation } = cluster.rootCa ?? create(RootCASchema);
  const presentPem = normalPem(text(caCert));
  const certPem = rootRotation ? normalPem(text(rootRotation.caCert)) : presentPem;
  return {
    root: { certPem, keyPem: text(rootRotation ? rootRotation.caKey : caKey) },
    addresses: cluster.spec ? addressesFor(cluster.spec, certPem, presentPem) : [],
    crossing: rootRotation && {
      intermediatesPem: normalPem(text(rootRotation.crossSignedCaCert)),
      oldRootPem: presentPem,
    },
  };
}

/** How often something failed, and when it may be tried again, on the steady clock. */
class Patience {
  #failures = 0;
  #until = 0;

  /** Milliseconds from now. */
  wait(now: number): number {
    return Math.max(0, this.#until - now);
  }

  failed(now: number): void {
    this.#until = now + Math.min(PAUSE_MS.first * 2 ** Math.min(this.#failures++, 10), PAUSE_MS.max);
  }
}

export class Signing {
  readonly #store: Store;
  readonly #clusterId: string;
  readonly #authorities: ExternalAuthorities;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #unsigned = new Set<string>();
  /** Of nodes whose requests an authority refused. */
  readonly #refused = new Map<string, Patience>();
  /** No authority answered. */
  #away: Patience | undefined;
  readonly #loop: Loop;
  readonly #warning: BoundedWarning;
  readonly #stopWatching: () => void;

  constructor(store: Store, clusterId: string, authorities: ExternalAuthorities, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clusterId = clusterId;
    this.#authorities = authorities;
    this.#clock = clock;
    this.#log = log;
    this.#warning = new BoundedWarning(log, clock, "no external CA signed a certificate; it is asked again");
    this.#loop = new Loop({ name: "certificate signing", clock, log, debounceMs: 0, work: () => this.#sign() });
    this.#stopWatching = store.onCommit((changes) => {
      for (const { action, kind, object } of changes) {
        if (kind === "cluster") this.#onCluster();
        if (kind !== "node") continue;
        if (action === "remove") this.#refused.delete(object.id);
        else this.#onNode(object);
      }
    });
    for (const node of store.view.all("node")) this.#onNode(node);
  }

  close(): void {
    this.#stopWatching();
    this.#loop.close();
    this.#warning.close();
  }

  #onNode(node: Node): void {
    if (!needsSigning(node)) return;
    this.#unsigned.add(node.id);
    this.#loop.mark();
  }

  /** There may be other authorities now, or another root. */
  #onCluster(): void {
    this.#away = undefined;
    this.#refused.clear();
    if (this.#unsigned.size > 0) this.#loop.mark();
  }

  async #sign(): Promise<void> {
    const cluster = this.#store.view.get("cluster", this.#clusterId);
    if (!cluster) return;
    const signer = signerOf(cluster);
    const atOnce = signer.addresses.length > 0 ? AT_ONCE : Number.POSITIVE_INFINITY;
    const now = this.#clock.steady();
    const due = [...this.#unsigned].filter((id) => !this.#refused.get(id)?.wait(now));
    /** Not an authority's: of the store. */
    let failure: { readonly reason: unknown } | undefined;
    while (due.length > 0 && !this.#away?.wait(this.#clock.steady())) {
      const some = due.splice(0, this.#away ? 1 : Math.min(atOnce, due.length));
      for (const id of some) this.#unsigned.delete(id);
      const results = await Promise.allSettled(some.map((id) => this.#signOne(id, cluster, signer)));
      for (const [at, result] of results.entries()) {
        if (result.status === "fulfilled") continue;
        // At the end of the line, so that one that never succeeds keeps no other waiting.
        this.#unsigned.add(some[at] ?? "");
        if (!(result.reason instanceof NotSigned)) failure = result;
      }
    }
    if (failure) throw failure.reason;
    if (this.#unsigned.size > 0) this.#loop.markIn(this.#pause());
  }

  /** Until the first of those that wait may be tried again. */
  #pause(): number {
    const now = this.#clock.steady();
    const waits = [...this.#unsigned].map((id) => this.#refused.get(id)?.wait(now) ?? 0);
    return Math.max(this.#away?.wait(now) ?? 0, Math.min(...waits));
  }

  async #signOne(id: string, cluster: Cluster, signer: Signer): Promise<void> {
    const node = this.#store.view.get("node", id);
    const csr = node?.certificate?.csr;
    if (!node || !csr || !needsSigning(node)) return;
    const ou = node.certificate?.role === NodeRole.MANAGER ? MANAGER_OU : WORKER_OU;
    const asked = { csrPem: text(csr), cn: id, ou, o: cluster.id } as const;
    if (signer.addresses.length > 0) {
      let chain: string;
      try {
        chain = await this.#external(asked, signer);
      } catch (error) {
        const state = node.certificate?.status?.state ?? PENDING;
        await this.#tell(id, csr, { state, err: messageOf(error) });
        throw error;
      }
      return this.#tell(id, csr, { state: ISSUED, err: "" }, chain);
    }
    let chain: string;
    try {
      if (signer.root.keyPem === "") throw new Error("no valid signer found");
      const expiryMs = durationMs(cluster.spec?.caConfig?.nodeCertExpiry, 0);
      const { crossing, root } = signer;
      const intermediatesPem = crossing?.intermediatesPem ?? "";
      chain = await signCsr({ ...asked, root, now: this.#clock.now(), expiryMs, intermediatesPem });
    } catch (error) {
      this.#log.error("a certificate could not be signed", { node: id, error });
      return this.#tell(id, csr, { state: FAILED, err: messageOf(error) });
    }
    return this.#tell(id, csr, { state: ISSUED, err: "" }, chain);
  }

  async #external(
    asked: { csrPem: string; cn: string; ou: typeof MANAGER_OU | typeof WORKER_OU; o: string },
    { addresses, crossing, root }: Signer,
  ): Promise<string> {
    try {
      const chain = await this.#authorities.sign(addresses, { ...asked, rootPem: root.certPem, crossing });
      this.#away = undefined;
      this.#refused.delete(asked.cn);
      return chain + (crossing?.intermediatesPem ?? "");
    } catch (error) {
      if (error instanceof Unreachable) {
        this.#away ??= new Patience();
        if (!this.#away.wait(this.#clock.steady())) this.#away.failed(this.#clock.steady());
      } else {
        this.#away = undefined;
        const patience = this.#refused.get(asked.cn) ?? new Patience();
        patience.failed(this.#clock.steady());
        this.#refused.set(asked.cn, patience);
      }
      this.#warning.tell({ node: asked.cn, error: messageOf(error) });
      throw error;
    }
  }

  /** Writes what became of a request, unless there is a newer one. */
  async #tell(id: string, csr: Uint8Array, status: { state: IssuanceStatus_State; err: string }, chain = "") {
    await this.#store.update((tx) => {
      const current = tx.get("node", id);
      if (!current || Buffer.compare(current.certificate?.csr ?? new Uint8Array(), csr) !== 0) return;
      const before = current.certificate?.status;
      if (before?.state === status.state && before.err === status.err) return;
      const certificate = {
        ...(current.certificate ?? create(CertificateSchema)),
        certificate: new TextEncoder().encode(chain),
        status: create(IssuanceStatusSchema, status),
      };
      tx.update("node", { ...current, certificate });
    });
  }
}
