/**
 * The swarm's certificates: the root, signing requests, node certificates, and what a certificate says about its owner.
 * Issuing is asynchronous (WebCrypto); judging a peer is synchronous, because it happens inside the TLS handshake.
 */
import {
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  randomBytes,
  type webcrypto,
  X509Certificate,
} from "node:crypto";
import type { TLSSocket } from "node:tls";
import type * as X509 from "@peculiar/x509";
import { invalid } from "../../base/errors.ts";

export const ROOT_CN = "swarm-ca";
export const MANAGER_OU = "swarm-manager";
export const WORKER_OU = "swarm-worker";
export type NodeOu = typeof MANAGER_OU | typeof WORKER_OU;

/** 20 years, in milliseconds. */
const ROOT_EXPIRY_MS = 630_720_000_000;
const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
/** Issued certificates live this long by default (90 days) and at least an hour. */
export const DEFAULT_NODE_EXPIRY_MS = 2160 * HOUR_MS;
export const MIN_NODE_EXPIRY_MS = HOUR_MS;
/** Certificates begin this much in the past, so that a node with a slow clock takes them. */
const BACKDATE_MS = HOUR_MS;

const EC = { name: "ECDSA", namedCurve: "P-256" } as const;
const SIGNING = { name: "ECDSA", hash: "SHA-256" } as const;

/** Loaded by who issues or asks for a certificate: a host outside of swarms does without its megabytes. */
async function loadX509(): Promise<typeof X509> {
  await import("reflect-metadata");
  return import("@peculiar/x509");
}

/** A root that can sign. Both PEM; `certPem` is the exact byte string of which tokens carry the digest. */
export interface RootCa {
  readonly certPem: string;
  readonly keyPem: string;
}

/** Who a node certificate is for. */
export interface Identity {
  /** Node id. */
  readonly cn: string;
  /** Role. */
  readonly ou: string;
  /** Cluster id. */
  readonly o: string;
}

export interface SignRequest {
  readonly root: RootCa;
  readonly csrPem: string;
  readonly cn: string;
  readonly ou: NodeOu;
  readonly o: string;
  /** Milliseconds; less than an hour falls back to 90 days, as SwarmKit's policy does. */
  readonly expiryMs?: number;
  /** Wall time, milliseconds. */
  readonly now?: number;
  /** Cross-signed intermediates to append while a root is being rotated. */
  readonly intermediatesPem?: string;
}

function pem(label: string, der: ArrayBuffer | Uint8Array): string {
  const bytes = der instanceof Uint8Array ? Buffer.from(der) : Buffer.from(new Uint8Array(der));
  const lines = bytes.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

function serial(): string {
  const bytes = randomBytes(20);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString("hex");
}

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return (await crypto.subtle.generateKey(EC, true, ["sign", "verify"])) as webcrypto.CryptoKeyPair;
}

async function privatePem(keys: webcrypto.CryptoKeyPair): Promise<string> {
  return pem("PRIVATE KEY", await crypto.subtle.exportKey("pkcs8", keys.privateKey));
}

/** What a root's key signs with: a root that a user brings may be of RSA, or of another curve. */
function algorithmOf(key: KeyObject) {
  if (key.asymmetricKeyType === "rsa") return { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" } as const;
  switch (key.asymmetricKeyType === "ec" && key.asymmetricKeyDetails?.namedCurve) {
    case "prime256v1":
      return { ...EC, ...SIGNING };
    case "secp384r1":
      return { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" } as const;
    case "secp521r1":
      return { name: "ECDSA", namedCurve: "P-521", hash: "SHA-512" } as const;
    default:
      throw invalid("only RSA and ECDSA (P-256, P-384, P-521) keys are supported");
  }
}

async function signer(keyPem: string) {
  const key = createPrivateKey(keyPem);
  const signingAlgorithm = algorithmOf(key);
  const der = new Uint8Array(key.export({ type: "pkcs8", format: "der" }));
  return {
    signingKey: await crypto.subtle.importKey("pkcs8", der, signingAlgorithm, false, ["sign"]),
    signingAlgorithm,
  };
}

/** Throws `invalid` when this key is of a kind that cannot sign here. */
export function checkKeyKind(keyPem: string): void {
  algorithmOf(createPrivateKey(keyPem));
}

/** A new root: ECDSA P-256, self-signed, CN=swarm-ca, 20 years. */
export async function createRootCa(now = Date.now()): Promise<RootCa> {
  const x509 = await loadX509();
  const keys = await newKeys();
  const notBefore = Math.floor(now / MINUTE_MS) * MINUTE_MS - BACKDATE_MS;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: `CN=${ROOT_CN}`,
    notBefore: new Date(notBefore),
    notAfter: new Date(notBefore + ROOT_EXPIRY_MS),
    keys,
    signingAlgorithm: SIGNING,
    extensions: [
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      new x509.BasicConstraintsExtension(true, undefined, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certPem: pem("CERTIFICATE", certificate.rawData), keyPem: await privatePem(keys) };
}

/**
 * The new root's key under the old root's signature: with it in its chain, a certificate of the new root is believed by
 * nodes that know the old root only.
 */
export async function crossSign(next: string, old: RootCa): Promise<string> {
  const x509 = await loadX509();
  const certificate = new x509.X509Certificate(firstPem(next));
  const issuer = new x509.X509Certificate(firstPem(old.certPem));
  const crossed = await x509.X509CertificateGenerator.create({
    serialNumber: serial(),
    subject: certificate.subjectName,
    issuer: issuer.subjectName,
    notBefore: certificate.notBefore,
    notAfter: certificate.notAfter,
    publicKey: certificate.publicKey,
    ...(await signer(old.keyPem)),
    extensions: [
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      new x509.BasicConstraintsExtension(true, undefined, true),
      certificate.getExtension(x509.SubjectKeyIdentifierExtension) ??
        (await x509.SubjectKeyIdentifierExtension.create(certificate.publicKey)),
      await authorityOf(x509, issuer),
    ],
  });
  return pem("CERTIFICATE", crossed.rawData);
}

/** The id by which a certificate names its issuer's key: the one that stands there, for there are several ways to make one. */
async function authorityOf(x509: typeof X509, issuer: X509.X509Certificate): Promise<X509.Extension> {
  const own = issuer.getExtension(x509.SubjectKeyIdentifierExtension);
  return own
    ? new x509.AuthorityKeyIdentifierExtension(own.keyId)
    : x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey);
}

/** Asks another authority to vouch for this root: its own name and key, and the DER of its basic constraints. */
export async function rootCsr(
  root: RootCa,
): Promise<{ csrPem: string; cn: string; basicConstraints: Uint8Array<ArrayBuffer> }> {
  const x509 = await loadX509();
  const certificate = new x509.X509Certificate(firstPem(root.certPem));
  const { signingAlgorithm, signingKey } = await signer(root.keyPem);
  const keys = { privateKey: signingKey, publicKey: await certificate.publicKey.export() };
  const name = certificate.subjectName.toJSON();
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ name, keys, signingAlgorithm });
  const constraints =
    certificate.getExtension(x509.BasicConstraintsExtension) ?? new x509.BasicConstraintsExtension(true);
  return {
    csrPem: pem("CERTIFICATE REQUEST", request.rawData),
    cn: certificate.subjectName.getField("CN")[0] ?? "",
    basicConstraints: new Uint8Array(constraints.value),
  };
}

/** True when the (first) certificate was issued by this root itself, without others between. */
export function isIssuedBy(certificate: string, rootPem: string): boolean {
  return signedBy(parse(certificate), parse(rootPem));
}

/** A new key (PKCS#8) and a request with an empty subject: the manager trusts only its public key. */
export async function createCsr(): Promise<{ csrPem: string; keyPem: string }> {
  const x509 = await loadX509();
  const keys = await newKeys();
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm: SIGNING });
  return { csrPem: pem("CERTIFICATE REQUEST", request.rawData), keyPem: await privatePem(keys) };
}

/** Throws `invalid` unless this is a request, signed by its own key. */
export async function checkCsr(csrPem: string): Promise<X509.Pkcs10CertificateRequest> {
  const x509 = await loadX509();
  let request: X509.Pkcs10CertificateRequest;
  try {
    request = new x509.Pkcs10CertificateRequest(csrPem);
  } catch {
    throw invalid("unable to parse the certificate signing request");
  }
  if (!(await request.verify())) throw invalid("the certificate signing request is not signed by its own key");
  return request;
}

/** Issues a node certificate for the public key of the request; returns the PEM chain. */
export async function signCsr(request: SignRequest): Promise<string> {
  const x509 = await loadX509();
  const csr = await checkCsr(request.csrPem);
  const issuer = new x509.X509Certificate(firstPem(request.root.certPem));
  const now = request.now ?? Date.now();
  const asked = request.expiryMs ?? DEFAULT_NODE_EXPIRY_MS;
  const expiry = asked < MIN_NODE_EXPIRY_MS ? DEFAULT_NODE_EXPIRY_MS : asked;
  const notBefore = Math.floor(now / MINUTE_MS) * MINUTE_MS - BACKDATE_MS;
  const names = [request.ou, request.cn, ...(request.ou === MANAGER_OU ? [ROOT_CN] : [])];
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serial(),
    subject: [{ O: [request.o] }, { OU: [request.ou] }, { CN: [request.cn] }],
    issuer: issuer.subjectName,
    notBefore: new Date(notBefore),
    notAfter: new Date(notBefore + expiry + BACKDATE_MS),
    publicKey: csr.publicKey,
    ...(await signer(request.root.keyPem)),
    extensions: [
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      new x509.BasicConstraintsExtension(false, undefined, true),
      await x509.SubjectKeyIdentifierExtension.create(csr.publicKey),
      await authorityOf(x509, issuer),
      new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: "dns", value }))),
    ],
  });
  return pem("CERTIFICATE", certificate.rawData) + (request.intermediatesPem ?? "");
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----\r?\n?/g;

/** The certificates of a PEM bundle, one by one. */
export function splitPem(bundle: string): string[] {
  return bundle.match(PEM_CERTIFICATE) ?? [];
}

/** The certificates of a bundle, each written as this module writes them: two spellings of one are the same text. */
export function normalPem(bundle: string): string {
  const encoded = /-----BEGIN CERTIFICATE-----([\s\S]+?)-----END/;
  return splitPem(bundle)
    .map((one) => pem("CERTIFICATE", Buffer.from(encoded.exec(one)?.[1] ?? "", "base64")))
    .join("");
}

function firstPem(bundle: string): string {
  const first = splitPem(bundle)[0];
  if (first === undefined) throw invalid("no PEM certificate found");
  return first;
}

function parse(certificate: string | Uint8Array): X509Certificate {
  try {
    return new X509Certificate(typeof certificate === "string" ? firstPem(certificate) : certificate);
  } catch {
    throw invalid("not a certificate");
  }
}

/** Who the (first) certificate is for: PEM text or DER bytes. Missing parts are empty strings. */
export function identityOf(certificate: string | Uint8Array): Identity {
  const subject = new Map<string, string>();
  for (const line of parse(certificate).subject.split("\n")) {
    const at = line.indexOf("=");
    const key = line.slice(0, at);
    if (at > 0 && !subject.has(key)) subject.set(key, line.slice(at + 1));
  }
  return { cn: subject.get("CN") ?? "", ou: subject.get("OU") ?? "", o: subject.get("O") ?? "" };
}

/** More certificates than this no node shows. */
const MAX_CHAIN = 5;

/** The chain that the other side of a connection showed: DER, leaf first; empty when it showed none. */
export function chainOf(socket: TLSSocket): Uint8Array[] {
  const chain: Uint8Array[] = [];
  let next = socket.getPeerX509Certificate();
  while (next && chain.length < MAX_CHAIN) {
    chain.push(new Uint8Array(next.raw));
    next = next.issuerCertificate;
  }
  return chain;
}

/** Validity of the (first) certificate, wall milliseconds. */
export function validityOf(certificate: string | Uint8Array): { notBefore: number; notAfter: number } {
  const parsed = parse(certificate);
  return { notBefore: Date.parse(parsed.validFrom), notAfter: Date.parse(parsed.validTo) };
}

/** Fields of `NodeDescription.tls_info`: DER of the issuer's subject and of its public key. */
export function issuerOf(rootPem: string): { subject: Uint8Array; publicKey: Uint8Array } {
  const { raw, publicKey } = parse(rootPem);
  return { subject: subjectOf(raw), publicKey: new Uint8Array(publicKey.export({ type: "spki", format: "der" })) };
}

/** The subject of a certificate, as its issuer wrote it. Certificate ::= { { [0] version?, serial, …, subject, … }, … } */
function subjectOf(der: Uint8Array): Uint8Array {
  const certificate = element(der, 0).start;
  let at = element(der, certificate).start;
  if (der[at] === 0xa0) at = element(der, at).end;
  for (const _before of ["serial number", "signature", "issuer", "validity"]) at = element(der, at).end;
  return new Uint8Array(der.subarray(at, element(der, at).end));
}

/** Where the contents of one element of DER begin and end. */
function element(der: Uint8Array, at: number): { start: number; end: number } {
  const first = der[at + 1] ?? 0;
  const more = first < 0x80 ? 0 : first & 0x7f;
  let length = more === 0 ? first : 0;
  for (let i = 0; i < more; i++) length = length * 256 + (der[at + 2 + i] ?? 0);
  const start = at + 2 + more;
  return { start, end: start + length };
}

/** What a certificate's key may be used for (RFC 5280, section 4.2.1.12). */
export const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
export const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";

/**
 * Verifies a leaf (and intermediates) against a root bundle: signatures, CA flags, validity now, key usages.
 * Returns the reason of the refusal, or undefined when the chain is good.
 */
export function verifyChain(
  chain: string | Uint8Array[],
  rootPem: string,
  now = Date.now(),
  usage: "client" | "server" | "any" = "any",
): string | undefined {
  const certificates = (typeof chain === "string" ? splitPem(chain) : chain).map(parse);
  const leaf = certificates[0];
  if (!leaf) return "no certificate";
  const roots = splitPem(rootPem).map(parse);
  for (const certificate of certificates) {
    if (Date.parse(certificate.validFrom) > now) return "certificate is not valid yet";
    if (Date.parse(certificate.validTo) < now) return "certificate has expired";
  }
  const usages = leaf.keyUsage ?? [];
  if (usage === "client" && !usages.includes(CLIENT_AUTH)) return "certificate is not for client authentication";
  if (usage === "server" && !usages.includes(SERVER_AUTH)) return "certificate is not for server authentication";
  let current = leaf;
  for (let depth = 0; depth <= certificates.length; depth++) {
    if (roots.some((root) => signedBy(current, root))) return undefined;
    const next = certificates.find(
      (candidate) => candidate !== current && candidate.ca && signedBy(current, candidate),
    );
    if (!next) return "certificate signed by unknown authority";
    current = next;
  }
  return "certificate signed by unknown authority";
}

function signedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
}

/** True when the private key belongs to the (first) certificate. */
export function keyMatches(certPem: string, keyPem: string): boolean {
  const key: KeyObject = createPublicKey(createPrivateKey(keyPem));
  return parse(certPem).publicKey.equals(key);
}
