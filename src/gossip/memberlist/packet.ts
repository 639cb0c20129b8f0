/**
 * What surrounds messages in a UDP packet. Sender: message or compound, compressed if that is smaller, checksummed
 * if the receiver is known to check, encrypted. The receiver undoes it in reverse; compound and compress may nest.
 */
import { crc32 } from "node:zlib";
import { type Keyring, sealOverhead } from "./crypto.ts";
import { lzwDecode, lzwEncode } from "./lzw.ts";
import { messageType, typed } from "./messages.ts";
import { bytesField, MsgReader, uintField } from "./msgpack.ts";

/** Bytes of a compound's head, and per part. */
export const compoundHead = 2;
export const compoundPart = 2;
const maxParts = 255;
/** Below this compression does not pay for its wrapper. */
const worthCompressing = 128;
const maxNesting = 4;
/** What one UDP packet may expand to, all parts together. */
const maxExpanded = 1 << 20;
/** A packet of 64 KiB holds no more messages of a use; expanded it could hold half a million. */
const maxMessages = 4_096;
const algorithmLzw = 0;

/** Joins complete messages; more than 255 make several compounds. */
export function encodeCompounds(messages: readonly Uint8Array[]): Buffer[] {
  const compounds: Buffer[] = [];
  for (let at = 0; at < messages.length; at += maxParts) {
    const parts = messages.slice(at, at + maxParts);
    const head = Buffer.alloc(compoundHead + compoundPart * parts.length);
    head[0] = messageType.compound;
    head[1] = parts.length;
    parts.forEach((part, i) => {
      head.writeUInt16BE(part.length, compoundHead + compoundPart * i);
    });
    compounds.push(Buffer.concat([head, ...parts]));
  }
  return compounds;
}

/** The parts of a compound; a truncated part drops the rest, which `truncated` counts. */
export function decodeCompound(bytes: Buffer): { parts: Buffer[]; truncated: number } {
  const count = bytes[1] ?? 0;
  let at = compoundHead + compoundPart * count;
  if (bytes.length < at) throw new RangeError("compound: truncated lengths");
  const parts: Buffer[] = [];
  for (let i = 0; i < count; i++) {
    const size = bytes.readUInt16BE(compoundHead + compoundPart * i);
    if (at + size > bytes.length) return { parts, truncated: count - i };
    parts.push(bytes.subarray(at, at + size));
    at += size;
  }
  return { parts, truncated: 0 };
}

export function encodeCompress(bytes: Uint8Array): Buffer {
  return typed(messageType.compress, { Algo: algorithmLzw, Buf: lzwEncode(bytes) });
}

/** The content of a compress message (type byte included), at most `limit` bytes. */
export function decodeCompress(bytes: Buffer, limit: number): Buffer {
  const map = new MsgReader(bytes, 1).struct();
  if (uintField(map, "Algo", 255) !== algorithmLzw) throw new RangeError("compress: unknown algorithm");
  return lzwDecode(bytesField(map, "Buf", bytes.length), limit);
}

export function encodeCrc(bytes: Uint8Array): Buffer {
  const head = Buffer.alloc(5, messageType.crc);
  head.writeUInt32BE(crc32(bytes), 1);
  return Buffer.concat([head, bytes]);
}

/** A message (or compound) as it travels. `checksum` only towards nodes whose pmax is 5 or more. */
export function sealPacket(keyring: Keyring, message: Uint8Array, checksum: boolean): Buffer {
  let body = message;
  if (message.length >= worthCompressing) {
    const compressed = encodeCompress(message);
    if (compressed.length < message.length) body = compressed;
  }
  return keyring.seal(checksum ? encodeCrc(body) : body);
}

/** Why bytes from the network were dropped. */
export type Drop = "undecryptable" | "label" | "crc" | "malformed" | "truncatedCompound" | "unknownType";

/**
 * Undoes `sealPacket` and hands each message inside to `accept`. What is wrong is reported to `dropped`;
 * errors thrown by `accept` count as malformed.
 */
export function openPacket(
  keyring: Keyring,
  packet: Buffer,
  accept: (message: Buffer) => void,
  dropped: (reason: Drop) => void,
): void {
  if (packet[0] === messageType.label) {
    dropped("label");
    return;
  }
  const plain = keyring.open(packet);
  if (!plain || plain.length === 0) {
    dropped("undecryptable");
    return;
  }
  let body = plain;
  if (plain[0] === messageType.crc && plain.length >= 5) {
    body = plain.subarray(5);
    if (crc32(body) !== plain.readUInt32BE(1)) {
      dropped("crc");
      return;
    }
  }
  let budget = maxExpanded;
  let messages = 0;
  const walk = (message: Buffer, depth: number): void => {
    if (depth > maxNesting) throw new RangeError("packet: nested too deep");
    if (message[0] === messageType.compound) {
      const { parts, truncated } = decodeCompound(message);
      if (truncated > 0) dropped("truncatedCompound");
      for (const part of parts) {
        if (messages > maxMessages) return;
        guarded(part, depth + 1);
      }
    } else if (++messages > maxMessages) {
      throw new RangeError("packet: too many messages");
    } else if (message[0] === messageType.compress) {
      const inner = decodeCompress(message, budget);
      budget -= inner.length;
      walk(inner, depth + 1);
    } else if (message.length > 0) {
      accept(message);
    }
  };
  const guarded = (message: Buffer, depth: number): void => {
    try {
      walk(message, depth);
    } catch {
      dropped("malformed");
    }
  };
  guarded(body, 0);
}

/** How much a packet of `size` bytes may carry beside a compound's head and encryption. */
export function packetRoom(size: number): number {
  return size - compoundHead - sealOverhead;
}
