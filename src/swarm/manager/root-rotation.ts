/**
 * Changing the swarm's root CA while it runs; `root-wanted.ts` begins it. First the new root signs all new certificates, with the old root vouching
 * for it; every node is told to renew; when all of them show a certificate of the new root, it becomes the only one and
 * the join tokens change with it. A node that is away holds the rotation up until it comes back or is removed.
 */

import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { Node } from "#proto/docker/swarmkit/objects_pb.js";
import {
  IssuanceStatus_State,
  IssuanceStatusSchema,
  JoinTokensSchema,
  type RootCA,
} from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { isIssuedBy, issuerOf } from "../ca/certificates.ts";
import { makeToken } from "../ca/token.ts";
import type { Store } from "../store/store.ts";
import { Loop } from "./loop.ts";

const text = (bytes: Uint8Array | undefined) => new TextDecoder().decode(bytes);

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
