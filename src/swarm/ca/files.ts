/**
 * Where a node keeps its certificates: `<stateDir>/certificates/swarm-root-ca.crt`, `swarm-node.crt`, `swarm-node.key`.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { unavailable } from "../../base/errors.ts";
import { readFileIfAny, writeFileAtomic } from "../../base/file.ts";
import { type Identity, identityOf, keyMatches } from "./certificates.ts";

/** Paths of the certificate files below the swarm's state directory. */
export function certificatePaths(stateDir: string): { root: string; rootKey: string; cert: string; key: string } {
  const dir = join(stateDir, "certificates");
  return {
    root: join(dir, "swarm-root-ca.crt"),
    /** Only between `bootstrapCluster` and the manager's first start, which moves it into the store. */
    rootKey: join(dir, "swarm-root-ca.key"),
    cert: join(dir, "swarm-node.crt"),
    key: join(dir, "swarm-node.key"),
  };
}

/** A node's credentials as they are on disk. All PEM. */
export interface NodeCredentials {
  readonly rootPem: string;
  readonly certPem: string;
  readonly keyPem: string;
  readonly identity: Identity;
}

/** Reads the credentials; undefined when this node has none. */
export function readCredentials(stateDir: string): NodeCredentials | undefined {
  const paths = certificatePaths(stateDir);
  const rootPem = readFileIfAny(paths.root);
  const certPem = readFileIfAny(paths.cert);
  const keyPem = readFileIfAny(paths.key);
  if (rootPem === undefined || certPem === undefined || keyPem === undefined) return undefined;
  if (!keyMatches(certPem, keyPem)) throw unavailable(`${paths.key} does not belong to ${paths.cert}`);
  return { rootPem, certPem, keyPem, identity: identityOf(certPem) };
}

/** Writes what is given, key before certificate, each file atomically. */
export function writeCredentials(
  stateDir: string,
  what: { rootPem?: string; rootKeyPem?: string; certPem?: string; keyPem?: string },
): void {
  const paths = certificatePaths(stateDir);
  if (what.rootPem !== undefined) writeFileAtomic(paths.root, what.rootPem, 0o644);
  if (what.rootKeyPem !== undefined) writeFileAtomic(paths.rootKey, what.rootKeyPem, 0o600);
  if (what.keyPem !== undefined) writeFileAtomic(paths.key, what.keyPem, 0o600);
  if (what.certPem !== undefined) writeFileAtomic(paths.cert, what.certPem, 0o644);
}

/** The root's key left by `bootstrapCluster`, if the manager did not take it yet. */
export function readRootKey(stateDir: string): string | undefined {
  return readFileIfAny(certificatePaths(stateDir).rootKey);
}

/** Forgets the root's key on disk: from now on it is in the replicated store only. */
export function dropRootKey(stateDir: string): void {
  rmSync(certificatePaths(stateDir).rootKey, { force: true });
}
