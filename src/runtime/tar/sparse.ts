/**
 * Files with holes: only their pieces are in the archive. Where each belongs is said
 *
 *   kind S        in the header's block and blocks after it (GNU)
 *   PAX 0.0, 0.1  in the extended records
 *   PAX 1.0       at the beginning of the file's data, as decimal lines
 */
import { invalid } from "../../base/errors.ts";
import { BLOCK, number } from "./header.ts";
import type { PaxRecord } from "./pax.ts";

export interface Piece {
  readonly offset: number;
  readonly length: number;
}

export interface Sparse {
  readonly pieces: readonly Piece[];
  /** Bytes of the file, holes included. */
  readonly size: number;
}

/** An archive shall not fill the memory with its map. */
const MAX_PIECES = 200_000;

const bad = (why: string) => invalid(`invalid tar header: sparse file: ${why}`);

/** Pieces in order, none beyond the end, together as long as what is in the archive. */
export function checked(pieces: readonly Piece[], size: number, data: number): Sparse {
  let end = 0;
  let total = 0;
  for (const { offset, length } of pieces) {
    if (offset < end || length < 0 || offset + length > size) throw bad("pieces overlap or lie outside");
    end = offset + length;
    total += length;
  }
  if (total !== data) throw bad("its pieces are not as long as its data");
  return { pieces: pieces.filter(({ length }) => length > 0), size };
}

function paired(numbers: readonly number[]): Piece[] {
  if (numbers.length % 2 !== 0) throw bad("odd map");
  if (numbers.length > 2 * MAX_PIECES) throw bad("too many pieces");
  const pieces: Piece[] = [];
  for (let at = 0; at < numbers.length; at += 2) {
    pieces.push({ offset: numbers[at] ?? 0, length: numbers[at + 1] ?? 0 });
  }
  return pieces;
}

const decimal = (text: string): number => {
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) throw bad("no number in its map");
  return value;
};

/** GNU's own: four pieces in the header, 21 in each block after it. */
export async function oldSparse(
  header: Buffer,
  next: () => Promise<Buffer>,
): Promise<{ pieces: readonly Piece[]; size: number }> {
  const numbers: number[] = [];
  const take = (block: Buffer, from: number, count: number) => {
    for (let at = from; at < from + 24 * count; at += 24) {
      if (block[at] === 0) return;
      numbers.push(number(block.subarray(at, at + 12), "sparse map"));
      numbers.push(number(block.subarray(at + 12, at + 24), "sparse map"));
    }
  };
  take(header, 386, 4);
  for (let more = header[482] === 1; more; ) {
    if (numbers.length > 2 * MAX_PIECES) throw bad("too many pieces");
    const block = await next();
    take(block, 0, 21);
    more = block[504] === 1;
  }
  return { pieces: paired(numbers), size: number(header.subarray(483, 495), "real size") };
}

/** A map that lies in the extended records; undefined where there is none. */
export function recordedPieces(records: readonly PaxRecord[]): Piece[] | undefined {
  const map = records.findLast(([key]) => key === "GNU.sparse.map")?.[1].toString("latin1");
  if (map !== undefined) return paired(map === "" ? [] : map.split(",").map(decimal));
  const each = records.filter(([key]) => key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes");
  const counted = records.some(([key]) => key === "GNU.sparse.numblocks");
  return counted ? paired(each.map(([, value]) => decimal(value.toString("latin1")))) : undefined;
}

/** The map at the beginning of the data, with the bytes that it takes there. */
export async function leadingPieces(next: () => Promise<Buffer>): Promise<{ pieces: Piece[]; taken: number }> {
  const numbers: number[] = [];
  let line = "";
  let wanted = 1;
  let taken = 0;
  while (numbers.length < wanted) {
    const block = await next();
    taken += BLOCK;
    const lines = (line + block.toString("latin1")).split("\n");
    line = lines.pop() ?? "";
    if (line.length > BLOCK && numbers.length + lines.length < wanted) throw bad("no number in its map");
    for (const text of lines) {
      if (numbers.length === wanted) break;
      numbers.push(decimal(text));
      if (numbers.length === 1) wanted = 1 + 2 * (numbers[0] ?? 0);
      if (wanted > 1 + 2 * MAX_PIECES) throw bad("too many pieces");
    }
  }
  return { pieces: paired(numbers.slice(1)), taken };
}
