/**
 * Changing the swarm's root CA while it runs. First the new root signs all new certificates, with the old root vouching
 * for it; every node is told to renew; when all of them show a certificate of the new root, it becomes the only one and
 * the join tokens change with it. A node that is away holds the rotation up until it comes back or is removed.
 */

import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { Cluster, Node } from "#proto/docker/swarmkit/objects_pb.js";
import type { ClusterSpec } from "#proto/docker/swarmkit/specs_pb.js";
import {
  IssuanceStatus_State,
  IssuanceStatusSchema,
  JoinTokensSchema,
  type RootCA,
  RootRotationSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import {
  createRootCa,
  crossSign,
  isIssuedBy,
  issuerOf,
  keyMatches,
  type RootCa,
  splitPem,
  validityOf,
} from "../ca/certificates.ts";
import { makeToken } from "../ca/token.ts";
import type { Store } from "../store/store.ts";
import { rpcError } from "./control/errors.ts";
import { Loop } from "./loop.ts";

/** A year. */
const MIN_ROOT_LIFE_MS = 365 * 86_400_000;
const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);
const bytes = (value: string) => new TextEncoder().encode(value);

/** The root that a user wants, without what stands around the certificate in its file. */
function wantedRoot({ caConfig }: ClusterSpec): RootCa | undefined {
  const { signingCaCert, signingCaKey } = caConfig ?? {};
  const certPem = splitPem(text(signingCaCert)).map((pem) => `${pem.trim()}\n`);
  const keyPem = text(signingCaKey);
  if (text(signingCaCert) === "" && keyPem === "") return undefined;
  if (certPem.length === 0) {
    const missing = "if a signing CA key is provided, the signing CA cert must also be provided";
    throw rpcError(
      "InvalidArgument",
      text(signingCaCert) === "" ? missing : "invalid root CA: no PEM certificate found",
    );
  }
  return { certPem: certPem.join(""), keyPem };
}

/** True when the spec asks for another root than the cluster has or is changing to. */
export function needsRotation(cluster: Cluster, spec: ClusterSpec): boolean {
  const wanted = wantedRoot(spec);
  if (wanted) return wanted.certPem !== text(cluster.rootCa?.rootRotation?.caCert ?? cluster.rootCa?.caCert);
  return (spec.caConfig?.forceRotate ?? 0n) !== (cluster.rootCa?.lastForcedRotation ?? 0n);
}

/** The cluster's root with the rotation begun: to the root given in the spec, or to a fresh one. */
export async function beginRotation(cluster: Cluster, spec: ClusterSpec, now: number): Promise<RootCA> {
  const { rootCa } = cluster;
  if (!rootCa) throw rpcError("FailedPrecondition", "the cluster has no root CA");
  const lastForcedRotation = spec.caConfig?.forceRotate ?? 0n;
  const given = wantedRoot(spec);
  // The rotation that goes on is not wanted any more; what was issued meanwhile, the old root vouches for.
  if (given?.certPem === text(rootCa.caCert)) return { ...rootCa, rootRotation: undefined, lastForcedRotation };
  if (given && !given.keyPem) {
    throw rpcError(
      "InvalidArgument",
      "rotating to a CA certificate needs its key: external CAs are not supported by skein yet",
    );
  }
  if (given) checkRoot(given, now);
  const next = given ?? (await createRootCa(now));
  const old = { certPem: text(rootCa.caCert), keyPem: text(rootCa.caKey) };
  const rootRotation = create(RootRotationSchema, {
    caCert: bytes(next.certPem),
    caKey: bytes(next.keyPem),
    crossSignedCaCert: bytes(await crossSign(next.certPem, old)),
  });
  return { ...rootCa, rootRotation, lastForcedRotation };
}

/** Throws Docker's words when a root that a user gave is none, or not for long. */
function checkRoot({ certPem, keyPem }: RootCa, now: number): void {
  const refuse = (why: string) => rpcError("InvalidArgument", why);
  let matches = false;
  try {
    matches = keyMatches(certPem, keyPem);
  } catch (error) {
    throw refuse(`invalid root CA: ${messageOf(error)}`);
  }
  if (!matches) throw refuse("certificate key mismatch");
  if (!isIssuedBy(certPem, certPem)) throw refuse("invalid root CA: it is not a self-signed CA certificate");
  if (validityOf(certPem).notAfter - now < MIN_ROOT_LIFE_MS) throw refuse("CA certificate expires too soon");
}

/** The root after its rotation: a single one, with new tokens. */
function finished(rootCa: RootCA): RootCA {
  const caCert = rootCa.rootRotation?.caCert ?? rootCa.caCert;
  return {
    ...rootCa,
    caCert,
    caKey: rootCa.rootRotation?.caKey ?? rootCa.caKey,
    caCertHash: `sha256:${createHash("sha256").update(caCert).digest("hex")}`,
    joinTokens: create(JoinTokensSchema, { worker: makeToken(caCert), manager: makeToken(caCert) }),
    rootRotation: undefined,
  };
}

/** True when the node says that it uses a certificate of this issuer. */
function shows(node: Node, issuer: { subject: Uint8Array; publicKey: Uint8Array }): boolean {
  const info = node.description?.tlsInfo;
  return (
    info !== undefined &&
    Buffer.compare(info.certIssuerSubject, issuer.subject) === 0 &&
    Buffer.compare(info.certIssuerPublicKey, issuer.publicKey) === 0
  );
}

export class RootRotator {
  readonly #store: Store;
  readonly #clusterId: string;
  readonly #log: Logger;
  readonly #loop: Loop;
  readonly #stopWatching: () => void;

  constructor(store: Store, clusterId: string, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clusterId = clusterId;
    this.#log = log;
    this.#loop = new Loop({ name: "root rotation", clock, log, debounceMs: 100, work: () => this.#tick() });
    this.#stopWatching = store.onCommit((changes) => {
      if (
        changes.some(({ kind }) => kind === "cluster") ||
        (this.#rotation() && changes.some(({ kind }) => kind === "node"))
      ) {
        this.#loop.mark();
      }
    });
    this.#loop.mark();
  }

  close(): void {
    this.#stopWatching();
    this.#loop.close();
  }

  #rotation() {
    return this.#store.view.get("cluster", this.#clusterId)?.rootCa?.rootRotation;
  }

  async #tick(): Promise<void> {
    const rotation = this.#rotation();
    if (!rotation) return;
    const rootPem = text(rotation.caCert);
    const issuer = issuerOf(rootPem);
    const behind = this.#store.view.all("node").filter((node) => !shows(node, issuer));
    if (behind.length === 0) {
      await this.#store.update((tx) => {
        const cluster = tx.get("cluster", this.#clusterId);
        if (!cluster?.rootCa?.rootRotation) return;
        tx.update("cluster", { ...cluster, rootCa: finished(cluster.rootCa) });
      });
      this.#log.info("the root CA was rotated");
      return;
    }
    // One that has its new certificate already only has to show it.
    const toRenew = behind.filter(({ certificate }) => {
      const chain = text(certificate?.certificate);
      return (
        certificate?.status?.state === IssuanceStatus_State.ISSUED && (chain === "" || !isIssuedBy(chain, rootPem))
      );
    });
    await this.#store.batch(toRenew, (tx, { id }) => {
      const node = tx.get("node", id);
      if (node?.certificate?.status?.state !== IssuanceStatus_State.ISSUED) return;
      const status = create(IssuanceStatusSchema, { state: IssuanceStatus_State.ROTATE });
      tx.update("node", { ...node, certificate: { ...node.certificate, status } });
    });
  }
}
