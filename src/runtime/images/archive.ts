/** A tar stream as a sequence of files, decompressed where it is compressed. */
import { posix } from "node:path";
import { pipeline, Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { extract } from "tar-stream";
import { invalid, messageOf } from "../../base/errors.ts";
import { sniff } from "./sniff.ts";

export interface ArchiveEntry {
  /** Relative, without "./" in front. */
  readonly path: string;
  readonly size: number;
  /** Where a link leads, relative to the archive's root. */
  readonly link?: string;
  readonly stream: AsyncIterable<Uint8Array>;
  bytes(): Promise<Buffer>;
}

/** Files and links in the order they come. Each must be read, or is skipped, before the next. */
export async function* openArchive(archive: Readable): AsyncGenerator<ArchiveEntry> {
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
      const { name, type, size = 0, linkname } = entry.header;
      const path = clean(name);
      const stream = entry as unknown as AsyncIterable<Uint8Array>;
      const bytes = async () => Buffer.concat(await Array.fromAsync(stream));
      if (type === "symlink" || type === "link") {
        const target = linkname ?? "";
        const link = clean(type === "symlink" ? posix.join(posix.dirname(path), target) : target);
        yield { path, size: 0, link, stream, bytes };
      } else if (type === "file" || type === "contiguous-file") yield { path, size, stream, bytes };
      entry.resume();
    }
  } catch (error) {
    if (error instanceof Error && /tar|header|gunzip|incorrect|unexpected end|zstd/i.test(error.message)) {
      throw invalid(`invalid archive: ${messageOf(error)}`);
    }
    throw error;
  }
}

const clean = (path: string): string => posix.normalize(path).replace(/^(\.{0,2}\/)+/, "");
