/** Bytes produced by the real implementations; ours must read them, and write the same. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  CompoundMessageSchema,
  GossipMessageSchema,
  MessageType,
  TableEventSchema,
} from "#proto/docker/networkdb/networkdb_pb.js";
import { EndpointRecordSchema, PeerRecordSchema, PortConfig_Protocol } from "#proto/docker/networkdb/records_pb.js";
import { Keyring } from "../../../src/gossip/memberlist/crypto.ts";
import { lzwDecode, lzwEncode } from "../../../src/gossip/memberlist/lzw.ts";
import { decodeMessage, encodeMessage, type Message } from "../../../src/gossip/memberlist/messages.ts";
import {
  decodeCompound,
  decodeCompress,
  encodeCompounds,
  encodeCompress,
  encodeCrc,
  openPacket,
} from "../../../src/gossip/memberlist/packet.ts";
import {
  decodePushPull,
  decodeUserStream,
  encodePushPull,
  encodeUserStream,
} from "../../../src/gossip/memberlist/pushpull.ts";
import { openStream } from "../../../src/gossip/memberlist/stream.ts";
import { type DbMessage, decodeDb, encodeDb, type TableMessage } from "../../../src/gossip/networkdb/messages.ts";
import { seeded } from "./harness.ts";

const hex = (text: string) => Buffer.from(text, "hex");
const toHex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const addr = Buffer.from([192, 168, 1, 10]);
const vsn = Buffer.from([1, 5, 2, 0, 0, 0]);
const source = { sourceAddr: addr, sourcePort: 7946, sourceNode: "112233445566" };
const node = "aabbccddeeff";
const from = "112233445566";

const messages: [string, Message][] = [
  [
    "0085a44e6f6465ac616162626363646465656666a55365714e6f01aa536f7572636541646472a4c0a8010aaa536f757263654e6f6465ac313132323333343435353636aa536f75726365506f7274cd1f0a",
    { kind: "ping", seqNo: 1, node, ...source },
  ],
  ["0082a44e6f6465ac616162626363646465656666a55365714e6fcd012c", { kind: "ping", seqNo: 300, node }],
  [
    "0188a44e61636bc3a44e6f6465ac616162626363646465656666a4506f7274cd1f0aa55365714e6f02aa536f7572636541646472a4c0a8010aaa536f757263654e6f6465ac313132323333343435353636aa536f75726365506f7274cd1f0aa6546172676574a4c0a8010a",
    { kind: "indirectPing", seqNo: 2, target: addr, port: 7946, node, nack: true, ...source },
  ],
  ["0b81a55365714e6f02", { kind: "nack", seqNo: 2 }],
  [
    "0383a446726f6dac313132323333343435353636ab496e6361726e6174696f6e01a44e6f6465ac616162626363646465656666",
    { kind: "suspect", incarnation: 1, node, from },
  ],
  [
    "0583a446726f6dac616162626363646465656666ab496e6361726e6174696f6e01a44e6f6465ac616162626363646465656666",
    { kind: "dead", incarnation: 1, node, from: node },
  ],
  [
    "0486a441646472a4c0a8010aab496e6361726e6174696f6e01a44d657461a0a44e6f6465ac616162626363646465656666a4506f7274cd1f0aa356736ea6010502000000",
    { kind: "alive", incarnation: 1, node, addr, port: 7946, meta: Buffer.alloc(0), vsn },
  ],
  ["0d81a54572726f72a178", { kind: "err", error: "x" }],
];

for (const [bytes, message] of messages) {
  test(`memberlist ${message.kind} ${bytes.slice(0, 8)}`, () => {
    assert.equal(toHex(encodeMessage(message)), bytes);
    assert.deepEqual(decodeMessage(hex(bytes)), message);
  });
}

test("memberlist ack: a nil payload reads as empty", () => {
  const bytes = "0282a75061796c6f6164c0a55365714e6f01";
  assert.equal(toHex(encodeMessage({ kind: "ack", seqNo: 1, payload: null })), bytes);
  assert.deepEqual(decodeMessage(hex(bytes)), { kind: "ack", seqNo: 1, payload: Buffer.alloc(0) });
});

test("memberlist push/pull", () => {
  const bytes =
    "0683a44a6f696ec3a54e6f64657301ac5573657253746174654c656e0387a441646472a4c0a8010aab496e6361726e6174696f6e01a44d657461a0a44e616d65ac616162626363646465656666a4506f7274cd1f0aa5537461746500a356736ea6010502000000010203";
  const state = {
    join: true,
    nodes: [{ name: node, addr, port: 7946, meta: Buffer.alloc(0), incarnation: 1, state: "alive" as const, vsn }],
    userState: hex("010203"),
  };
  assert.equal(toHex(encodePushPull(state)), bytes);
  assert.deepEqual(decodePushPull(hex(bytes)), state);
});

test("user message on a stream", () => {
  assert.equal(toHex(encodeUserStream(hex("010203"))), "0881aa557365724d73674c656e03010203");
  assert.equal(toHex(decodeUserStream(hex("0881aa557365724d73674c656e03010203"))), "010203");
});

test("compound", () => {
  const bytes = "0702000200030801080203";
  assert.deepEqual(encodeCompounds([hex("0801"), hex("080203")]).map(toHex), [bytes]);
  assert.deepEqual(decodeCompound(hex(bytes)), { parts: [hex("0801"), hex("080203")], truncated: 0 });
});

test("compress: 20 x 'a'", () => {
  const bytes = "0982a4416c676f00a3427566a900c3081c48b060c180";
  assert.equal(decodeCompress(hex(bytes), 1000).toString(), "a".repeat(20));
  assert.equal(toHex(encodeCompress(Buffer.from("a".repeat(20)))), bytes);
});

test("lzw survives full tables, repetition and noise", () => {
  const random = seeded(1);
  const noise = Buffer.from(Array.from({ length: 40_000 }, () => random() * 256));
  for (const sample of [
    Buffer.alloc(0),
    Buffer.from("x"),
    noise,
    Buffer.alloc(70_000, "ab"),
    noise.map((b) => b & 3),
  ]) {
    assert.deepEqual(lzwDecode(lzwEncode(sample), 100_000), Buffer.from(sample));
  }
});

test("checksum", () => {
  assert.equal(toHex(encodeCrc(hex("08010203"))), "0c4e0daefc08010203");
});

test("sealed packet and stream", () => {
  const ring = new Keyring([Buffer.from("fedcba9876543210"), Buffer.from("0123456789abcdef")]);
  const packet = hex("0154d80a5cb46426f6c20dd093e6d5f4b8b61bf848a47927c4b132ffce35dfc2d0");
  const seen: string[] = [];
  openPacket(ring, packet, (message) => seen.push(toHex(message)), assert.fail);
  assert.deepEqual(seen, ["08010203"]);
  const stream = hex("0a000000210161c37b463c88c521cab22493b43e8dd04ed2a73ff107e2b01857553eb0fb5ecb");
  assert.equal(toHex(openStream(ring, stream.subarray(0, 5), stream.subarray(5))), "08010203");
  const primary = new Keyring([Buffer.from("0123456789abcdef")]);
  assert.equal(toHex(primary.seal(hex("08010203"), undefined, packet.subarray(1, 13))), toHex(packet));
  assert.throws(() => openStream(primary, hex("0a00000022"), stream.subarray(5)), /streamUndecryptable/);
});

const peerRecord = "0a0b31302e302e312e332f3234121130323a34323a30613a30303a30313a30331a0c3139322e3136382e312e3130";
const dbMessages: [string, DbMessage][] = [
  ["08061212080110051a0c616162626363646465656666", { kind: "node", type: "join", ltime: 5n, node }],
  [
    "08011216080110061a0c61616262636364646565666622026e31",
    { kind: "network", type: "join", ltime: 6n, node, networkId: "n1" },
  ],
  [
    `0802125e080110071a0c61616262636364646565666622026e312a126f7665726c61795f706565725f7461626c65320265313a2e${peerRecord}`,
    {
      kind: "table",
      type: "create",
      ltime: 7n,
      owner: node,
      networkId: "n1",
      table: "overlay_peer_table",
      key: "e1",
      value: Uint8Array.from(hex(peerRecord)),
      residualReap: 0,
    },
  ],
  [
    "08031226080912140a026e3110061a0c6161626263636464656566661a0c616162626363646465656666",
    { kind: "pushPull", ltime: 9n, node, networks: [{ networkId: "n1", ltime: 6n, node, leaving: false }] },
  ],
  [
    "0804121a080710011a0c61616262636364646565666622026e312a020805",
    {
      kind: "bulkSync",
      ltime: 7n,
      unsolicited: true,
      ownOnly: false,
      node,
      networks: ["n1"],
      payload: hex("0805"),
    },
  ],
];

for (const [bytes, message] of dbMessages) {
  test(`networkdb ${message.kind}`, () => {
    assert.equal(toHex(encodeDb(message)), bytes);
    const decoded = decodeDb(hex(bytes));
    assert.deepEqual(decoded, message);
  });
}

test("networkdb: what is written without a schema is what the schema writes", () => {
  const wrap = (type: MessageType, data: Uint8Array) =>
    toHex(toBinary(GossipMessageSchema, create(GossipMessageSchema, { type, data })));
  for (let i = 0; i < 300; i++) {
    const event: TableMessage = {
      kind: "table",
      type: (["create", "update", "delete"] as const)[i % 3] ?? "create",
      ltime: i % 7 === 0 ? 0n : BigInt(i) ** BigInt(i % 8),
      owner: "ü".repeat(i % 4),
      networkId: "n".repeat(i % 200),
      table: "t",
      key: "k".repeat(i),
      value: new Uint8Array((i * 37) % 3000).fill(i),
      residualReap: i % 2 === 0 ? 1800 : 0,
    };
    const { ltime: lTime, owner: nodeName, table: tableName, residualReap: residualReapTime } = event;
    const same = { type: (i % 3) + 1, lTime, nodeName, tableName, residualReapTime };
    const { networkId, key, value } = event;
    const record = create(TableEventSchema, { ...same, networkId, key, value });
    assert.equal(toHex(encodeDb(event)), wrap(MessageType.TABLE_EVENT, toBinary(TableEventSchema, record)));
    const messages = Array.from({ length: i % 5 }, (_, n) => new Uint8Array((n * i) % 300).fill(n));
    const many = create(CompoundMessageSchema, { messages: messages.map((payload) => ({ payload })) });
    const expected = wrap(MessageType.COMPOUND, toBinary(CompoundMessageSchema, many));
    assert.equal(toHex(encodeDb({ kind: "compound", messages })), expected);
  }
});

test("peer record", () => {
  const record = { endpointIp: "10.0.1.3/24", endpointMac: "02:42:0a:00:01:03", tunnelEndpointIp: "192.168.1.10" };
  assert.equal(toHex(toBinary(PeerRecordSchema, create(PeerRecordSchema, record))), peerRecord);
  assert.equal(fromBinary(PeerRecordSchema, hex(peerRecord)).tunnelEndpointIp, "192.168.1.10");
});

test("endpoint record", () => {
  const bytes =
    "0a087765622e312e743112037765621a027331220831302e302e312e322a0831302e302e312e333205185020903f3a0177420c303132333435363738396162";
  const record = {
    name: "web.1.t1",
    serviceName: "web",
    serviceId: "s1",
    virtualIp: "10.0.1.2",
    endpointIp: "10.0.1.3",
    ingressPorts: [{ protocol: PortConfig_Protocol.TCP, targetPort: 80, publishedPort: 8080 }],
    aliases: ["w"],
    taskAliases: ["0123456789ab"],
  };
  assert.equal(toHex(toBinary(EndpointRecordSchema, create(EndpointRecordSchema, record))), bytes);
  assert.equal(fromBinary(EndpointRecordSchema, hex(bytes)).ingressPorts[0]?.publishedPort, 8080);
});
