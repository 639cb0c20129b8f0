import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encode, type Packet } from "dns-packet";
import { addressOf, answer } from "../../../../src/network/resolver/answer.ts";
import type { AnswerOptions, NameNetwork, NameRecord, NameView } from "../../../../src/network/resolver/types.ts";
import { answers, codeReply, NXDOMAIN } from "../../../../src/network/resolver/wire.ts";

const record = (...addresses: string[]): NameRecord => ({
  ipv4: addresses.filter((one) => !one.includes(":")),
  ipv6: addresses.filter((one) => one.includes(":")),
});

function network(name: string, names: Record<string, NameRecord>, more: Partial<NameNetwork> = {}): NameNetwork {
  return {
    name,
    lookup: (one) => names[one],
    reverse: (address) => {
      const found = Object.entries(names).find(([, { ipv4, ipv6 }]) => [...ipv4, ...ipv6].includes(address));
      return found && `${found[0]}.${name}`;
    },
    ...more,
  };
}

const viewOf = (...networks: NameNetwork[]): NameView => ({ networks: () => networks });

const view = viewOf(
  network("backend", {
    web: record("10.0.1.2"),
    "tasks.web": record("10.0.1.3", "10.0.1.4", "10.0.1.5"),
    both: record("10.0.1.9", "fd00::9"),
    "dotted.name": record("10.0.1.10"),
  }),
  network("Local.Net", { web: record("172.20.0.2"), db: record("172.20.0.3"), six: record("fd01::6") }),
);

const question = (name: string, type = "A", more: Partial<Packet> = {}) =>
  encode({ type: "query", id: 77, flags: 256, questions: [{ type: type as "A", name }], ...more });

function ttlOf({ answers }: Packet): number | undefined {
  const [first] = answers ?? [];
  return first && "ttl" in first ? first.ttl : undefined;
}

function ask(name: string, type = "A", options: AnswerOptions = {}, of = view) {
  const result = answer(question(name, type), of, { random: () => 0.999, ...options });
  if (result.kind !== "reply") return result.kind;
  const packet = decode(result.message);
  assert.equal(packet.id, 77);
  assert.equal(packet.questions?.[0]?.name, name);
  return (packet.answers ?? []).map((one) => ("data" in one ? String(one.data) : ""));
}

test("names are found as Docker finds them", () => {
  assert.deepEqual(ask("web"), ["10.0.1.2"], "the first network wins");
  assert.deepEqual(ask("WeB"), ["10.0.1.2"]);
  assert.deepEqual(ask("db"), ["172.20.0.3"]);
  assert.deepEqual(ask("web.local.net"), ["172.20.0.2"], "qualified by a network, in any case");
  assert.deepEqual(ask("tasks.web.backend").length, 3);
  assert.deepEqual(ask("dotted.name"), ["10.0.1.10"]);
  assert.deepEqual(ask("dotted.name.backend"), ["10.0.1.10"]);
  assert.equal(ask("web.other"), "forward");
  assert.equal(ask("nothing"), "forward");
  assert.equal(ask("example.com", "TXT"), "forward");
});

test("a known name without the wanted family, or of another type, is an empty answer, not somebody else's", () => {
  assert.deepEqual(ask("web", "AAAA"), []);
  assert.deepEqual(ask("six", "A"), []);
  assert.deepEqual(ask("both", "AAAA"), ["fd00::9"]);
  assert.deepEqual(ask("web", "MX"), []);
  assert.deepEqual(ask("web", "TXT"), []);
  assert.deepEqual(ask("both", "ANY"), ["10.0.1.9", "fd00::9"]);
});

test("a network with the wanted family is preferred to an earlier one without", () => {
  const two = viewOf(network("a", { x: record("fd00::1") }), network("b", { x: record("10.0.0.1") }));
  assert.deepEqual(ask("x", "A", {}, two), ["10.0.0.1"]);
  assert.deepEqual(ask("x", "AAAA", {}, two), ["fd00::1"]);
});

test("a sandbox's own aliases come first and hide the name's bearer", () => {
  const aliased = viewOf(
    network(
      "a",
      { db: record("10.0.0.1"), real: record("10.0.0.2") },
      { alias: (n) => (n === "db" ? "real" : undefined) },
    ),
  );
  assert.deepEqual(ask("db", "A", {}, aliased), ["10.0.0.2"]);
  assert.deepEqual(ask("db.a", "A", {}, aliased), ["10.0.0.2"]);
});

test("reverse names", () => {
  assert.deepEqual(ask("2.1.0.10.in-addr.arpa", "PTR"), ["web.backend"]);
  assert.equal(ask("1.1.1.1.in-addr.arpa", "PTR"), "forward");
  const six = "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
  assert.deepEqual(ask(six, "PTR"), ["both.backend"]);
  assert.equal(addressOf("1.2.3.in-addr.arpa"), undefined);
  assert.equal(addressOf("256.2.3.4.in-addr.arpa"), undefined);
  assert.equal(addressOf("web"), undefined);
});

test("several addresses come in random order and each order can come", () => {
  const seen = new Set<string>();
  let seed = 1;
  const random = () => {
    seed = (seed * 48271) % 2147483647;
    return seed / 2147483647;
  };
  for (let i = 0; i < 200; i++) seen.add(String(ask("tasks.web", "A", { random })));
  assert.equal(seen.size, 6);
});

test("SRV gives targets with their addresses", () => {
  const srv = viewOf(
    network(
      "a",
      { db: record("10.0.0.1") },
      { srv: (n) => (n === "_pg._tcp" ? [{ target: "db", port: 5432 }] : undefined) },
    ),
  );
  const result = answer(question("_pg._tcp", "SRV"), srv);
  assert.ok(result.kind === "reply");
  const packet = decode(result.message);
  assert.deepEqual(packet.answers?.[0], {
    name: "_pg._tcp",
    type: "SRV",
    ttl: 5,
    class: "IN",
    flush: false,
    data: { priority: 0, weight: 0, port: 5432, target: "db" },
  });
  assert.equal(packet.additionals?.[0]?.name, "db");
});

test("header, TTL and EDNS of an answer", () => {
  const plain = answer(question("web"), view);
  assert.ok(plain.kind === "reply");
  const packet = decode(plain.message);
  assert.deepEqual(
    [packet.flag_qr, packet.flag_rd, packet.flag_ra, packet.flag_aa, packet.flag_tc],
    [true, true, true, false, false],
  );
  assert.equal(ttlOf(packet), 5);
  assert.deepEqual(packet.additionals, []);
  const opt = question("web", "A", {
    additionals: [
      {
        type: "OPT",
        name: ".",
        udpPayloadSize: 1232,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: 0,
        flag_do: false,
        options: [],
      },
    ],
  });
  const edns = answer(opt, view, { ttl: 30 });
  assert.ok(edns.kind === "reply");
  const withOpt = decode(edns.message);
  assert.equal(ttlOf(withOpt), 30);
  assert.equal(withOpt.additionals?.[0]?.type, "OPT");
});

test("what does not fit 512 bytes, or what EDNS allows, is truncated and says so; TCP carries all", () => {
  const many = record(...Array.from({ length: 100 }, (_, i) => `10.0.2.${i}`));
  const large = viewOf(network("n", { many }));
  const size = (query: Buffer, options: AnswerOptions = {}) => {
    const result = answer(query, large, options);
    assert.ok(result.kind === "reply");
    const packet = decode(result.message);
    return [result.message.length <= 512, packet.flag_tc, packet.answers?.length];
  };
  assert.deepEqual(size(question("many")), [true, true, 30]);
  assert.deepEqual(size(question("many"), { transport: "tcp" }), [false, false, 100]);
  const edns = question("many", "A", {
    additionals: [
      {
        type: "OPT",
        name: ".",
        udpPayloadSize: 4096,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: 0,
        flag_do: false,
        options: [],
      },
    ],
  });
  assert.deepEqual(size(edns), [false, false, 100]);
});

test("single labels stay inside when the user set ndots", () => {
  assert.deepEqual(ask("nothing", "A", { ndots: 1 }), []);
  assert.equal(ask("nothing.example", "A", { ndots: 1 }), "forward");
  assert.equal(ask("nothing", "TXT", { ndots: 1 }), "forward");
});

test("what is no proper question gets the code for it, or silence", () => {
  const rcode = (message: Buffer) => {
    const result = answer(message, view);
    return result.kind === "reply" ? result.message.readUInt16BE(2) & 0xf : result.kind;
  };
  assert.equal(rcode(Buffer.alloc(11)), "drop");
  assert.equal(rcode(encode({ type: "response", id: 1, questions: [{ type: "A", name: "web" }] })), "drop");
  assert.equal(rcode(encode({ type: "query", id: 1, questions: [] })), 1);
  assert.equal(rcode(encode({ type: "query", id: 1, flags: 5 << 11, questions: [{ type: "A", name: "web" }] })), 4);
  assert.equal(rcode(question("web").subarray(0, 15)), 1);
  assert.equal(rcode(question("web", "A", { questions: [{ type: "A", name: "web", class: "CH" }] })), "forward");
});

test("code replies keep the question and are recognised as its answer", () => {
  const query = question("gone.example");
  const reply = codeReply(query, NXDOMAIN);
  assert.equal(decode(reply).questions?.[0]?.name, "gone.example");
  assert.equal((decode(reply) as { rcode?: string }).rcode, "NXDOMAIN");
  assert.ok(answers(reply, query));
  assert.ok(!answers(reply, question("other.example")));
  assert.ok(!answers(query, query));
});

test("no bytes make it throw, and every reply to them can be read", () => {
  let seed = 20260101;
  const next = (limit: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % limit;
  };
  const base = question("tasks.web.backend", "A", {
    additionals: [
      {
        type: "OPT",
        name: ".",
        udpPayloadSize: 1232,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: 0,
        flag_do: false,
        options: [],
      },
    ],
  });
  const kinds = new Set<string>();
  for (let round = 0; round < 20_000; round++) {
    const bytes = round % 2 ? Buffer.from(base) : Buffer.from(Array.from({ length: next(80) }, () => next(256)));
    if (round % 2) for (let i = next(4); i >= 0; i--) bytes[next(bytes.length)] = next(256);
    const cut = round % 3 === 0 ? bytes.subarray(0, next(bytes.length + 1)) : bytes;
    const result = answer(cut, view);
    kinds.add(result.kind);
    if (result.kind !== "reply") continue;
    assert.equal(result.message.readUInt16BE(0), cut.readUInt16BE(0));
    assert.ok(result.message.readUInt16BE(2) & 0x8000);
    assert.ok(result.message.length <= 4096);
    decode(result.message);
  }
  assert.deepEqual([...kinds].sort(), ["drop", "forward", "reply"]);
});
