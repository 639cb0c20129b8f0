/**
 * The bytes of netlink: headers of 16 bytes, attributes (length, type, value) padded to 4.
 * Host byte order, which is little-endian on every machine that Node runs on here.
 */

export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_DUMP = 0x300;
export const NLM_F_CREATE = 0x400;

const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;
const HEADER = 16;

const align = (length: number) => (length + 3) & ~3;

/** Builds one message: the family's fixed header first, then attributes. */
export class Builder {
  #buffer: Buffer;
  #length = HEADER;

  constructor(fixed: Buffer, capacity = 512) {
    this.#buffer = Buffer.alloc(Math.max(capacity, HEADER + fixed.length));
    this.raw(fixed);
  }

  #reserve(size: number): void {
    if (this.#length + size <= this.#buffer.length) return;
    const larger = Buffer.alloc(Math.max(this.#buffer.length * 2, this.#length + size));
    this.#buffer.copy(larger);
    this.#buffer = larger;
  }

  /** Bytes as they are, padded. */
  raw(bytes: Buffer): this {
    const size = align(bytes.length);
    this.#reserve(size);
    bytes.copy(this.#buffer, this.#length);
    this.#length += size;
    return this;
  }

  attr(type: number, value: Buffer): this {
    this.#reserve(4 + align(value.length));
    this.#buffer.writeUInt16LE(4 + value.length, this.#length);
    this.#buffer.writeUInt16LE(type, this.#length + 2);
    this.#length += 4;
    return this.raw(value);
  }

  u8(type: number, value: number): this {
    return this.attr(type, Buffer.from([value]));
  }

  u16(type: number, value: number): this {
    return this.attr(type, u16(value));
  }

  /** In network order. */
  be16(type: number, value: number): this {
    return this.attr(type, Buffer.from([value >> 8, value & 0xff]));
  }

  u32(type: number, value: number): this {
    return this.attr(type, u32(value));
  }

  /** With the closing zero. */
  text(type: number, value: string): this {
    return this.attr(type, Buffer.from(`${value}\0`));
  }

  nest(type: number, fill: (nested: this) => void): this {
    const start = this.#length;
    this.attr(type | NLA_F_NESTED, Buffer.alloc(0));
    fill(this);
    this.#buffer.writeUInt16LE(this.#length - start, start);
    return this;
  }

  /** The finished message. */
  finish(type: number, flags: number, seq: number): Buffer {
    const message = this.#buffer.subarray(0, this.#length);
    message.writeUInt32LE(this.#length, 0);
    message.writeUInt16LE(type, 4);
    message.writeUInt16LE(flags, 6);
    message.writeUInt32LE(seq, 8);
    message.writeUInt32LE(0, 12);
    return message;
  }
}

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly seq: number;
  /** What follows the netlink header. */
  readonly body: Buffer;
}

/** The messages of one datagram. A length that lies ends the walk. */
export function* messages(datagram: Buffer): Generator<Message> {
  let at = 0;
  while (at + HEADER <= datagram.length) {
    const length = datagram.readUInt32LE(at);
    if (length < HEADER || at + length > datagram.length) return;
    yield {
      type: datagram.readUInt16LE(at + 4),
      flags: datagram.readUInt16LE(at + 6),
      seq: datagram.readUInt32LE(at + 8),
      body: datagram.subarray(at + HEADER, at + length),
    };
    at += align(length);
  }
}

/** Attributes by type; of repeated ones the last. */
export type Attributes = Map<number, Buffer>;

export function attributes(bytes: Buffer, from = 0): Attributes {
  const result: Attributes = new Map();
  let at = from;
  while (at + 4 <= bytes.length) {
    const length = bytes.readUInt16LE(at);
    if (length < 4 || at + length > bytes.length) break;
    result.set(bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK, bytes.subarray(at + 4, at + length));
    at += align(length);
  }
  return result;
}

/** The attributes inside an attribute; none when it is absent. */
export function nested(attrs: Attributes, type: number): Attributes {
  const value = attrs.get(type);
  return value ? attributes(value) : new Map();
}

export function textOf(attrs: Attributes, type: number): string | undefined {
  const value = attrs.get(type);
  if (!value) return undefined;
  const end = value.indexOf(0);
  return value.toString("utf8", 0, end < 0 ? value.length : end);
}

export function u8Of(attrs: Attributes, type: number): number | undefined {
  const value = attrs.get(type);
  return value && value.length >= 1 ? value.readUInt8() : undefined;
}

export function be16Of(attrs: Attributes, type: number): number | undefined {
  const value = attrs.get(type);
  return value && value.length >= 2 ? value.readUInt16BE() : undefined;
}

export function u32Of(attrs: Attributes, type: number): number | undefined {
  const value = attrs.get(type);
  return value && value.length >= 4 ? value.readUInt32LE() : undefined;
}
