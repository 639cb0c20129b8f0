/** What to say to a question: pure, from the bytes of the question and what is known by name. */
import { encode as encodePacket, type Packet, type Answer as PacketAnswer } from "dns-packet";
import { fromBytes, toBytes } from "../../kernel/inet.ts";
import { lookup, srvOf } from "./lookup.ts";
import type { Answer, AnswerOptions, NameRecord, NameView } from "./types.ts";
import * as wire from "./wire.ts";

const DEFAULT_TTL = 5;
/** A TCP message's length has two bytes. */
const LARGEST_TCP = 65535;

export function answer(query: Buffer, view: NameView, options: AnswerOptions = {}): Answer {
  const parsed = wire.parse(query);
  if (parsed.kind === "noise") return { kind: "drop" };
  if (parsed.kind === "bad") return { kind: "reply", message: wire.codeReply(query, parsed.rcode) };
  const { question } = parsed;
  if (!question.internet || question.name === "") return { kind: "forward" };
  const limit = options.transport === "tcp" ? LARGEST_TCP : question.udpSize;
  const ttl = options.ttl ?? DEFAULT_TTL;
  const send = (records: readonly Buffer[]): Answer => ({
    kind: "reply",
    message: wire.reply(query, question, records, ttl, limit),
  });

  if (question.type === wire.PTR) {
    const name = reverse(question.name, view);
    return name === undefined ? { kind: "forward" } : send([wire.record(wire.PTR, nameBytes(name))]);
  }
  if (question.type === wire.SRV) {
    const reply = srvReply(query, question, view, ttl, limit, options.random ?? Math.random);
    if (reply) return { kind: "reply", message: reply };
  }
  const found = lookup(question.name, question.type, view);
  if (found) return send(shuffle(recordsOf(found, question.type), options.random ?? Math.random));
  // The user wants single labels completed by the search list before anybody outside hears of them.
  const single = !question.name.includes(".");
  if (single && (options.ndots ?? 0) > 0 && (question.type === wire.A || question.type === wire.AAAA)) return send([]);
  return { kind: "forward" };
}

interface Encoded {
  readonly a: readonly Buffer[];
  readonly aaaa: readonly Buffer[];
}

/** Records never change, so their bytes are made once. */
const encodings = new WeakMap<NameRecord, Encoded>();

function encoded(record: NameRecord): Encoded {
  let bytes = encodings.get(record);
  if (!bytes) {
    bytes = {
      a: record.ipv4.map((address) => wire.record(wire.A, toBytes(address))),
      aaaa: record.ipv6.map((address) => wire.record(wire.AAAA, toBytes(address))),
    };
    encodings.set(record, bytes);
  }
  return bytes;
}

/** None for the types that a container's name has not: the name exists, so nobody else is asked. */
function recordsOf(record: NameRecord, type: number): readonly Buffer[] {
  switch (type) {
    case wire.A:
      return encoded(record).a;
    case wire.AAAA:
      return encoded(record).aaaa;
    case wire.ANY:
      return [...encoded(record).a, ...encoded(record).aaaa];
    default:
      return [];
  }
}

function shuffle<T>(items: readonly T[], random: () => number): readonly T[] {
  if (items.length < 2) return items;
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    const swap = result[i] as T;
    result[i] = result[j] as T;
    result[j] = swap;
  }
  return result;
}

function reverse(name: string, view: NameView): string | undefined {
  const address = addressOf(name);
  if (address === undefined) return undefined;
  for (const network of view.networks()) {
    const found = network.reverse(address);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The address that a reverse name is about. */
export function addressOf(name: string): string | undefined {
  if (name.endsWith(".in-addr.arpa")) {
    const parts = name.slice(0, -".in-addr.arpa".length).split(".").reverse();
    const valid = parts.length === 4 && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256);
    return valid ? parts.map(Number).join(".") : undefined;
  }
  if (name.endsWith(".ip6.arpa")) {
    const digits = name.slice(0, -".ip6.arpa".length).split(".").reverse();
    if (digits.length !== 32 || !digits.every((digit) => /^[0-9a-f]$/.test(digit))) return undefined;
    return fromBytes(Buffer.from(digits.join(""), "hex"));
  }
  return undefined;
}

/** Labels longer than DNS allows cannot be asked for, and are cut here rather than spoiling the message. */
function nameBytes(name: string): Buffer {
  const labels = name.split(".").filter((label) => label !== "");
  const parts = labels.map((label) => {
    const bytes = Buffer.from(label, "latin1").subarray(0, 63);
    return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  });
  return Buffer.concat([...parts, Buffer.from([0])]);
}

/** Targets with their addresses, so that no second question is needed. */
function srvReply(
  query: Buffer,
  question: wire.Question,
  view: NameView,
  ttl: number,
  limit: number,
  random: () => number,
) {
  const known = srvOf(question.name, view);
  if (!known) return undefined;
  const targets = shuffle(known, random);
  const name = question.name;
  const additionals: PacketAnswer[] = [];
  for (const { target } of targets) {
    const record = lookup(target.toLowerCase(), wire.A, view);
    for (const data of record?.ipv4 ?? []) additionals.push({ type: "A", name: target, ttl, data });
    for (const data of record?.ipv6 ?? []) additionals.push({ type: "AAAA", name: target, ttl, data });
  }
  const packet: Packet = {
    type: "response",
    id: query.readUInt16BE(0),
    flags: (query.readUInt16BE(2) & 0x0100) | 0x0080,
    questions: [{ type: "SRV", name }],
    answers: targets.map(({ target, port }) => ({
      type: "SRV",
      name,
      ttl,
      data: { target, port, priority: 0, weight: 0 },
    })),
    additionals,
  };
  const full = encodePacket(packet);
  if (full.length <= limit) return full;
  const bare = encodePacket({ ...packet, additionals: [] });
  if (bare.length <= limit) return bare;
  return encodePacket({ ...packet, flags: (packet.flags ?? 0) | 0x0200, answers: [], additionals: [] });
}
