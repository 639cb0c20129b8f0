/** Reads back what was logged: all of it or the last lines, without loading a file whole. */
import { closeSync, fstatSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setImmediate as breathe } from "node:timers/promises";
import { createGunzip } from "node:zlib";
import type { LogEntry } from "../types.ts";
import { blocksOf, type LogFile, openSnapshot } from "./files.ts";
import { decodeEntry } from "./format.ts";

const BLOCK = 64 * 1024;
const NEWLINE = 0x0a;

/** Where the last `count` lines of a file begin, and how many of them are missing there. */
function tailOf(file: LogFile, count: number): { start: number; missing: number } {
  const block = Buffer.alloc(BLOCK);
  let missing = count;
  for (let at = file.size; at > 0; ) {
    const from = Math.max(0, at - BLOCK);
    const got = readSync(file.fd, block, 0, at - from, from);
    for (let i = got - 1; i >= 0; i--) {
      // The newline at the very end closes the last line; each one before it opens a counted line.
      if (block[i] !== NEWLINE || from + i === file.size - 1) continue;
      if (--missing === 0) return { start: from + i + 1, missing };
    }
    at = from;
  }
  return { start: 0, missing: file.size > 0 ? missing - 1 : missing };
}

/**
 * The entries of a log as it is now. The files are opened before this returns, so that a follower who subscribes in the
 * same turn neither misses nor repeats a line. Compressed ones are unpacked when they are come to.
 */
export function readEntries(path: string, tail: number | undefined): AsyncIterable<LogEntry> {
  const files = openSnapshot(path);
  const unpacked = async (index: number): Promise<LogFile> => {
    const file = files[index];
    if (!file?.compressed) return file ?? { fd: -1, size: 0, compressed: false };
    const plain = await unpack(file, path);
    closeSync(file.fd);
    files[index] = plain;
    return plain;
  };
  return (async function* () {
    try {
      const starts = new Map<number, number>();
      let first = 0;
      if (tail !== undefined) {
        let missing = tail;
        for (first = files.length; first > 0 && missing > 0; first--) {
          const found = tailOf(await unpacked(first - 1), missing);
          starts.set(first - 1, found.start);
          missing = found.missing;
        }
      }
      for (let index = first; index < files.length; index++) {
        yield* entriesOf(await unpacked(index), starts.get(index) ?? 0);
      }
    } finally {
      for (const file of files) closeSync(file.fd);
    }
  })();
}

/** The contents of a compressed file, in one that has no name and goes with its descriptor. */
async function unpack(file: LogFile, path: string): Promise<LogFile> {
  const place = `${path}.${process.pid}.${reading++}.tmp`;
  const fd = openSync(place, "wx+", 0o600);
  unlinkSync(place);
  // Of a file that was cut off, what can be read is read.
  await pipeline(Readable.from(blocksOf(file.fd)), createGunzip(), async (plain: AsyncIterable<Buffer>) => {
    for await (const chunk of plain) for (let done = 0; done < chunk.length; ) done += writeSync(fd, chunk, done);
  }).catch(() => {});
  return { fd, size: fstatSync(fd).size, compressed: false };
}

let reading = 0;

async function* entriesOf(file: LogFile, start: number): AsyncGenerator<LogEntry> {
  let rest: Buffer = Buffer.alloc(0);
  for (let at = start; at < file.size; ) {
    const block = Buffer.alloc(Math.min(BLOCK, file.size - at));
    const got = readSync(file.fd, block, 0, block.length, at);
    if (got === 0) break;
    at += got;
    const data: Buffer = rest.length ? Buffer.concat([rest, block.subarray(0, got)]) : block.subarray(0, got);
    let line = 0;
    for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE, line)) {
      const entry = decodeEntry(data.toString("utf8", line, end));
      line = end + 1;
      if (entry) yield entry;
    }
    rest = data.subarray(line);
    await breathe();
  }
}
