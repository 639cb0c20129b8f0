/** A tar stream as its entries, decompressed where it is compressed; what cannot be read is the sender's fault. */
import { pipeline, Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { errnoOf, invalid, messageOf, SkeinError } from "../../base/errors.ts";
import { sniff } from "../images/sniff.ts";
import { Bytes } from "./bytes.ts";
import { BLOCK, type EntryType, type RawHeader, readHeader, text, typeOf } from "./header.ts";
import { type PaxRecord, paxNumber, paxRecords } from "./pax.ts";
import { checked, leadingPieces, oldSparse, type Piece, recordedPieces } from "./sparse.ts";

/** An entry's own: what its extended headers said about it counts already. */
export interface TarHeader extends Omit<RawHeader, "flag"> {
  /** Undefined for kinds that nobody here knows. */
  readonly type: EntryType | undefined;
  /** Extended attributes. */
  readonly xattrs: ReadonlyMap<string, Buffer>;
  /** Of a file with holes: where its data belongs. The stream has the pieces one after another. */
  readonly pieces: readonly Piece[] | undefined;
}

export interface TarEntry {
  readonly header: TarHeader;
  readonly stream: AsyncIterable<Uint8Array>;
}

/** Names, and what else heads an entry, shall not fill the memory. */
const MAX_EXTENSION = 4 * 1024 * 1024;
const XATTR = "SCHILY.xattr.";

/** Entries in the order they come. Each must be read, or is skipped, before the next. */
export async function* openTar(archive: Readable): AsyncGenerator<TarEntry> {
  const bytes = new Bytes(await unpacked(archive));
  try {
    yield* entries(bytes);
    // What follows the end is read and left: the sender waits for that.
    while (await bytes.some(BLOCK * 128));
  } catch (error) {
    throw blame(error);
  } finally {
    await bytes.close();
  }
}

async function unpacked(archive: Readable): Promise<AsyncIterable<Uint8Array>> {
  const { kind, stream } = await sniff(archive);
  if (kind === "none") return stream;
  const unpack = kind === "gzip" ? createGunzip() : kind === "zstd" ? createZstdDecompress() : undefined;
  if (!unpack) throw invalid(`the archive is compressed with ${kind}, which is not supported`);
  // An error of the source becomes one of what is read.
  pipeline(Readable.from(stream), unpack, () => {});
  return unpack;
}

async function* entries(bytes: Bytes): AsyncGenerator<TarEntry> {
  let common: PaxRecord[] = [];
  let own: PaxRecord[] = [];
  let longName: Buffer | undefined;
  let longLink: Buffer | undefined;
  for (;;) {
    const block = await bytes.exactly(BLOCK);
    const raw = block && readHeader(block);
    if (!block || !raw) return;
    if ("xgLK".includes(raw.flag)) {
      if (raw.size > MAX_EXTENSION) throw invalid("invalid tar header: too long");
      const data = (await must(bytes, padded(raw.size))).subarray(0, raw.size);
      if (raw.flag === "x") own = paxRecords(data);
      else if (raw.flag === "g") common = [...common, ...paxRecords(data)].slice(-1_000);
      else if (raw.flag === "L") longName = Buffer.from(text(data));
      else longLink = Buffer.from(text(data));
      continue;
    }
    const records = [...common, ...own];
    const named = { ...raw, name: longName ?? raw.name, linkname: longLink ?? raw.linkname };
    own = [];
    longName = undefined;
    longLink = undefined;
    yield* entry(bytes, named, block, records);
  }
}

async function* entry(
  bytes: Bytes,
  raw: RawHeader,
  block: Buffer,
  records: readonly PaxRecord[],
): AsyncGenerator<TarEntry> {
  const pax = new Map(records);
  const type = typeOf(raw.flag, pax.get("path") ?? raw.name);
  const told = paxNumber(pax, "size") ?? raw.size;
  if (told < 0 || !Number.isInteger(told)) throw invalid("invalid tar header: size is out of range");
  // Only files have data, whatever a link or a directory says of itself.
  const data = type === undefined || type === "file" || type === "contiguous-file" ? told : 0;
  const holes = type === "file" ? await holesOf(bytes, raw, block, records, pax, data) : undefined;
  let left = data - (holes?.taken ?? 0);
  const padding = padded(data) - data;
  const header: TarHeader = {
    type,
    name: nonEmpty(pax.get("GNU.sparse.name")) ?? nonEmpty(pax.get("path")) ?? raw.name,
    linkname: nonEmpty(pax.get("linkpath")) ?? raw.linkname,
    mode: raw.mode,
    uid: paxNumber(pax, "uid") ?? raw.uid,
    gid: paxNumber(pax, "gid") ?? raw.gid,
    size: holes?.size ?? data,
    mtime: paxNumber(pax, "mtime") ?? raw.mtime,
    devmajor: raw.devmajor,
    devminor: raw.devminor,
    xattrs: new Map(
      [...pax].flatMap(([key, value]) => (key.startsWith(XATTR) ? [[key.slice(XATTR.length), value] as const] : [])),
    ),
    pieces: holes?.pieces,
  };
  if (header.name.includes(0) || header.linkname.includes(0)) throw invalid("invalid tar header: a name has a NUL");
  async function* rest(): AsyncGenerator<Uint8Array> {
    while (left > 0) {
      const part = await bytes.some(left);
      if (!part) throw invalid("invalid archive: unexpected end of data");
      left -= part.length;
      yield part;
    }
  }
  yield { header, stream: blamed(rest()) };
  for await (const _ of rest());
  if (padding > 0) await must(bytes, padding);
}

async function holesOf(
  bytes: Bytes,
  raw: RawHeader,
  block: Buffer,
  records: readonly PaxRecord[],
  pax: ReadonlyMap<string, Buffer>,
  data: number,
): Promise<{ pieces: readonly Piece[]; size: number; taken: number } | undefined> {
  const next = () => must(bytes, BLOCK);
  if (raw.flag === "S") {
    const { pieces, size } = await oldSparse(block, next);
    return { ...checked(pieces, size, data), taken: 0 };
  }
  const size = paxNumber(pax, "GNU.sparse.realsize") ?? paxNumber(pax, "GNU.sparse.size");
  const recorded = recordedPieces(records);
  if (recorded) return { ...checked(recorded, size ?? data, data), taken: 0 };
  if (pax.get("GNU.sparse.major")?.toString() !== "1") return undefined;
  let ahead = 0;
  const { pieces, taken } = await leadingPieces(() => {
    ahead += BLOCK;
    if (ahead > data) throw invalid("invalid tar header: sparse file: its map is cut off");
    return next();
  });
  return { ...checked(pieces, size ?? 0, data - taken), taken };
}

const padded = (size: number): number => Math.ceil(size / BLOCK) * BLOCK;
const nonEmpty = (value: Buffer | undefined): Buffer | undefined => (value?.length ? value : undefined);

async function must(bytes: Bytes, length: number): Promise<Buffer> {
  if (length === 0) return Buffer.alloc(0);
  const found = await bytes.exactly(length);
  if (!found) throw invalid("invalid archive: unexpected end of data");
  return found;
}

/** An archive may end, or turn to garbage, in the middle of a file. */
async function* blamed(stream: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* stream;
  } catch (error) {
    throw blame(error);
  }
}

function blame(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof SkeinError) return error;
  const known = /incorrect|unexpected end|premature/i.test(error.message);
  return known || /^Z(STD)?_/.test(errnoOf(error) ?? "") ? invalid(`invalid archive: ${messageOf(error)}`) : error;
}
