/**
 * Where a node keeps its certificates: `<stateDir>/certificates/swarm-root-ca.crt`, `swarm-node.crt`, `swarm-node.key`.
 *
 * On a manager the last one also holds the data key, with which the store is encrypted. When managers are locked it holds
 * both encrypted under the unlock key: the two go together in one file, so that there is no moment between them.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { unavailable } from "../../base/errors.ts";
import { readFileIfAny, writeFileAtomic } from "../../base/file.ts";
import { type Identity, identityOf, keyMatches } from "./certificates.ts";
import { seal, unseal } from "./seal.ts";

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
  /** On managers: encrypts the values of the store. */
  readonly dataKey?: Uint8Array;
}

/** The keys are there, encrypted, and the unlock key is not known. */
export class Locked extends Error {
  override readonly name = "Locked";
}

/** Unlock keys in memory, by state directory: for as long as this process lives. */
const held = new Map<string, Uint8Array>();

/** The key under which this directory's keys are encrypted; undefined when they are not. */
export const heldUnlockKey = (stateDir: string): Uint8Array | undefined => held.get(stateDir);

interface Keys {
  readonly keyPem: string;
  readonly dataKey: Uint8Array | undefined;
}

const CONTEXT = "swarm-node.key";
const DATA_KEY = /-----BEGIN SKEIN DATA KEY-----\n([\s\S]+?)\n-----END SKEIN DATA KEY-----\n/;
const LOCKED = /-----BEGIN SKEIN LOCKED KEYS-----\n([\s\S]+?)\n-----END SKEIN LOCKED KEYS-----\n/;
const block = (label: string, bytes: Uint8Array) =>
  `-----BEGIN ${label}-----\n${Buffer.from(bytes).toString("base64")}\n-----END ${label}-----\n`;

function readKeys(stateDir: string, unlockKey = held.get(stateDir)): Keys | undefined {
  const text = readFileIfAny(certificatePaths(stateDir).key);
  const locked = text && LOCKED.exec(text)?.[1];
  if (text === undefined || !locked) return text === undefined ? undefined : parseKeys(text);
  if (!unlockKey) throw new Locked("the swarm's keys are locked");
  return parseKeys(Buffer.from(unseal(unlockKey, Buffer.from(locked, "base64"), CONTEXT)).toString("utf8"));
}

function parseKeys(text: string): Keys {
  const dataKey = DATA_KEY.exec(text)?.[1];
  return { keyPem: text.replace(DATA_KEY, ""), dataKey: dataKey ? Buffer.from(dataKey, "base64") : undefined };
}

function writeKeys(stateDir: string, { dataKey, keyPem }: Keys, unlockKey: Uint8Array | undefined): void {
  const plain = keyPem + (dataKey ? block("SKEIN DATA KEY", dataKey) : "");
  const text = unlockKey ? block("SKEIN LOCKED KEYS", seal(unlockKey, Buffer.from(plain), CONTEXT)) : plain;
  writeFileAtomic(certificatePaths(stateDir).key, text, 0o600);
}

/** Reads the credentials; undefined when this node has none. Throws `Locked`. */
export function readCredentials(stateDir: string): NodeCredentials | undefined {
  const paths = certificatePaths(stateDir);
  const rootPem = readFileIfAny(paths.root);
  const certPem = readFileIfAny(paths.cert);
  const keys = readKeys(stateDir);
  if (rootPem === undefined || certPem === undefined || keys === undefined) return undefined;
  const { dataKey, keyPem } = keys;
  if (!keyMatches(certPem, keyPem)) throw unavailable(`${paths.key} does not belong to ${paths.cert}`);
  return { rootPem, certPem, keyPem, identity: identityOf(certPem), ...(dataKey ? { dataKey } : {}) };
}

/** Writes what is given, key before certificate, each file atomically. Keys stay as locked as they are. */
export function writeCredentials(
  stateDir: string,
  what: { rootPem?: string; rootKeyPem?: string; certPem?: string; keyPem?: string; dataKey?: Uint8Array },
): void {
  const paths = certificatePaths(stateDir);
  if (what.rootPem !== undefined) writeFileAtomic(paths.root, what.rootPem, 0o644);
  if (what.rootKeyPem !== undefined) writeFileAtomic(paths.rootKey, what.rootKeyPem, 0o600);
  if (what.keyPem !== undefined || what.dataKey !== undefined) {
    const last = readKeys(stateDir);
    const keyPem = what.keyPem ?? last?.keyPem ?? "";
    writeKeys(stateDir, { keyPem, dataKey: what.dataKey ?? last?.dataKey }, held.get(stateDir));
  }
  if (what.certPem !== undefined) writeFileAtomic(paths.cert, what.certPem, 0o644);
}

/** Tries a key on what is locked, and holds it if it fits; false when it does not. */
export function unlockKeys(stateDir: string, unlockKey: Uint8Array): boolean {
  try {
    readKeys(stateDir, unlockKey);
  } catch {
    return false;
  }
  held.set(stateDir, unlockKey);
  return true;
}

/** Encrypts the keys under another unlock key from now on; undefined: not at all. */
export function lockKeysWith(stateDir: string, unlockKey: Uint8Array | undefined): void {
  const keys = readKeys(stateDir);
  if (keys) writeKeys(stateDir, keys, unlockKey);
  if (unlockKey) held.set(stateDir, unlockKey);
  else held.delete(stateDir);
}

/** A node that is a manager no more: no data key, and nothing to lock. */
export function forgetDataKey(stateDir: string): void {
  const keys = readKeys(stateDir);
  if (keys) writeKeys(stateDir, { keyPem: keys.keyPem, dataKey: undefined }, undefined);
  held.delete(stateDir);
}

/** The unlock key is held no longer: the directory is gone, or closed. */
export function forgetUnlockKey(stateDir: string): void {
  held.delete(stateDir);
}

/** The root's key left by `bootstrapCluster`, if the manager did not take it yet. */
export function readRootKey(stateDir: string): string | undefined {
  return readFileIfAny(certificatePaths(stateDir).rootKey);
}

/** Forgets the root's key on disk: from now on it is in the replicated store only. */
export function dropRootKey(stateDir: string): void {
  rmSync(certificatePaths(stateDir).rootKey, { force: true });
}
