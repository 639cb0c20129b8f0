/** A tar stream as its entries, decompressed where it is compressed; what cannot be read is the sender's fault. */
import { pipeline, Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { extract, type Header } from "tar-stream";
import { errnoOf, invalid, messageOf } from "../base/errors.ts";
import { sniff } from "./images/sniff.ts";

/** `pax`: the records of a POSIX header, numbers beyond what its fields hold among them. */
export type TarHeader = Omit<Header, "pax"> & { readonly pax: Readonly<Record<string, string>> };

export interface TarEntry {
  readonly header: TarHeader;
  readonly stream: AsyncIterable<Uint8Array>;
}

/** Entries in the order they come. Each must be read, or is skipped, before the next. */
export async function* openTar(archive: Readable): AsyncGenerator<TarEntry> {
  const { kind, stream } = await sniff(archive);
  const source = Readable.from(stream);
  const tar = extract();
  const done = (error: unknown) => {
    if (error) tar.destroy(error instanceof Error ? error : new Error(String(error)));
  };
  switch (kind) {
    case "none":
      pipeline(source, tar, done);
      break;
    case "gzip":
      pipeline(source, createGunzip(), tar, done);
      break;
    case "zstd":
      pipeline(source, createZstdDecompress(), tar, done);
      break;
    default:
      throw invalid(`the archive is compressed with ${kind}, which is not supported`);
  }
  try {
    for await (const entry of tar) {
      const header = { ...entry.header, pax: recordsOf(entry.header.pax) };
      yield { header, stream: blamed(entry as unknown as AsyncIterable<Uint8Array>) };
      entry.resume();
    }
  } catch (error) {
    throw blame(error);
  }
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
  if (!(error instanceof Error)) return error;
  const known = /tar|header|incorrect|unexpected end|premature/i.test(error.message);
  return known || /^Z(STD)?_/.test(errnoOf(error) ?? "") ? invalid(`invalid archive: ${messageOf(error)}`) : error;
}

function recordsOf(pax: unknown): Record<string, string> {
  const pairs = Object.entries(pax ?? {}).filter((pair): pair is [string, string] => typeof pair[1] === "string");
  return Object.fromEntries(pairs);
}
