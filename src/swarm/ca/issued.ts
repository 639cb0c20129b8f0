/**
 * Whether an external certificate authority gave what it was asked for. It signs what it likes: a certificate for another
 * node, role, cluster or key must not get into the swarm's store by its error.
 */
import { X509Certificate } from "node:crypto";
import {
  CLIENT_AUTH,
  checkCsr,
  identityOf,
  isIssuedBy,
  issuerOf,
  MANAGER_OU,
  type NodeOu,
  ROOT_CN,
  SERVER_AUTH,
  splitPem,
  validityOf,
  verifyChain,
} from "./certificates.ts";

/** A certificate that ends sooner is renewed without an end. Milliseconds. */
const MIN_LIFE_MS = 5 * 60_000;

export interface Asked {
  readonly csrPem: string;
  readonly cn: string;
  readonly ou: NodeOu;
  readonly o: string;
  /** The root under which the authority is to sign. */
  readonly rootPem: string;
  /** While the root changes: what the old one says of the new one, and the old one; then no others may stand between. */
  readonly crossing?: { readonly intermediatesPem: string; readonly oldRootPem: string } | undefined;
  /** Wall time, milliseconds. */
  readonly now: number;
}

/** Why the chain is not what was asked for, or undefined. */
export async function whyNotIssued(chain: string, asked: Asked): Promise<string | undefined> {
  const { cn, crossing, csrPem, now, o, ou, rootPem } = asked;
  const certificates = splitPem(chain);
  let leaf: X509Certificate;
  try {
    for (const pem of certificates) new X509Certificate(pem);
    leaf = new X509Certificate(certificates[0] ?? "");
  } catch {
    return "not a certificate";
  }
  const key = Buffer.from((await checkCsr(csrPem)).publicKey.rawData);
  if (!key.equals(leaf.publicKey.export({ type: "spki", format: "der" }))) return "it is for another key";
  const given = identityOf(chain);
  if (given.cn !== cn) return `it is for node "${given.cn}"`;
  if (given.ou !== ou) return `it is for role "${given.ou}"`;
  if (given.o !== o) return `it is for cluster "${given.o}"`;
  if (leaf.ca) return "it is one of an authority";
  const usages = leaf.keyUsage ?? [];
  if (!usages.includes(CLIENT_AUTH)) return "it is not for client authentication";
  if (ou === MANAGER_OU) {
    if (!usages.includes(SERVER_AUTH)) return "it is not for server authentication";
    const names = [MANAGER_OU, ROOT_CN];
    const missing = names.find((name) => leaf.checkHost(name, { subject: "never" }) === undefined);
    if (missing) return `it does not name ${missing}`;
  }
  const reason = verifyChain(chain, rootPem, now);
  if (reason) return reason;
  if (validityOf(chain).notAfter - now < MIN_LIFE_MS) return "it ends within five minutes";
  if (!crossing) return undefined;
  if (!isIssuedBy(chain, rootPem)) return "it is not signed by the root itself";
  return verifyChain(chain + crossing.intermediatesPem, crossing.oldRootPem, now);
}

/** Why this is not the old root's word for the new root, or undefined. */
export function whyNotCrossed(crossed: string, next: string, oldRootPem: string, now: number): string | undefined {
  try {
    const [given, wanted] = [issuerOf(crossed), issuerOf(next)];
    if (Buffer.compare(given.publicKey, wanted.publicKey) !== 0) return "it is for another key";
    if (Buffer.compare(given.subject, wanted.subject) !== 0) return "it is for another subject";
    if (!new X509Certificate(crossed).ca) return "it is not one of an authority";
  } catch {
    return "not a certificate";
  }
  return verifyChain(crossed, oldRootPem, now);
}
