/** A tar stream as a sequence of files and links to look up by name. */
import { posix } from "node:path";
import type { Readable } from "node:stream";
import { openTar } from "../tar/read.ts";

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
  for await (const { header, stream } of openTar(archive)) {
    const { type, size } = header;
    const path = clean(header.name.toString());
    const bytes = async () => Buffer.concat(await Array.fromAsync(stream));
    if (type === "symlink" || type === "link") {
      const target = header.linkname.toString();
      const link = clean(type === "symlink" ? posix.join(posix.dirname(path), target) : target);
      yield { path, size: 0, link, stream, bytes };
    } else if (type === "file" || type === "contiguous-file") yield { path, size, stream, bytes };
  }
}

const clean = (path: string): string => posix.normalize(path).replace(/^(\.{0,2}\/)+/, "");
