/** Reads back what was logged: all of it or the last lines, without loading a file whole. */
import { closeSync, readSync } from "node:fs";
import { setImmediate as breathe } from "node:timers/promises";
import type { LogEntry } from "../types.ts";
import { openSnapshot } from "./files.ts";
import { decodeEntry } from "./format.ts";

const BLOCK = 64 * 1024;
const NEWLINE = 0x0a;

type Snapshot = { fd: number; size: number }[];

/** Where the last `count` lines begin: offset per file, the end of the file for those left out. */
function tailOffsets(files: Snapshot, count: number): number[] {
  const offsets = files.map((file) => file.size);
  let missing = count;
  const block = Buffer.alloc(BLOCK);
  for (let index = files.length - 1; index >= 0 && missing > 0; index--) {
    const file = files[index];
    if (!file) continue;
    let at = file.size;
    let found: number | undefined;
    while (at > 0 && found === undefined) {
      const from = Math.max(0, at - BLOCK);
      const got = readSync(file.fd, block, 0, at - from, from);
      for (let i = got - 1; i >= 0; i--) {
        // The newline at the very end closes the last line; each one before it opens a counted line.
        if (block[i] !== NEWLINE || from + i === file.size - 1) continue;
        if (--missing === 0) {
          found = from + i + 1;
          break;
        }
      }
      at = from;
    }
    if (found === undefined && file.size > 0) missing--;
    offsets[index] = found ?? 0;
  }
  return offsets;
}

/**
 * The entries of a log as it is now. The files are opened before this returns, so that a follower who subscribes in the
 * same turn neither misses nor repeats a line.
 */
export function readEntries(path: string, tail: number | undefined): AsyncIterable<LogEntry> {
  const files = openSnapshot(path);
  const offsets = tail === undefined ? files.map(() => 0) : tailOffsets(files, tail);
  return (async function* () {
    try {
      for (const [index, file] of files.entries()) yield* entriesOf(file, offsets[index] ?? 0);
    } finally {
      for (const file of files) closeSync(file.fd);
    }
  })();
}

async function* entriesOf(file: Snapshot[number], start: number): AsyncGenerator<LogEntry> {
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
