import assert from "node:assert/strict";
import { test } from "node:test";
import { decode, encode } from "dns-packet";
import { VirtualClock } from "../../../../src/base/clock.ts";
import { nullLogger } from "../../../../src/base/log.ts";
import { type Ask, Forwarder } from "../../../../src/network/resolver/forwarder.ts";
import { Framer, frame } from "../../../../src/network/resolver/framing.ts";
import { codeReply } from "../../../../src/network/resolver/wire.ts";

const query = encode({ type: "query", id: 9, flags: 256, questions: [{ type: "A", name: "example.com" }] });
const rcode = (message: Buffer) => message.readUInt16BE(2) & 0xf;

function forwarder(ask: Ask, upstreams = ["1", "2", "3", "4"]) {
  const clock = new VirtualClock();
  const result = new Forwarder(ask, nullLogger, clock);
  result.setUpstreams(upstreams.map((address) => ({ address })));
  return { clock, result };
}

const silent: Ask = (_upstream, _query, _transport, signal) =>
  new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

test("without an upstream the answer is NXDOMAIN at once", async () => {
  const { result } = forwarder(silent, []);
  const reply = await result.forward(query, "udp");
  assert.equal(rcode(reply), 3);
  assert.equal(decode(reply).questions?.[0]?.name, "example.com");
});

test("SERVFAIL and REFUSED go on to the next server, NXDOMAIN is an answer", async () => {
  const asked: string[] = [];
  const codes: Record<string, number> = { 1: 2, 2: 5, 3: 3 };
  const { result } = forwarder(async ({ address }) => {
    asked.push(address);
    return codeReply(query, codes[address] ?? 0);
  });
  assert.equal(rcode(await result.forward(query, "udp")), 3);
  assert.deepEqual(asked, ["1", "2", "3"]);
});

test("three silent servers cost twelve seconds and end in SERVFAIL; a fourth is never asked", async () => {
  const asked: string[] = [];
  const { clock, result } = forwarder((...args) => {
    asked.push(args[0].address);
    return silent(...args);
  });
  let reply: Buffer | undefined;
  void result.forward(query, "udp").then((message) => {
    reply = message;
  });
  await clock.advanceAsync(11_999);
  assert.equal(reply, undefined);
  await clock.advanceAsync(1);
  assert.ok(reply);
  assert.equal(rcode(reply), 2);
  assert.deepEqual(asked, ["1", "2", "3"]);
  assert.equal(result.pending, 0);
});

test("a silent server costs four seconds once, and is tried first again after a while", async () => {
  const asked: string[] = [];
  const { clock, result } = forwarder(
    (...args) => {
      asked.push(args[0].address);
      return args[0].address === "1" ? silent(...args) : Promise.resolve(codeReply(query, 3));
    },
    ["1", "2"],
  );
  const first = result.forward(query, "udp");
  await clock.advanceAsync(4000);
  assert.equal(rcode(await first), 3);
  assert.equal(rcode(await result.forward(query, "udp")), 3, "without any time passing");
  assert.deepEqual(asked, ["1", "2", "2"]);
  await clock.advanceAsync(15_000);
  const later = result.forward(query, "udp");
  await clock.advanceAsync(4000);
  await later;
  assert.deepEqual(asked, ["1", "2", "2", "1", "2"]);
});

test("no more than 1024 questions wait; the rest fail at once; closing ends all", async () => {
  const { result } = forwarder(silent);
  const waiting = Array.from({ length: 1024 }, () => result.forward(query, "udp"));
  assert.equal(result.pending, 1024);
  assert.equal(rcode(await result.forward(query, "udp")), 2);
  result.close();
  assert.ok((await Promise.all(waiting)).every((message) => rcode(message) === 2));
});

test("a stream of framed messages is taken apart however it is cut", () => {
  const messages = [Buffer.from("one"), Buffer.alloc(300, 7), Buffer.from("three")];
  const stream = Buffer.concat(messages.map(frame));
  for (const size of [1, 2, 3, 50, stream.length]) {
    const framer = new Framer();
    const got: Buffer[] = [];
    for (let at = 0; at < stream.length; at += size) got.push(...framer.push(stream.subarray(at, at + size)));
    assert.deepEqual(got, messages);
  }
});
