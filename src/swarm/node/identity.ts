/** This node's certificate, its key and the swarm's root: in memory, and on disk in step. */
import { X509Certificate } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { type NodeTLSInfo, NodeTLSInfoSchema } from "#proto/docker/swarmkit/types_pb.js";
import type { Channel } from "../../base/grpc.ts";
import { identityOf, issuerOf, MANAGER_OU, splitPem, validityOf, verifyChain } from "../ca/certificates.ts";
import { type NodeCredentials, readCredentials, writeCredentials } from "../ca/files.ts";
import { nodeConnection } from "../ca/transport.ts";
import { checkRoots, type IssuedCertificate } from "./certificate-client.ts";

export class NodeIdentity {
  #stateDir: string;
  #credentials: NodeCredentials;

  constructor(stateDir: string, credentials: NodeCredentials) {
    this.#stateDir = stateDir;
    this.#credentials = credentials;
  }

  /** Undefined when this host has no certificate. */
  static read(stateDir: string): NodeIdentity | undefined {
    const credentials = readCredentials(stateDir);
    return credentials && new NodeIdentity(stateDir, credentials);
  }

  /** Keeps what a join brought. */
  static create(stateDir: string, rootPem: string, issued: IssuedCertificate): NodeIdentity {
    writeCredentials(stateDir, { rootPem, certPem: issued.certPem, keyPem: issued.keyPem });
    const { certPem, keyPem } = issued;
    return new NodeIdentity(stateDir, { rootPem, certPem, keyPem, identity: identityOf(certPem), dataKeys: [] });
  }

  get nodeId(): string {
    return this.#credentials.identity.cn;
  }

  get clusterId(): string {
    return this.#credentials.identity.o;
  }

  get isManager(): boolean {
    return this.#credentials.identity.ou === MANAGER_OU;
  }

  expired(nowMs: number): boolean {
    return validityOf(this.certPem).notAfter < nowMs;
  }

  get rootPem(): string {
    return this.#credentials.rootPem;
  }

  get certPem(): string {
    return this.#credentials.certPem;
  }

  /** A renewed certificate; connections opened from now on use it. */
  replaceCertificate({ certPem, keyPem }: IssuedCertificate): void {
    writeCredentials(this.#stateDir, { certPem, keyPem });
    this.#credentials = { ...this.#credentials, certPem, keyPem, identity: identityOf(certPem) };
  }

  /** Takes a new root bundle only if this node's own certificate is good under it; says whether it changed. */
  replaceRoot(rootPem: string): boolean {
    if (rootPem === this.rootPem) return false;
    checkRoots(rootPem);
    const reason = verifyChain(this.certPem, rootPem);
    if (reason) throw new Error(`the new root does not fit this node's certificate: ${reason}`);
    writeCredentials(this.#stateDir, { rootPem });
    this.#credentials = { ...this.#credentials, rootPem };
    return true;
  }

  connect(addr: string): Channel {
    return nodeConnection(addr, this.#credentials);
  }

  /** Who signed this node's certificate: while the root is being rotated not yet the trusted root itself. */
  #issuerPem(): string {
    const [leafPem = "", ...intermediates] = splitPem(this.certPem);
    const leaf = new X509Certificate(leafPem);
    const issuer = [...intermediates, ...splitPem(this.rootPem)].find((pem) =>
      leaf.verify(new X509Certificate(pem).publicKey),
    );
    return issuer ?? this.rootPem;
  }

  tlsInfo(): NodeTLSInfo {
    const { subject, publicKey } = issuerOf(this.#issuerPem());
    return create(NodeTLSInfoSchema, {
      trustRoot: Buffer.from(this.rootPem),
      certIssuerSubject: subject,
      certIssuerPublicKey: publicKey,
    });
  }
}
