/**
 * Where a node keeps its certificates: `<stateDir>/certificates/swarm-root-ca.crt`, `swarm-node.crt`, `swarm-node.key`.
 *
 * On a manager the last one also holds the data keys, with which the store is encrypted. When managers are locked it holds
 * all encrypted under the unlock key: they go together in one file, so that there is no moment between them.
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
  /** On managers: encrypt the values of the store. */
  readonly dataKeys: readonly DataKey[];
}

/** A key that values of the store are encrypted under. */
export interface DataKey {
  /** Counts the changes of the data key: 0 = the swarm's first. */
  readonly generation: number;
  readonly key: Uint8Array;
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
  readonly dataKeys: readonly DataKey[];
}

const CONTEXT = "swarm-node.key";
/** The first generation goes without a number, as before there were others. */
const DATA_KEY = /-----BEGIN SKEIN DATA KEY(?: (\d+))?-----\n([\s\S]+?)\n-----END SKEIN DATA KEY(?: \d+)?-----\n/g;
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
  const dataKeys = [...text.matchAll(DATA_KEY)].map(([, generation, key]) => {
    return { generation: Number(generation ?? 0), key: Buffer.from(key ?? "", "base64") };
  });
  return { keyPem: text.replace(DATA_KEY, ""), dataKeys };
}

function writeKeys(stateDir: string, { dataKeys, keyPem }: Keys, unlockKey: Uint8Array | undefined): void {
  const blocks = dataKeys.map(({ generation, key }) => {
    return block(generation === 0 ? "SKEIN DATA KEY" : `SKEIN DATA KEY ${generation}`, key);
  });
  const plain = keyPem + blocks.join("");
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
  const { dataKeys, keyPem } = keys;
  if (!keyMatches(certPem, keyPem)) throw unavailable(`${paths.key} does not belong to ${paths.cert}`);
  return { rootPem, certPem, keyPem, identity: identityOf(certPem), dataKeys };
}

/** Writes what is given, key before certificate, each file atomically. Keys stay as locked as they are. */
export function writeCredentials(
  stateDir: string,
  what: { rootPem?: string; rootKeyPem?: string; certPem?: string; keyPem?: string; dataKeys?: readonly DataKey[] },
): void {
  const paths = certificatePaths(stateDir);
  if (what.rootPem !== undefined) writeFileAtomic(paths.root, what.rootPem, 0o644);
  if (what.rootKeyPem !== undefined) writeFileAtomic(paths.rootKey, what.rootKeyPem, 0o600);
  if (what.keyPem !== undefined || what.dataKeys !== undefined) {
    const last = readKeys(stateDir);
    const keyPem = what.keyPem ?? last?.keyPem ?? "";
    writeKeys(stateDir, { keyPem, dataKeys: what.dataKeys ?? last?.dataKeys ?? [] }, held.get(stateDir));
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

/** A node that is a manager no more: no data keys, and nothing to lock. */
export function forgetDataKeys(stateDir: string): void {
  const keys = readKeys(stateDir);
  if (keys) writeKeys(stateDir, { keyPem: keys.keyPem, dataKeys: [] }, undefined);
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
