/**
 * Messages on TCP: the type byte 10, a 32-bit length and the sealed body, whose plain text is a message,
 * compressed unless it is long. The five bytes of the head are authenticated with the body.
 */
import type { GossipStream } from "../types.ts";
import type { Keyring } from "./crypto.ts";
import { messageType } from "./messages.ts";
import { decodeCompress, encodeCompress } from "./packet.ts";

/** The sealed body of a stream may have this many bytes (memberlist's own limit), and this many when expanded. */
const maxStreamBytes = 20 << 20;
const maxExpandedBytes = 48 << 20;
const headSize = 5;
/** Above this LZW costs more time on both sides than the network takes for what it saves. */
const worthCompressing = 32 << 10;

/** A stream broke the protocol. `reason` is counted. */
export class StreamError extends Error {
  readonly reason: "streamPlain" | "streamTooLarge" | "streamUndecryptable" | "streamMalformed";

  constructor(reason: StreamError["reason"]) {
    super(`gossip stream refused: ${reason}`);
    this.reason = reason;
  }
}

/** Bounds what all streams together may hold in memory while they are read. */
export class StreamBudget {
  #left: number;

  constructor(bytes: number) {
    this.#left = bytes;
  }

  async hold<T>(bytes: number, job: () => Promise<T>): Promise<T> {
    if (bytes > this.#left) throw new StreamError("streamTooLarge");
    this.#left -= bytes;
    try {
      return await job();
    } finally {
      this.#left += bytes;
    }
  }
}

export function sealStream(keyring: Keyring, message: Uint8Array): Buffer {
  const body = message.length <= worthCompressing ? encodeCompress(message) : message;
  const head = Buffer.alloc(headSize, messageType.encrypt);
  // The sealed length is known beforehand, and must be: the head is authenticated.
  head.writeUInt32BE(body.length + 29, 1);
  return Buffer.concat([head, keyring.seal(body, head)]);
}

export function openStream(keyring: Keyring, head: Buffer, sealed: Buffer): Buffer {
  const plain = keyring.open(sealed, head);
  if (!plain || plain.length === 0) throw new StreamError("streamUndecryptable");
  if (plain[0] !== messageType.compress) return plain;
  try {
    return decodeCompress(plain, maxExpandedBytes);
  } catch {
    throw new StreamError("streamMalformed");
  }
}

/** Reads one message, decrypted and expanded. */
export async function readStream(stream: GossipStream, keyring: Keyring, budget: StreamBudget): Promise<Buffer> {
  const head = await stream.read(headSize);
  if (head[0] !== messageType.encrypt) throw new StreamError("streamPlain");
  const length = head.readUInt32BE(1);
  if (length > maxStreamBytes) throw new StreamError("streamTooLarge");
  return budget.hold(length, async () => openStream(keyring, head, await stream.read(length)));
}

export function writeStream(stream: GossipStream, keyring: Keyring, message: Uint8Array): Promise<void> {
  return stream.write(sealStream(keyring, message));
}
