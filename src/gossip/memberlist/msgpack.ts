/**
 * The msgpack dialect of memberlist: go-msgpack's "old spec". Structs are maps with the Go field names in
 * alphabetical order; strings and byte slices share the raw family (fixraw, raw16, raw32).
 */

/** What a decoded value may be. Strings and bytes look the same on the wire, hence both are a Buffer. */
export type MsgValue = number | boolean | null | Buffer | MsgValue[] | MsgMap;
export type MsgMap = Map<string, MsgValue>;

/** What can be encoded; `undefined` fields are left out. */
export type MsgField = number | boolean | null | string | Uint8Array | undefined;

const maxDepth = 4;
const maxItems = 256;

/** Writes a struct: keys sorted, `undefined` omitted. */
export function encodeStruct(fields: Record<string, MsgField>): Buffer {
  const keys = Object.keys(fields)
    .filter((key) => fields[key] !== undefined)
    .sort();
  const parts: Uint8Array[] = [mapHeader(keys.length)];
  for (const key of keys) {
    parts.push(...raw(Buffer.from(key)));
    parts.push(...scalar(fields[key] ?? null));
  }
  return Buffer.concat(parts);
}

function mapHeader(size: number): Uint8Array {
  if (size > 15) throw new RangeError("msgpack: struct too large");
  return Uint8Array.of(0x80 | size);
}

function scalar(value: Exclude<MsgField, undefined>): Uint8Array[] {
  if (value === null) return [Uint8Array.of(0xc0)];
  if (typeof value === "boolean") return [Uint8Array.of(value ? 0xc3 : 0xc2)];
  if (typeof value === "number") return [integer(value)];
  return raw(typeof value === "string" ? Buffer.from(value) : value);
}

function integer(value: number): Buffer {
  if (!Number.isSafeInteger(value) || value < 0 || value > 0xffffffff) throw new RangeError("msgpack: not a uint32");
  if (value < 0x80) return Buffer.from([value]);
  if (value < 0x100) return Buffer.from([0xcc, value]);
  if (value < 0x10000) return Buffer.from([0xcd, value >> 8, value & 0xff]);
  const out = Buffer.alloc(5, 0xce);
  out.writeUInt32BE(value, 1);
  return out;
}

function raw(bytes: Uint8Array): Uint8Array[] {
  const size = bytes.length;
  if (size < 32) return [Uint8Array.of(0xa0 | size), bytes];
  if (size < 0x10000) return [Uint8Array.of(0xda, size >> 8, size & 0xff), bytes];
  const head = Buffer.alloc(5, 0xdb);
  head.writeUInt32BE(size, 1);
  return [head, bytes];
}

/** Reads values one after another; throws RangeError on anything short, too deep or outside the dialect. */
export class MsgReader {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Buffer, offset = 0) {
    this.#bytes = bytes;
    this.#at = offset;
  }

  /** Where the next value begins. */
  get offset(): number {
    return this.#at;
  }

  /** The next value, which must be a struct. */
  struct(): MsgMap {
    const value = this.value();
    if (!(value instanceof Map)) throw new RangeError("msgpack: not a struct");
    return value;
  }

  value(depth = 0): MsgValue {
    if (depth > maxDepth) throw new RangeError("msgpack: too deep");
    const tag = this.#uint(1);
    if (tag < 0x80) return tag;
    if (tag < 0x90) return this.#map(tag & 0x0f, depth);
    if (tag < 0xa0) return this.#array(tag & 0x0f, depth);
    if (tag < 0xc0) return this.#raw(tag & 0x1f);
    if (tag >= 0xe0) return tag - 0x100;
    switch (tag) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xd9:
        return this.#raw(this.#uint(1));
      case 0xc5:
      case 0xda:
        return this.#raw(this.#uint(2));
      case 0xc6:
      case 0xdb:
        return this.#raw(this.#uint(4));
      case 0xcc:
        return this.#uint(1);
      case 0xcd:
        return this.#uint(2);
      case 0xce:
        return this.#uint(4);
      case 0xcf:
        return this.#uint64();
      case 0xd0:
        return (this.#uint(1) << 24) >> 24;
      case 0xd1:
        return (this.#uint(2) << 16) >> 16;
      case 0xd2:
        return this.#uint(4) | 0;
      case 0xd3:
        return this.#int64();
      case 0xdc:
        return this.#array(this.#uint(2), depth);
      case 0xdd:
        return this.#array(this.#uint(4), depth);
      case 0xde:
        return this.#map(this.#uint(2), depth);
      case 0xdf:
        return this.#map(this.#uint(4), depth);
      default:
        throw new RangeError(`msgpack: unexpected tag 0x${tag.toString(16)}`);
    }
  }

  #need(size: number): number {
    const at = this.#at;
    if (size > this.#bytes.length - at) throw new RangeError("msgpack: truncated");
    this.#at += size;
    return at;
  }

  #uint(size: 1 | 2 | 4): number {
    return this.#bytes.readUIntBE(this.#need(size), size);
  }

  #uint64(): number {
    const value = this.#bytes.readBigUInt64BE(this.#need(8));
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new RangeError("msgpack: integer too large");
    return Number(value);
  }

  #int64(): number {
    const value = Number(this.#bytes.readBigInt64BE(this.#need(8)));
    if (!Number.isSafeInteger(value)) throw new RangeError("msgpack: integer too large");
    return value;
  }

  #raw(size: number): Buffer {
    const at = this.#need(size);
    return this.#bytes.subarray(at, at + size);
  }

  #array(size: number, depth: number): MsgValue[] {
    if (size > maxItems) throw new RangeError("msgpack: too many items");
    const items: MsgValue[] = [];
    for (let i = 0; i < size; i++) items.push(this.value(depth + 1));
    return items;
  }

  #map(size: number, depth: number): MsgMap {
    if (size > maxItems) throw new RangeError("msgpack: too many items");
    const map: MsgMap = new Map();
    for (let i = 0; i < size; i++) {
      const key = this.value(depth + 1);
      if (!Buffer.isBuffer(key)) throw new RangeError("msgpack: key is not a string");
      map.set(key.toString("utf8"), this.value(depth + 1));
    }
    return map;
  }
}

/** An unsigned field of at most `max`; missing is 0. */
export function uintField(map: MsgMap, key: string, max = 0xffffffff): number {
  const value = map.get(key) ?? 0;
  if (typeof value !== "number" || value < 0 || value > max) throw new RangeError(`msgpack: bad ${key}`);
  return value;
}

export function boolField(map: MsgMap, key: string): boolean {
  const value = map.get(key) ?? false;
  if (typeof value !== "boolean") throw new RangeError(`msgpack: bad ${key}`);
  return value;
}

/** A string field of at most `max` bytes; missing is "". */
export function stringField(map: MsgMap, key: string, max = 512): string {
  return bytesField(map, key, max).toString("utf8");
}

/** A byte slice of at most `max` bytes; missing and nil are empty; an array of small integers is taken too. */
export function bytesField(map: MsgMap, key: string, max = 512): Buffer {
  const value = map.get(key) ?? null;
  if (value === null) return Buffer.alloc(0);
  const bytes = Array.isArray(value) ? bytesOf(value) : value;
  if (!Buffer.isBuffer(bytes) || bytes.length > max) throw new RangeError(`msgpack: bad ${key}`);
  return bytes;
}

function bytesOf(items: MsgValue[]): Buffer {
  const numbers = items.map((item) => {
    if (typeof item !== "number" || item < 0 || item > 255) throw new RangeError("msgpack: not bytes");
    return item;
  });
  return Buffer.from(numbers);
}
