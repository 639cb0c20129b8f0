/** Whoever can reach port 7946, without the key and with it: what they send is dropped, counted and bounded. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Keyring } from "../../../src/gossip/memberlist/crypto.ts";
import { encodeMessage } from "../../../src/gossip/memberlist/messages.ts";
import { encodeCompounds, encodeCompress, sealPacket } from "../../../src/gossip/memberlist/packet.ts";
import { encodeUserStream } from "../../../src/gossip/memberlist/pushpull.ts";
import { MemberState } from "../../../src/gossip/memberlist/state.ts";
import { sealStream } from "../../../src/gossip/memberlist/stream.ts";
import { encodeDb, type TableMessage } from "../../../src/gossip/networkdb/messages.ts";
import { Peers } from "../../../src/gossip/networkdb/peers.ts";
import { Tables } from "../../../src/gossip/networkdb/tables.ts";
import { Cluster, picture, type TestNode } from "./harness.ts";
import { hand, ring, setUp } from "./stranger.ts";

const wrong = new Keyring([new Uint8Array(16).fill(99)]);
const ping = encodeMessage({ kind: "ping", seqNo: 1, node: "" });

/** Two nodes with a life behind them, and every packet that was sent to the first. */
async function lived(seed: number) {
  const cluster = new Cluster(seed);
  const recorded: { from: string; packet: Buffer }[] = [];
  const { network } = cluster;
  const deliver = network.deliver.bind(network);
  network.deliver = (from, to, packet) => {
    if (to === "10.0.0.1") recorded.push({ from: from.address, packet });
    deliver(from, to, packet);
  };
  const [a, b] = [await cluster.start(1), await cluster.start(2, [1])] as [TestNode, TestNode];
  for (const node of [a, b]) await cluster.run(node.gossip.joinNetwork("n"));
  for (let i = 0; i < 10; i++) b.gossip.createEntry("t", "n", `k${i}`, Buffer.from("1"));
  await cluster.pass(3);
  for (let i = 0; i < 8; i++) b.gossip.updateEntry("t", "n", `k${i}`, Buffer.from("2"));
  await cluster.pass(3);
  const youth = [...recorded];
  for (let i = 0; i < 5; i++) b.gossip.deleteEntry("t", "n", `k${i}`);
  b.gossip.joinNetwork("m");
  await cluster.pass(3);
  b.gossip.leaveNetwork("m");
  await cluster.pass(10);
  const thief = network.open("10.0.0.66");
  const replay = (packets: typeof recorded) => {
    for (const { packet } of packets) thief.send("10.0.0.1", 7946, packet);
  };
  return { cluster, a, b, replay, all: [...recorded], youth };
}

test("a replay of all that was ever sent changes nothing", async () => {
  const { cluster, a, replay, all } = await lived(1);
  await using _ = cluster;
  const before = [picture(a.gossip, "t", "n"), a.tableEvents.length, a.nodeEvents.length, a.gossip.peers("m").length];
  assert.equal(a.gossip.entries("t", "n").length, 5);
  replay(all);
  await cluster.pass(20);
  assert.deepEqual(
    [picture(a.gossip, "t", "n"), a.tableEvents.length, a.nodeEvents.length, a.gossip.peers("m").length],
    before,
  );
});

test("a replay of what was deleted and forgotten is set right by whose it was", async () => {
  const { cluster, a, b, replay, youth } = await lived(2);
  await using _ = cluster;
  await cluster.pass(31 * 60);
  replay(youth);
  await cluster.pass(0.01);
  assert.ok(a.gossip.entries("t", "n").length > 5, "the ghosts are there at first: nobody remembers that they went");
  await cluster.until(() => a.gossip.entries("t", "n").length === 5, 90, "the ghosts are gone");
  assert.equal(picture(a.gossip, "t", "n"), picture(b.gossip, "t", "n"));
  assert.equal(b.gossip.stats().setRight, 5);
});

test("without the key: packets and streams are dropped before anything is read", async () => {
  const { cluster, packet, stream, stats } = await setUp(3);
  await using _ = cluster;
  packet(sealPacket(wrong, ping, true));
  packet(ping);
  packet(Buffer.alloc(0));
  packet(Buffer.alloc(65_507, 1));
  await stream(sealStream(wrong, ping));
  await stream(Buffer.concat([ping, Buffer.alloc(10)]));
  await cluster.pass(1);
  assert.equal(stats("dropped.undecryptable"), 4);
  assert.deepEqual([stats("dropped.streamUndecryptable"), stats("dropped.streamPlain")], [1, 1]);
});

test("one byte less, anywhere at the end: nothing that is cut opens", async () => {
  const { cluster, packet, stats } = await setUp(4);
  await using _ = cluster;
  const whole = sealPacket(ring, ping, true);
  for (let length = 0; length < whole.length; length++) packet(whole.subarray(0, length));
  await cluster.pass(1);
  assert.equal(stats("dropped.undecryptable"), whole.length);
});

test("a packet whose version is changed on the way is refused: nobody cuts it without the key", async () => {
  const { cluster, packet, stats } = await setUp(11);
  await using _ = cluster;
  // The last byte of a plain text says how much of a padded one goes.
  const sealed = ring.seal(Buffer.concat([ping, Buffer.of(1)]));
  for (let version = 0; version < 256; version++) {
    if (version !== 1) packet(Buffer.concat([Buffer.of(version), sealed.subarray(1)]));
  }
  await cluster.pass(1);
  assert.equal(stats("dropped.undecryptable") + stats("dropped.label"), 255);
});

test("streams that claim too much, alone and together, and too many of them", async () => {
  const { cluster, stream, stats } = await setUp(5);
  await using _ = cluster;
  const claim = (bytes: number) => {
    const head = Buffer.alloc(5, 10);
    head.writeUInt32BE(bytes, 1);
    return head;
  };
  await stream(claim((20 << 20) + 1));
  await cluster.pass(0.1);
  assert.equal(stats("dropped.streamTooLarge"), 1);
  for (let i = 0; i < 4; i++) await stream(claim(20 << 20));
  await cluster.pass(0.1);
  assert.equal(stats("dropped.streamTooLarge"), 2, "three of twenty are within the budget, four are not");
  for (let i = 0; i < 130; i++) await stream(Buffer.of(10));
  await cluster.pass(0.1);
  assert.equal(stats("dropped.streamLimit"), 5);
  await cluster.pass(12);
  await stream(sealStream(ring, encodeUserStream(Buffer.from("x"))));
  await cluster.pass(0.1);
  assert.equal(stats("streams"), 1, "who says nothing is cut off, and others have their place");
});

test("bombs: a packet of nothing but messages, compounds in compounds, a stream that expands without end", async () => {
  const { cluster, packet, stream, stats } = await setUp(6);
  await using _ = cluster;
  const many = Array.from({ length: 255 }, () => ping);
  const nested = encodeCompounds(Array.from({ length: 40 }, () => encodeCompounds(many)[0] ?? ping));
  packet(ring.seal(encodeCompress(nested[0] ?? ping)));
  await cluster.pass(1);
  assert.ok(stats("dropped.malformed") >= 1);
  const pongs = cluster.network.packets;
  assert.ok(pongs < 4_096 + 200, `${pongs} packets`);
  const bomb = encodeCompress(Buffer.alloc(49 << 20));
  assert.ok(bomb.length < 100_000);
  const head = Buffer.alloc(5, 10);
  head.writeUInt32BE(bomb.length + 29, 1);
  await stream(Buffer.concat([head, ring.seal(bomb, head)]));
  await cluster.pass(1);
  assert.equal(stats("dropped.streamMalformed"), 1);
});

test("a compound of rubbish is given up", async () => {
  const { cluster, stream, stats } = await setUp(7);
  await using _ = cluster;
  const messages = Array.from({ length: 5_000 }, () => Buffer.from([0xff, 0xff]));
  await stream(sealStream(ring, encodeUserStream(encodeDb({ kind: "compound", messages }))));
  await cluster.pass(0.1);
  assert.equal(stats("dropped.dbMalformed"), 1_000);
});

test("events of owners that nobody knows: bounded, and gone after a while", async () => {
  const { cluster, table, stats } = await setUp(8);
  await using _ = cluster;
  for (let i = 0; i < 9_000; i++) table(BigInt(i + 1), { owner: `nobody${i}`, key: `k${i}` });
  await cluster.pass(0.1);
  assert.equal(stats("queue.pending"), 8_192);
  assert.equal(stats("dropped.pendingFull"), 9_000 - 8_192);
  await cluster.pass(12);
  assert.equal(stats("queue.pending"), 0);
  assert.equal(stats("dropped.ownerUnknown"), 8_192);
});

test("whoever says that much is ours is not answered without end", async () => {
  const { cluster, node, alive, network, table, stats } = await setUp(9);
  await using _ = cluster;
  alive();
  network(3n);
  await cluster.pass(0.1);
  for (let i = 0; i < 1_000; i++) table(BigInt(10 + i), { owner: node.gossip.name, key: `k${i}` });
  await cluster.pass(0.1);
  assert.ok(stats("setRight") <= 400 && stats("setRight") >= 200, `${stats("setRight")}`);
  assert.equal(stats("setRight") + stats("ignored.aboutUs"), 1_000);
  assert.equal(node.gossip.entries("t", "n").length, 0);
});

test("others say that we left, or that we deleted what we have: we say it anew, and later than they", async () => {
  const { cluster, node, alive, network, user, values } = await setUp(10);
  await using _ = cluster;
  const { name } = node.gossip;
  const other = await cluster.start(2, [1]);
  await cluster.run(other.gossip.joinNetwork("n"));
  alive();
  network(3n);
  node.gossip.createEntry("t", "n", "mine", Buffer.from("v"));
  await cluster.until(() => other.gossip.entries("t", "n").length === 1, 5, "the entry");
  const about = { owner: name, networkId: "n", table: "t", key: "mine", value: Buffer.alloc(0) };
  const deleted: TableMessage = { kind: "table", type: "delete", ltime: 500n, residualReap: 1_800, ...about };
  cluster.network.partition((_, to) => to === "10.0.0.1");
  const thief = cluster.network.open("10.0.0.9");
  const tell = (message: Parameters<typeof encodeDb>[0]) =>
    thief.send("10.0.0.2", 7946, sealPacket(ring, Buffer.concat([Buffer.from([8]), encodeDb(message)]), false));
  tell(deleted);
  tell({ kind: "network", type: "leave", ltime: 500n, node: name, networkId: "n" });
  await cluster.pass(0.1);
  assert.equal(other.gossip.entries("t", "n").length, 0, "who does not know better believes it");
  cluster.network.partition(undefined);
  const took = await cluster.until(() => other.gossip.entries("t", "n").length === 1, 90, "it is back");
  assert.deepEqual(values(), ["v"]);
  assert.ok(
    other.gossip.peers("n").some((peer) => peer.name === name),
    `${took} s`,
  );
  user(deleted);
});

test("tables, networks and members are bounded, and what does not fit is told of", () => {
  const tables = new Tables(3);
  const event = (key: string): TableMessage => ({
    kind: "table",
    type: "create",
    ltime: 1n,
    owner: hand,
    networkId: "n",
    table: "t",
    key,
    value: Buffer.from("v"),
    residualReap: 0,
  });
  for (const key of ["a", "b", "c"]) assert.equal(tables.apply(event(key), 0).fresh, true);
  assert.deepEqual(tables.apply(event("d"), 0), { fresh: false, full: true });
  assert.equal(tables.apply({ ...event("a"), ltime: 2n, value: Buffer.from("w") }, 0).change?.kind, "update");
  tables.dropOwner(hand);
  assert.equal(tables.size, 0);

  const peers = new Peers("us", { attachments: 50, gone: 10 });
  peers.joined(hand, "10.0.0.9", 7946, 0);
  const join = (i: number) => peers.networkEvent({ type: "join", ltime: 1n, node: hand, networkId: `n${i}` }, 0);
  for (let i = 0; i < 50; i++) assert.equal(join(i), "fresh");
  assert.equal(join(50), "full");
  peers.detachAll(hand);
  assert.equal(join(50), "fresh");
  for (let i = 0; i < 15; i++) {
    peers.joined(`p${i}`, "10.0.0.9", i + 1, 0);
    peers.move(`p${i}`, "failed", i);
  }
  peers.reap(20_000);
  assert.equal(peers.withStatus("failed").length, 10);
  assert.equal(peers.get("p0"), undefined, "the oldest are forgotten first");

  const limits = { suspicionMult: 4, suspicionMaxMult: 6, suspicionUnitMs: 1_000, maxMembers: 2 };
  const state = new MemberState({ name: "us", ...limits });
  const at = { addr: Buffer.from([10, 0, 0, 1]), port: 1, meta: Buffer.alloc(0), vsn: Buffer.from([1, 5, 2, 0, 0, 0]) };
  state.start(at, 0);
  const alive = (node: string) => state.alive({ kind: "alive", incarnation: 1, node, ...at }, 0);
  assert.equal(
    alive("one").some((action) => action.kind === "changed"),
    true,
  );
  assert.deepEqual(alive("two"), [{ kind: "ignored", reason: "full" }]);
});
