/** One block that heads an entry of a tar archive: v7, ustar and GNU. Names are bytes: nothing says that they are UTF-8. */
import { invalid } from "../../base/errors.ts";

export const BLOCK = 512;

export type EntryType =
  | "file"
  | "contiguous-file"
  | "link"
  | "symlink"
  | "character-device"
  | "block-device"
  | "directory"
  | "fifo";

/** A header as it stands in its block. */
export interface RawHeader {
  /** The letter of its kind. */
  readonly flag: string;
  readonly name: Buffer;
  /** Where a link leads, empty otherwise. */
  readonly linkname: Buffer;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes that follow. */
  readonly size: number;
  /** Seconds since the epoch. */
  readonly mtime: number;
  readonly devmajor: number;
  readonly devminor: number;
}

const types: Readonly<Record<string, EntryType>> = {
  "\0": "file",
  "0": "file",
  "1": "link",
  "2": "symlink",
  "3": "character-device",
  "4": "block-device",
  "5": "directory",
  "6": "fifo",
  "7": "contiguous-file",
  // GNU's sparse file.
  S: "file",
};

/** The kind of an entry; undefined for those that are not known. */
export function typeOf(flag: string, name: Buffer): EntryType | undefined {
  // Archives older than the kind of directories mark them by their name.
  if ((flag === "0" || flag === "\0") && name.at(-1) === 0x2f) return "directory";
  return Object.hasOwn(types, flag) ? types[flag] : undefined;
}

/** The bytes of a field up to its first NUL. */
export function text(field: Buffer): Buffer {
  const end = field.indexOf(0);
  return end < 0 ? field : field.subarray(0, end);
}

/** Octal digits between spaces and NULs, or GNU's two's complement after a set highest bit. */
export function number(field: Buffer, what: string): number {
  const first = field[0] ?? 0;
  if (first & 0x80) {
    let value = first & 0x40 ? (first & 0x7f) - 0x80 : first & 0x7f;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    if (!Number.isSafeInteger(value)) throw invalid(`invalid tar header: ${what} is out of range`);
    return value;
  }
  const digits = text(field).toString("latin1").trim();
  if (!/^[0-7]*$/.test(digits)) throw invalid(`invalid tar header: ${what} is no number`);
  return digits === "" ? 0 : Number.parseInt(digits, 8);
}

/** Reads a header; undefined for a block of zeros, which ends an archive. */
export function readHeader(block: Buffer): RawHeader | undefined {
  if (block.every((byte) => byte === 0)) return undefined;
  const sum = block.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 0x20 : byte), 0);
  const field = (from: number, length: number) => block.subarray(from, from + length);
  const given = number(field(148, 8), "checksum");
  // Some old programs took bytes for signed.
  const signed = () =>
    block.reduce((total, byte, at) => total + (at >= 148 && at < 156 ? 0x20 : (byte << 24) >> 24), 0);
  if (given !== sum && given !== signed()) throw invalid("invalid tar header: the checksum is wrong");
  const ustar = field(257, 6).toString("latin1") === "ustar\0";
  const known = ustar || field(257, 6).toString("latin1") === "ustar ";
  const prefix = ustar ? text(field(345, 155)) : Buffer.alloc(0);
  const name = text(field(0, 100));
  const size = number(field(124, 12), "size");
  if (size < 0) throw invalid("invalid tar header: size is out of range");
  return {
    flag: String.fromCharCode(block[156] ?? 0),
    name: Buffer.from(prefix.length ? Buffer.concat([prefix, Buffer.from("/"), name]) : name),
    linkname: Buffer.from(text(field(157, 100))),
    mode: number(field(100, 8), "mode"),
    uid: number(field(108, 8), "uid"),
    gid: number(field(116, 8), "gid"),
    size,
    mtime: number(field(136, 12), "mtime"),
    devmajor: known ? number(field(329, 8), "devmajor") : 0,
    devminor: known ? number(field(337, 8), "devminor") : 0,
  };
}
