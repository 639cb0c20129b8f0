/**
 * Encryption of packets and streams: AES-GCM, several keys to read, the first one to write.
 * Layout: version byte, 12 bytes of nonce, ciphertext, 16 bytes of tag.
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject, randomFillSync } from "node:crypto";

const nonceSize = 12;
const tagSize = 16;
/**
 * No padding. memberlist knows a version 0, padded, that its first protocol sent and that nobody sends since 2014. The
 * byte is not authenticated in packets: were 0 taken, anybody could have the end of a packet cut off by changing it.
 */
const unpadded = 1;

/** Bytes that sealing adds. */
export const sealOverhead = 1 + nonceSize + tagSize;

/** A key set up once: from its bytes alone a cipher takes four times as long. */
interface Key {
  readonly algorithm: "aes-128-gcm" | "aes-192-gcm" | "aes-256-gcm";
  readonly object: KeyObject;
}

/** The keys of the cluster; the first is used to send. */
export class Keyring {
  #keys: readonly Key[];

  constructor(keys: readonly Uint8Array[]) {
    this.#keys = checked(keys);
  }

  replace(keys: readonly Uint8Array[]): void {
    this.#keys = checked(keys);
  }

  /** Encrypts with the primary key. `nonce` is given by tests only. */
  seal(plain: Uint8Array, aad: Uint8Array = new Uint8Array(), nonce: Uint8Array = freshNonce()): Buffer {
    const [key] = this.#keys;
    if (!key) throw new RangeError("gossip: no encryption key");
    const cipher = createCipheriv(key.algorithm, key.object, nonce);
    cipher.setAAD(aad);
    const body = cipher.update(plain);
    return Buffer.concat([Uint8Array.of(unpadded), nonce, body, cipher.final(), cipher.getAuthTag()]);
  }

  /** Decrypts with whichever key fits; undefined when none does or the layout is wrong. */
  open(sealed: Buffer, aad: Uint8Array = new Uint8Array()): Buffer | undefined {
    if (sealed[0] !== unpadded || sealed.length < sealOverhead) return undefined;
    for (const key of this.#keys) {
      const plain = openWith(key, sealed, aad);
      if (plain) return plain;
    }
    return undefined;
  }
}

const nonces = Buffer.alloc(256 * nonceSize);
let noncesUsed = nonces.length;

/** Random, and drawn many at a time: one draw costs as much as encrypting a packet. */
function freshNonce(): Uint8Array {
  if (noncesUsed === nonces.length) {
    randomFillSync(nonces);
    noncesUsed = 0;
  }
  noncesUsed += nonceSize;
  return nonces.subarray(noncesUsed - nonceSize, noncesUsed);
}

function checked(keys: readonly Uint8Array[]): readonly Key[] {
  if (keys.length === 0) throw new RangeError("gossip: no encryption key");
  return keys.map((key) => ({ algorithm: algorithm(key), object: createSecretKey(Uint8Array.from(key)) }));
}

function algorithm(key: Uint8Array): Key["algorithm"] {
  switch (key.length) {
    case 16:
      return "aes-128-gcm";
    case 24:
      return "aes-192-gcm";
    case 32:
      return "aes-256-gcm";
    default:
      throw new RangeError("gossip: an encryption key must be 16, 24 or 32 bytes long");
  }
}

function openWith(key: Key, sealed: Buffer, aad: Uint8Array): Buffer | undefined {
  const nonce = sealed.subarray(1, 1 + nonceSize);
  const decipher = createDecipheriv(key.algorithm, key.object, nonce, { authTagLength: tagSize });
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(sealed.length - tagSize));
  const plain = decipher.update(sealed.subarray(1 + nonceSize, sealed.length - tagSize));
  try {
    decipher.final();
    return plain;
  } catch {
    return undefined;
  }
}
