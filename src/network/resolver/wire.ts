/**
 * The part of DNS's wire format that nearly every question and answer is made of, by hand: a header of twelve
 * bytes, one question, addresses. Whatever is rarer goes through dns-packet.
 */

export const A = 1;
export const PTR = 12;
export const SRV = 33;
export const AAAA = 28;
export const OPT = 41;
export const ANY = 255;
const CLASS_IN = 1;

export const NOERROR = 0;
const FORMERR = 1;
export const SERVFAIL = 2;
export const NXDOMAIN = 3;
const NOTIMP = 4;
export const REFUSED = 5;

const QR = 0x8000;
const TC = 0x0200;
const RD = 0x0100;
const RA = 0x0080;
const OPCODE = 0x7800;

/** The largest UDP answer that we send: what fits every path unfragmented is all that ours ever need. */
const LARGEST_UDP = 4096;
const SMALLEST_UDP = 512;

export interface Question {
  /** Lower case, without the final dot; "" for the root. */
  readonly name: string;
  readonly type: number;
  /** Class IN or ANY. */
  readonly internet: boolean;
  /** Where the question section ends. */
  readonly end: number;
  /** The question carries EDNS0. */
  readonly edns: boolean;
  /** What an answer over UDP may measure. */
  readonly udpSize: number;
}

export type Parsed =
  | { readonly kind: "question"; readonly question: Question }
  /** To be refused with this code. */
  | { readonly kind: "bad"; readonly rcode: number }
  | { readonly kind: "noise" };

/** Reads a message as a question. Never throws, whatever the bytes. */
export function parse(query: Buffer): Parsed {
  if (query.length < 12) return { kind: "noise" };
  const flags = query.readUInt16BE(2);
  if (flags & QR) return { kind: "noise" };
  if (flags & OPCODE) return { kind: "bad", rcode: NOTIMP };
  if (query.readUInt16BE(4) !== 1) return { kind: "bad", rcode: FORMERR };
  const read = readName(query, 12);
  if (!read || read.end + 4 > query.length) return { kind: "bad", rcode: FORMERR };
  const end = read.end + 4;
  const type = query.readUInt16BE(read.end);
  const class_ = query.readUInt16BE(read.end + 2);
  const payload = ednsPayload(query, end);
  return {
    kind: "question",
    question: {
      name: read.name,
      type,
      internet: class_ === CLASS_IN || class_ === ANY,
      end,
      edns: payload !== undefined,
      udpSize: Math.min(LARGEST_UDP, Math.max(SMALLEST_UDP, payload ?? 0)),
    },
  };
}

/** A name of the question section, where nothing is compressed. */
function readName(query: Buffer, start: number): { name: string; end: number } | undefined {
  let at = start;
  let name = "";
  for (;;) {
    const length = query[at];
    if (length === undefined || length > 63 || at - start > 254) return undefined;
    at++;
    if (length === 0) return { name: name.toLowerCase(), end: at };
    if (at + length > query.length) return undefined;
    const label = query.toString("latin1", at, at + length);
    name = name === "" ? label : `${name}.${label}`;
    at += length;
  }
}

/** The payload size of an EDNS0 record that follows the question; undefined without one. */
function ednsPayload(query: Buffer, at: number): number | undefined {
  if (query.readUInt16BE(10) === 0 || query.readUInt32BE(6) !== 0) return undefined;
  if (at + 11 > query.length || query[at] !== 0 || query.readUInt16BE(at + 1) !== OPT) return undefined;
  return query.readUInt16BE(at + 3);
}

/** The EDNS0 record of answers: no options, our own limit. */
const OPT_RECORD = Buffer.from([0, 0, OPT, LARGEST_UDP >> 8, LARGEST_UDP & 0xff, 0, 0, 0, 0, 0, 0]);

/**
 * An answer to `query` of finished records, each of which names the question as `c00c`. Past `limit` bytes
 * records are left out and the answer says that it is truncated.
 */
export function reply(
  query: Buffer,
  question: Question,
  records: readonly Buffer[],
  ttl: number,
  limit: number,
): Buffer {
  let length = question.end + (question.edns ? OPT_RECORD.length : 0);
  let fitting = 0;
  for (const record of records) {
    if (length + record.length > limit) break;
    length += record.length;
    fitting++;
  }
  const message = Buffer.allocUnsafe(length);
  query.copy(message, 0, 0, question.end);
  const truncated = fitting < records.length ? TC : 0;
  message.writeUInt16BE(QR | (query.readUInt16BE(2) & RD) | RA | truncated, 2);
  message.writeUInt16BE(fitting, 6);
  message.writeUInt16BE(0, 8);
  message.writeUInt16BE(question.edns ? 1 : 0, 10);
  let at = question.end;
  for (let i = 0; i < fitting; i++) {
    const record = records[i] as Buffer;
    record.copy(message, at);
    message.writeUInt32BE(ttl, at + 6);
    at += record.length;
  }
  if (question.edns) OPT_RECORD.copy(message, at);
  return message;
}

/** A resource record of the question's own name, its TTL left open. */
export function record(type: number, data: Buffer): Buffer {
  const head = Buffer.from([
    0xc0,
    0x0c,
    type >> 8,
    type & 0xff,
    0,
    CLASS_IN,
    0,
    0,
    0,
    0,
    data.length >> 8,
    data.length & 0xff,
  ]);
  return Buffer.concat([head, data]);
}

/** Nothing but a code. Of an unreadable question only the header is sent back. */
export function codeReply(query: Buffer, rcode: number): Buffer {
  const parsed = parse(query);
  const question = parsed.kind === "question" ? parsed.question : undefined;
  const end = question?.end ?? 12;
  const message = Buffer.concat(question?.edns ? [query.subarray(0, end), OPT_RECORD] : [query.subarray(0, end)]);
  message.writeUInt16BE(QR | (query.readUInt16BE(2) & (RD | OPCODE)) | RA | rcode, 2);
  message.writeUInt16BE(question ? 1 : 0, 4);
  message.writeUInt32BE(0, 6);
  message.writeUInt16BE(question?.edns ? 1 : 0, 10);
  return message;
}

/** The code of a reply; undefined when it is too short to have one. */
export function rcodeOf(message: Buffer): number | undefined {
  return message.length < 12 ? undefined : message.readUInt16BE(2) & 0xf;
}

/** Whether `message` answers `query`, whatever the ids: same question, letter for letter. */
export function answers(message: Buffer, query: Buffer): boolean {
  if (message.length < 12 || !(message.readUInt16BE(2) & QR)) return false;
  const parsed = parse(query);
  // Some servers leave the question out when they refuse.
  if (message.readUInt16BE(4) === 0) return rcodeOf(message) !== NOERROR;
  if (parsed.kind !== "question") return false;
  const { end } = parsed.question;
  return message.length >= end && message.subarray(12, end).equals(query.subarray(12, end));
}
