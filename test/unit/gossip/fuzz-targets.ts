/**
 * Everything on 7946 that turns a stranger's bytes into values, as functions of bytes alone. A target throws what its
 * caller catches, and nothing else; what it returns tells one behaviour from another, so that a fuzzer can keep an
 * input of each.
 */
import assert from "node:assert/strict";
import { Keyring } from "../../../src/gossip/memberlist/crypto.ts";
import { lzwDecode, lzwEncode } from "../../../src/gossip/memberlist/lzw.ts";
import { decodeMessage, encodeMessage } from "../../../src/gossip/memberlist/messages.ts";
import { encodeCompounds, encodeCompress, openPacket } from "../../../src/gossip/memberlist/packet.ts";
import {
  decodePushPull,
  decodeUserStream,
  encodePushPull,
  encodeUserStream,
} from "../../../src/gossip/memberlist/pushpull.ts";
import { openStream, StreamError } from "../../../src/gossip/memberlist/stream.ts";
import { type DbMessage, decodeDb, encodeDb } from "../../../src/gossip/networkdb/messages.ts";
import { decodeDoor } from "../../../src/network/overlay/mesh.ts";
import { decodeEndpoint, decodePeer } from "../../../src/network/overlay/records.ts";

export interface Target {
  readonly run: (bytes: Buffer) => string;
  readonly seeds: readonly Buffer[];
}

const key = new Uint8Array(16).fill(7);

/** Lets everything through: what lies behind encryption is reached by whoever has the key. */
class OpenRing extends Keyring {
  override open(sealed: Buffer): Buffer {
    return sealed;
  }
}
const openRing = new OpenRing([key]);
const ring = new Keyring([key, new Uint8Array(32).fill(8)]);

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
  residualReap: 1800,
} as const;
const user = (message: Uint8Array) => Buffer.concat([Buffer.from([8]), message]);

const dbSeeds = [
  { kind: "node", type: "join", ltime: 3n, node: "evil" },
  { kind: "network", type: "leave", ltime: 1n << 62n, node: "evil", networkId: "n" },
  table,
  { ...table, type: "delete", ltime: 2n ** 64n - 1n, value: new Uint8Array(), key: "k".repeat(256) },
  {
    kind: "pushPull",
    ltime: 3n,
    node: "evil",
    networks: [
      { networkId: "n", ltime: 3n, node: "evil", leaving: false },
      { networkId: "m", ltime: 4n, node: "other", leaving: true },
    ],
  },
  { kind: "direct", node: "evil", payload: addr },
].map((message) => Buffer.from(encodeDb(message as DbMessage)));
const compound = Buffer.from(encodeDb({ kind: "compound", messages: dbSeeds.slice(0, 4) }));
dbSeeds.push(compound, Buffer.from(encodeDb({ kind: "compound", messages: [compound, compound] })));
const sync = { kind: "bulkSync", ltime: 3n, unsolicited: true, ownOnly: true, node: "evil", networks: ["n"] } as const;
dbSeeds.push(Buffer.from(encodeDb({ ...sync, payload: compound })));

const messageSeeds = [
  encodeMessage({ kind: "ping", seqNo: 1, node: "", sourceAddr: addr, sourcePort: 7946, sourceNode: "evil" }),
  encodeMessage({ kind: "indirectPing", seqNo: 70_000, target: addr, port: 7946, node: "x", nack: true }),
  encodeMessage({ kind: "ack", seqNo: 1, payload: addr }),
  encodeMessage({ kind: "nack", seqNo: 200 }),
  encodeMessage({
    kind: "alive",
    incarnation: 1,
    node: "evil",
    addr: Buffer.alloc(16, 1),
    port: 7946,
    meta: addr,
    vsn,
  }),
  encodeMessage({ kind: "suspect", incarnation: 2 ** 32 - 1, node: "evil", from: "x" }),
  encodeMessage({ kind: "dead", incarnation: 1, node: "n".repeat(40), from: "x" }),
  encodeMessage({ kind: "err", error: "no" }),
];
const pushPull = encodePushPull({
  join: true,
  nodes: [
    { name: "evil", addr, port: 7946, meta: addr, incarnation: 1, state: "alive", vsn },
    { name: "other", addr: Buffer.alloc(16), port: 1, meta: Buffer.alloc(0), incarnation: 9, state: "left", vsn },
  ],
  userState: dbSeeds[4] ?? Buffer.alloc(0),
});
const packetSeeds = [
  ...messageSeeds,
  ...encodeCompounds([...messageSeeds, user(compound)]),
  encodeCompress(encodeCompounds([user(compound), user(compound)])[0] ?? Buffer.alloc(0)),
  encodeCompress(encodeCompress(Buffer.alloc(300, "abc"))),
  user(compound),
];

/** What was decoded must be the same once encoded and decoded again. */
function stable(once: Uint8Array, twice: Uint8Array): void {
  if (Buffer.compare(once, twice) !== 0) assert.fail(`encoding changes it: ${Buffer.from(once).toString("hex")}`);
}

/** All of a networkdb message, as deep as networkdb itself goes. */
function walkDb(bytes: Uint8Array, depth = 0): string {
  if (depth > 3) return "deep";
  const message = decodeDb(bytes);
  const encoded = encodeDb(message);
  stable(encoded, encodeDb(decodeDb(encoded)));
  if (message.kind === "compound") return `compound(${shape(message.messages.map((part) => safely(part, depth + 1)))})`;
  if (message.kind === "bulkSync") return `bulkSync(${message.networks.length},${safely(message.payload, depth + 1)})`;
  if (message.kind === "table") assert.ok(message.value.length <= 64 << 10 && message.key.length <= 256);
  return message.kind;
}
const safely = (part: Uint8Array, depth: number) => {
  try {
    return walkDb(part, depth);
  } catch (error) {
    return reason(error);
  }
};
const shape = (parts: readonly string[]) => [...new Set(parts)].sort().slice(0, 6).join(",");

/** What an error says, without the figures in it. Errors of the program itself are findings. */
export function reason(error: unknown): string {
  // A TypeError by name only: what TextDecoder says of bytes that are no text.
  if (error instanceof Error && "code" in error && error.code === "ERR_ENCODING_INVALID_ENCODED_DATA") return "utf-8";
  if (error instanceof TypeError || error instanceof ReferenceError || error instanceof assert.AssertionError)
    throw error;
  if (error instanceof StreamError) return error.reason;
  if (!(error instanceof Error)) throw error;
  if (/call stack|allocation|Invalid (array|typed array) length/i.test(error.message)) throw error;
  return error.message.replaceAll(/\d+/g, "#").slice(0, 60);
}

function message(bytes: Buffer): string {
  const decoded = decodeMessage(bytes);
  if (!decoded) return "unknown";
  const encoded = encodeMessage(decoded);
  stable(encoded, encodeMessage(decodeMessage(encoded) ?? decoded));
  return decoded.kind;
}

export const targets: Record<string, Target> = {
  packet: {
    seeds: packetSeeds,
    run(bytes) {
      const seen: string[] = [];
      let accepted = 0;
      const accept = (part: Buffer) => {
        assert.ok(++accepted <= 4_096, "too many messages of one packet");
        seen.push(part[0] === 8 ? walkDb(part.subarray(1)) : message(part));
      };
      openPacket(openRing, bytes, accept, (why) => seen.push(why));
      return shape(seen);
    },
  },
  message: { seeds: messageSeeds, run: message },
  networkdb: { seeds: dbSeeds, run: walkDb },
  stream: {
    seeds: [
      pushPull,
      encodeUserStream(compound),
      encodeCompress(pushPull),
      encodeCompress(encodeUserStream(compound)),
      ...messageSeeds.slice(0, 3),
    ],
    run(bytes) {
      const plain = openStream(openRing, Buffer.alloc(5), bytes);
      if (plain[0] === 8) return `user(${safely(decodeUserStream(plain), 0)})`;
      if (plain[0] !== 6) return message(plain);
      const state = decodePushPull(plain);
      const encoded = encodePushPull(state);
      stable(encoded, encodePushPull(decodePushPull(encoded)));
      return `pushPull(${state.nodes.length},${safely(state.userState, 0)})`;
    },
  },
  lzw: {
    seeds: [Buffer.alloc(50, "abcabd"), Buffer.alloc(5_000, 1), Buffer.from("to be or not to be"), compound].map(
      lzwEncode,
    ),
    run(bytes) {
      const limit = 20_000;
      const plain = lzwDecode(bytes, limit);
      assert.ok(plain.length <= limit);
      assert.ok(lzwDecode(lzwEncode(plain), limit).equals(plain), "not the same after a round trip");
      return `ok ${Math.ceil(Math.log2(plain.length + 1))}`;
    },
  },
  sealed: {
    seeds: [ring.seal(messageSeeds[0] ?? addr), ring.seal(compound)],
    run(bytes) {
      const plain = ring.open(bytes);
      if (!plain) return "refused";
      // Nobody without the key makes one that opens: it can only be one of ours.
      assert.ok(plain.equals(messageSeeds[0] ?? addr) || plain.equals(compound), "opened what was never sealed");
      return "opened";
    },
  },
  records: {
    seeds: [
      "0a087765622e312e743112037765621a027331220831302e302e312e322a0831302e302e312e333205185020903f3a0177420c303132333435363738396162",
      "0a0b31302e302e312e332f3234121130323a34323a30613a30303a30313a30331a0c3139322e3136382e312e3130",
      "0a0a3137322e31382e302e32",
    ].map((text) => Buffer.from(text, "hex")),
    run(bytes) {
      const endpoint = decodeEndpoint("e", bytes, { address: "10.0.0.9", name: "evil" });
      const [peer, door] = [decodePeer("e", bytes), decodeDoor(bytes)];
      return [endpoint && `endpoint(${endpoint.service ? "service" : ""})`, peer && "peer", door && "door"].join();
    },
  },
};
