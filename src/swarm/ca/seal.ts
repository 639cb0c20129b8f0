/**
 * Encryption of what a manager keeps on disk: AES-256-GCM with a random nonce. The data key encrypts the values of the
 * store; the unlock key, which is on no disk of a locked manager, encrypts the data key and the node's own.
 */
import { type CipherKey, createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import { invalid } from "../../base/errors.ts";

export const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** No protobuf message begins so: what was stored before there was a data key is told apart. */
const SEALED = 1;
/** The same, with the id of the data key between this byte and the nonce. */
const SEALED_BY_NAME = 2;
const ID_BYTES = 8;

/** `context` is bound to the ciphertext: it cannot be put in another's place. */
export function seal(key: CipherKey, plain: Uint8Array, context: string): Uint8Array {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv("aes-256-gcm", key, nonce).setAAD(Buffer.from(context));
  return Buffer.concat([Buffer.of(SEALED), nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

export const isSealed = (bytes: Uint8Array): boolean => bytes[0] === SEALED;

/** Throws when the key is another one, or the bytes were changed or moved. */
export function unseal(key: CipherKey, sealed: Uint8Array, context: string): Uint8Array {
  if (!isSealed(sealed) || sealed.length < 1 + NONCE_BYTES + TAG_BYTES) throw new Error("this is not encrypted");
  const end = sealed.length - TAG_BYTES;
  const decipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(1, 1 + NONCE_BYTES));
  decipher.setAAD(Buffer.from(context)).setAuthTag(sealed.subarray(end));
  return Buffer.concat([decipher.update(sealed.subarray(1 + NONCE_BYTES, end)), decipher.final()]);
}

/** A data key's name: tells keys apart, and nothing of the key. */
export function keyId(key: Uint8Array): string {
  return createHash("sha256")
    .update("skein data key")
    .update(key)
    .digest("hex")
    .slice(0, 2 * ID_BYTES);
}

/** `seal` with the key's name in front. */
export function sealAs(id: string, key: CipherKey, plain: Uint8Array, context: string): Uint8Array {
  return Buffer.concat([Buffer.of(SEALED_BY_NAME), Buffer.from(id, "hex"), seal(key, plain, context).subarray(1)]);
}

/** The name of the key that opens this; undefined when it carries none (sealed without a name, or in the clear). */
export function sealedAs(bytes: Uint8Array): string | undefined {
  if (bytes[0] !== SEALED_BY_NAME || bytes.length <= ID_BYTES) return undefined;
  return Buffer.from(bytes.subarray(1, 1 + ID_BYTES)).toString("hex");
}

/** Opens what `sealAs` made. */
export function unsealNamed(key: CipherKey, sealed: Uint8Array, context: string): Uint8Array {
  return unseal(key, Buffer.concat([Buffer.of(SEALED), sealed.subarray(1 + ID_BYTES)]), context);
}

const UNLOCK_PREFIX = "SWMKEY-1-";

/** The unlock key as users see it. */
export function formatUnlockKey(key: Uint8Array): string {
  return UNLOCK_PREFIX + Buffer.from(key).toString("base64").replace(/=+$/, "");
}

/** Throws Docker's words when this is no unlock key. */
export function parseUnlockKey(text: string): Uint8Array {
  const key = text.startsWith(UNLOCK_PREFIX) ? Buffer.from(text.slice(UNLOCK_PREFIX.length), "base64") : Buffer.of();
  if (key.length !== KEY_BYTES) throw invalidUnlockKey();
  return key;
}

export const invalidUnlockKey = () => invalid("swarm could not be unlocked: invalid key provided");
