/**
 * Hostile bytes: nothing that comes from the network may throw, hang or blow up memory. Seeded; a second of it in
 * the suite, GOSSIP_FUZZ_SECONDS=n for longer.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { nullLogger } from "../../../src/base/log.ts";
import { createGossip } from "../../../src/gossip/gossip.ts";
import { keyRing } from "../../../src/gossip/keys.ts";
import { Keyring } from "../../../src/gossip/memberlist/crypto.ts";
import { lzwDecode, lzwEncode } from "../../../src/gossip/memberlist/lzw.ts";
import { encodeMessage } from "../../../src/gossip/memberlist/messages.ts";
import { encodeCompounds, encodeCompress, openPacket, sealPacket } from "../../../src/gossip/memberlist/packet.ts";
import { decodePushPull, encodePushPull, encodeUserStream } from "../../../src/gossip/memberlist/pushpull.ts";
import { sealStream } from "../../../src/gossip/memberlist/stream.ts";
import { encodeDb } from "../../../src/gossip/networkdb/messages.ts";
import type { GossipStream, Transport } from "../../../src/gossip/types.ts";
import { Cluster, seeded, testKeys } from "./harness.ts";

const budgetMs = Number(process.env.GOSSIP_FUZZ_SECONDS ?? 0.8) * 1000;
const ring = new Keyring(keyRing(testKeys));
const addr = Buffer.from([10, 0, 0, 9]);
const vsn = Buffer.from([1, 5, 2, 0, 0, 0]);
const table = {
  kind: "table",
  type: "create",
  ltime: 7n,
  owner: "evil",
  networkId: "n",
  table: "t",
  key: "k",
  value: Buffer.from("value"),
  residualReap: 0,
} as const;
const user = (message: Uint8Array) => Buffer.concat([Buffer.from([8]), message]);
const compound = encodeDb({ kind: "compound", messages: [encodeDb(table)] });

/** Well-formed messages, to be damaged. */
const seeds: Buffer[] = [
  encodeMessage({ kind: "ping", seqNo: 1, node: "", sourceAddr: addr, sourcePort: 7946, sourceNode: "evil" }),
  encodeMessage({ kind: "indirectPing", seqNo: 1, target: addr, port: 7946, node: "x", nack: true }),
  encodeMessage({ kind: "ack", seqNo: 1, payload: addr }),
  encodeMessage({ kind: "nack", seqNo: 1 }),
  encodeMessage({ kind: "alive", incarnation: 1, node: "evil", addr, port: 7946, meta: addr, vsn }),
  encodeMessage({ kind: "suspect", incarnation: 1, node: "evil", from: "x" }),
  encodeMessage({ kind: "dead", incarnation: 1, node: "evil", from: "x" }),
  encodeCompress(Buffer.alloc(300, "abc")),
  ...encodeCompounds([user(compound), encodeMessage({ kind: "nack", seqNo: 1 })]),
  user(encodeDb({ kind: "node", type: "join", ltime: 3n, node: "evil" })),
  user(encodeDb({ kind: "network", type: "join", ltime: 3n, node: "evil", networkId: "n" })),
  user(encodeDb(table)),
  user(
    encodeDb({
      kind: "bulkSync",
      ltime: 3n,
      unsolicited: true,
      ownOnly: false,
      node: "evil",
      networks: ["n"],
      payload: compound,
    }),
  ),
  encodePushPull({
    join: true,
    nodes: [{ name: "evil", addr, port: 7946, meta: addr, incarnation: 1, state: "alive", vsn }],
    userState: encodeDb({
      kind: "pushPull",
      ltime: 3n,
      node: "evil",
      networks: [{ networkId: "n", ltime: 3n, node: "evil", leaving: false }],
    }),
  }),
  encodeUserStream(compound),
];

function damage(bytes: Buffer, random: () => number): Buffer {
  const out = Buffer.from(bytes);
  const at = () => Math.floor(random() * out.length);
  for (let hits = 1 + Math.floor(random() * 4); hits > 0; hits--) {
    const dice = random();
    if (dice < 0.4) out[at()] = random() * 256;
    else if (dice < 0.6) out[at()] = [0xff, 0x00, 0xdf, 0xdd, 0xdb, 0xcf, 0x80, 0x7f][Math.floor(random() * 8)] ?? 0;
    else if (dice < 0.8) out.copyWithin(at(), at());
    else return out.subarray(0, at());
  }
  return out;
}

test("damaged messages, sealed with the right key, are survived by a whole node", {
  timeout: 600_000,
}, async (context) => {
  const random = seeded(Number(process.env.GOSSIP_SEED ?? 42));
  await using cluster = new Cluster(1);
  let packet: (bytes: Buffer) => void = () => {};
  let stream: (stream: GossipStream) => void = () => {};
  const transport: Transport = {
    address: "10.0.0.1",
    port: 7946,
    send() {},
    onPacket(listener) {
      packet = (bytes) => listener(bytes, "10.0.0.9", 7946);
    },
    onStream(listener) {
      stream = (opened) => listener(opened, "10.0.0.9");
    },
    dial: () => Promise.reject(new Error("nobody there")),
    async [Symbol.asyncDispose]() {},
  };
  await using gossip = await createGossip({
    bindAddress: "10.0.0.1",
    advertiseAddress: "10.0.0.1",
    keys: testKeys,
    log: nullLogger,
    clock: cluster.clock,
    random,
    transport,
  });
  gossip.joinNetwork("n");
  let failures = 0;
  const onFailure = () => failures++;
  process.on("unhandledRejection", onFailure);
  const end = Date.now() + budgetMs;
  let rounds = 0;
  for (; Date.now() < end; rounds++) {
    const whole = seeds[Math.floor(random() * seeds.length)] ?? Buffer.alloc(0);
    const bytes = random() < 0.1 ? whole : damage(whole, random);
    packet(sealPacket(ring, bytes, random() < 0.5));
    packet(damage(sealPacket(ring, whole, true), random));
    stream(streamOf(random() < 0.8 ? sealStream(ring, bytes) : damage(sealStream(ring, whole), random)));
    if (rounds % 50 === 0) await cluster.pass(random());
  }
  await cluster.pass(1);
  process.off("unhandledRejection", onFailure);
  assert.equal(failures, 0);
  const stats = gossip.stats();
  assert.ok((stats["dropped.malformed"] ?? 0) > 0 && (stats["dropped.undecryptable"] ?? 0) > 0, JSON.stringify(stats));
  context.diagnostic(`${rounds * 3} inputs`);
  assert.ok(rounds > 50, `${rounds} rounds`);
});

function streamOf(bytes: Buffer): GossipStream {
  let at = 0;
  return {
    async write() {},
    async read(length) {
      if (at + length > bytes.length) throw new Error("ended");
      at += length;
      return bytes.subarray(at - length, at);
    },
    close() {},
  };
}

function nothing(message: Buffer): void {
  assert.fail(`accepted ${message.toString("hex", 0, 20)}`);
}

test("an LZW bomb is refused before it is large", () => {
  const bomb = lzwEncode(Buffer.alloc(10 << 20));
  assert.ok(bomb.length < 1 << 15);
  assert.throws(() => lzwDecode(bomb, 1 << 20), /too large/);
  let dropped = "";
  openPacket(ring, ring.seal(encodeCompress(Buffer.alloc(10 << 20))), nothing, (reason) => {
    dropped = reason;
  });
  assert.equal(dropped, "malformed");
});

test("messages nested too deep are refused", () => {
  let bytes: Buffer = Buffer.from([8, 1]);
  for (let i = 0; i < 6; i++) bytes = encodeCompounds([bytes])[0] ?? bytes;
  const drops: string[] = [];
  openPacket(ring, ring.seal(bytes), nothing, (reason) => drops.push(reason));
  assert.deepEqual(drops, ["malformed"]);
});

test("a push/pull that promises more than it has is refused", () => {
  const state = encodePushPull({ join: false, nodes: [], userState: Buffer.alloc(10) });
  assert.throws(() => decodePushPull(state.subarray(0, -1)), /truncated/);
});

test("random bytes never decompress to more than asked for, and never hang", () => {
  const random = seeded(7);
  for (let i = 0; i < 300; i++) {
    const noise = Buffer.from(Array.from({ length: 1 + Math.floor(random() * 200) }, () => random() * 256));
    try {
      assert.ok(lzwDecode(noise, 5000).length <= 5000);
    } catch (error) {
      assert.ok(error instanceof RangeError, String(error));
    }
  }
});
