/** Records of POSIX headers: "length key=value\n" again and again, values being bytes. */
import { invalid } from "../../base/errors.ts";

export type PaxRecord = readonly [key: string, value: Buffer];

const bad = () => invalid("invalid tar header: malformed extended records");

/** In their order: GNU's oldest sparse format says the same key for each piece. */
export function paxRecords(data: Buffer): PaxRecord[] {
  const records: PaxRecord[] = [];
  for (let rest = data; rest.length > 0; ) {
    const space = rest.subarray(0, 12).indexOf(0x20);
    const digits = rest.subarray(0, Math.max(0, space)).toString("latin1");
    const length = Number(digits);
    if (!/^\d+$/.test(digits) || length > rest.length || rest[length - 1] !== 0x0a) throw bad();
    const record = rest.subarray(space + 1, length - 1);
    const equals = record.indexOf(0x3d);
    if (equals < 1) throw bad();
    records.push([record.subarray(0, equals).toString("utf8"), record.subarray(equals + 1)]);
    rest = rest.subarray(length);
  }
  return records;
}

/** A record's number, whole or with a fraction; undefined where there is none. */
export function paxNumber(records: ReadonlyMap<string, Buffer>, key: string): number | undefined {
  const value = records.get(key)?.toString("latin1");
  // An empty value takes away what the header before said.
  if (value === undefined || value === "") return undefined;
  if (!/^-?\d+(\.\d*)?$/.test(value) || !Number.isSafeInteger(Math.trunc(Number(value)))) {
    throw invalid(`invalid tar header: ${key} is no number`);
  }
  return Number(value);
}
