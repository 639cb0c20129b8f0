/** What lies in the files of a stopped or running etcd: values of objects, wherever in the file they are, also long deleted ones. */
import { readFileSync } from "node:fs";
import { isSealed, sealedAs, unseal, unsealNamed } from "../../src/swarm/ca/seal.ts";

export interface FoundValue {
  /** "kind/id". */
  readonly object: string;
  readonly value: Uint8Array;
}

const PREFIX = Buffer.from("/skein/");

/**
 * In the database a value lies in a `KeyValue` (key 1, numbers 2 to 4, value 5), in the log in a `PutRequest` (key 1,
 * value 2): after each key of an object what follows is read as either. A value that is cut by a page is not found.
 */
export function valuesIn(path: string): FoundValue[] {
  const bytes = readFileSync(path);
  const found: FoundValue[] = [];
  for (let at = bytes.indexOf(PREFIX); at >= 0; at = bytes.indexOf(PREFIX, at + 1)) {
    if (at < 2 || bytes[at - 2] !== 0x0a) continue;
    const end = at + (bytes[at - 1] ?? 0);
    const object = bytes.subarray(at + PREFIX.length, end).toString("latin1");
    if (!/^[a-z]+\/[a-z0-9]+$/.test(object)) continue;
    let next = end;
    while ([0x10, 0x18, 0x20].includes(bytes[next] ?? 0)) next = varint(bytes, next + 1).end;
    if (bytes[next] !== 0x2a && bytes[next] !== 0x12) continue;
    const length = varint(bytes, next + 1);
    const value = bytes.subarray(length.end, length.end + length.value);
    if (value.length > 0 && value.length === length.value) found.push({ object, value });
  }
  return found;
}

function varint(bytes: Uint8Array, from: number): { value: number; end: number } {
  let value = 0;
  let end = from;
  for (let shift = 0; shift < 35; shift += 7) {
    const byte = bytes[end++] ?? 0;
    value += (byte & 0x7f) * 2 ** shift;
    if (byte < 0x80) break;
  }
  return { value, end };
}

/** What this key opens of them. */
export function opened(found: readonly FoundValue[], key: Uint8Array): { object: string; plain: Buffer }[] {
  return found.flatMap(({ object, value }) => {
    try {
      if (sealedAs(value) === undefined && !isSealed(value)) return [{ object, plain: Buffer.from(value) }];
      const open = sealedAs(value) === undefined ? unseal : unsealNamed;
      return [{ object, plain: Buffer.from(open(key, value, object)) }];
    } catch {
      return [];
    }
  });
}
