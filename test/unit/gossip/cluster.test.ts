import assert from "node:assert/strict";
import { test } from "node:test";
import { Cluster, picture, type TestNode } from "./harness.ts";

const kinds = (node: TestNode) => node.nodeEvents.map((event) => `${event.kind} ${event.address}`);

test("who looks sees everybody: ourselves, in which networks, who is dead and since when", async () => {
  await using cluster = new Cluster(11);
  const [a, b, c] = [await cluster.start(1), await cluster.start(2, [1]), await cluster.start(3, [1])];
  await cluster.run(b.gossip.joinNetwork("n1"));
  await cluster.until(() => a.gossip.members().some(({ networks }) => networks.includes("n1")), 10, "b's network");
  const shown = () =>
    a.gossip
      .members()
      .sort((x, y) => (x.address < y.address ? -1 : 1))
      .map(({ address, state, self, networks }) => [address, state, self, networks]);
  assert.deepEqual(shown(), [
    ["10.0.0.1", "alive", true, []],
    ["10.0.0.2", "alive", false, ["n1"]],
    ["10.0.0.3", "alive", false, []],
  ]);
  await cluster.crash(c);
  await cluster.until(() => shown()[2]?.[1] === "suspect", 30, "suspicion");
  await cluster.until(() => shown()[2]?.[1] === "dead", 60, "death");
  const before = a.gossip.members().find(({ state }) => state === "dead")?.sinceMs ?? -1;
  await cluster.pass(3);
  assert.equal(a.gossip.members().find(({ state }) => state === "dead")?.sinceMs, before + 3000);
});

test("table events reach a member of the network in one hop, others never", async () => {
  await using cluster = new Cluster(1);
  const [a, b, c] = [await cluster.start(1), await cluster.start(2, [1]), await cluster.start(3, [1])];
  await cluster.until(() => [a, b, c].every((node) => node.gossip.peers().length === 3), 5, "all know all");
  await cluster.run(a.gossip.joinNetwork("n1"));
  await cluster.run(b.gossip.joinNetwork("n1"));
  await cluster.run(c.gossip.joinNetwork("n2"));
  a.gossip.createEntry("t", "n1", "k", Buffer.from("v"));
  const took = await cluster.until(() => b.gossip.entries("t", "n1").length === 1, 1, "the event");
  assert.ok(took <= 0.2, `took ${took} s`);
  await cluster.pass(5);
  assert.deepEqual(c.tableEvents, []);
  assert.deepEqual(
    b.tableEvents.map((event) => ({ ...event, value: Buffer.from(event.value).toString() })),
    [
      {
        kind: "create",
        table: "t",
        networkId: "n1",
        key: "k",
        value: "v",
        owner: a.gossip.name,
        ownerAddress: "10.0.0.1",
        local: false,
      },
    ],
  );
});

test("update, delete, and a create again under the same key", async () => {
  await using cluster = new Cluster(2);
  const [a, b] = [await cluster.start(1), await cluster.start(2, [1])];
  await cluster.run(a.gossip.joinNetwork("n"));
  await cluster.run(b.gossip.joinNetwork("n"));
  a.gossip.createEntry("t", "n", "k", Buffer.from("1"));
  await cluster.pass(1);
  a.gossip.updateEntry("t", "n", "k", Buffer.from("2"));
  await cluster.pass(1);
  a.gossip.deleteEntry("t", "n", "k");
  await cluster.pass(1);
  assert.throws(() => a.gossip.deleteEntry("t", "n", "k"), /does not exist/);
  a.gossip.createEntry("t", "n", "k", Buffer.from("3"));
  assert.throws(() => a.gossip.createEntry("t", "n", "k", Buffer.from("4")), /already exists/);
  await cluster.pass(5);
  assert.deepEqual(
    b.tableEvents.map((event) => `${event.kind} ${Buffer.from(event.value)}`),
    ["create 1", "update 2", "delete 2", "create 3"],
  );
});

test("a crashed node is suspected, then failed; its entries are deleted; it is not mourned twice", async () => {
  await using cluster = new Cluster(3);
  const nodes = [await cluster.start(1), await cluster.start(2, [1]), await cluster.start(3, [1])];
  const [a, b, c] = nodes as [TestNode, TestNode, TestNode];
  for (const node of nodes) await cluster.run(node.gossip.joinNetwork("n"));
  a.gossip.createEntry("t", "n", "k", Buffer.from("v"));
  await cluster.pass(10);
  await cluster.crash(a);
  const took = await cluster.until(() => c.nodeEvents.some((event) => event.kind === "failed"), 30, "failure");
  assert.ok(took < 12, `took ${took} s`);
  await cluster.pass(30);
  for (const node of [b, c]) {
    const other = node === b ? c : b;
    assert.deepEqual(kinds(node).sort(), [
      "failed 10.0.0.1",
      "join 10.0.0.1",
      `join ${other.gossip.address}`,
      "suspect 10.0.0.1",
    ]);
    const last = node.tableEvents.at(-1);
    assert.deepEqual([last?.kind, last?.key, last?.ownerAddress], ["delete", "k", "10.0.0.1"]);
    assert.deepEqual(node.gossip.peers("n").length, 2);
  }
});

test("a short silence is suspected and taken back, and no entry is lost", async () => {
  await using cluster = new Cluster(4);
  const nodes = [await cluster.start(1), await cluster.start(2, [1]), await cluster.start(3, [1])];
  const [a, b] = nodes as [TestNode, TestNode, TestNode];
  for (const node of nodes) await cluster.run(node.gossip.joinNetwork("n"));
  a.gossip.createEntry("t", "n", "k", Buffer.from("v"));
  await cluster.pass(5);
  cluster.network.partition((from, to) => from === "10.0.0.1" || to === "10.0.0.1");
  await cluster.until(() => b.nodeEvents.some((event) => event.kind === "suspect"), 10, "suspicion");
  cluster.network.partition(undefined);
  await cluster.until(() => b.nodeEvents.some((event) => event.kind === "alive"), 5, "alive again");
  await cluster.pass(10);
  assert.ok(!b.nodeEvents.some((event) => event.kind === "failed"));
  assert.deepEqual(
    b.tableEvents.map((event) => event.kind),
    ["create"],
  );
});

test("a node that leaves is left, not failed, and at once", async () => {
  await using cluster = new Cluster(5);
  const [a, b] = [await cluster.start(1), await cluster.start(2, [1])];
  await cluster.run(a.gossip.joinNetwork("n"));
  await cluster.run(b.gossip.joinNetwork("n"));
  a.gossip.createEntry("t", "n", "k", Buffer.from("v"));
  await cluster.pass(3);
  await cluster.run(a.gossip.leave());
  await cluster.pass(1);
  assert.deepEqual(kinds(b), ["join 10.0.0.1", "left 10.0.0.1"]);
  assert.deepEqual(b.gossip.entries("t", "n"), []);
  await cluster.pass(60);
  assert.deepEqual(kinds(b), ["join 10.0.0.1", "left 10.0.0.1"]);
});

test("a node that restarts under a new name takes the place of its former self", async () => {
  await using cluster = new Cluster(6);
  const [a, b] = [await cluster.start(1), await cluster.start(2, [1])];
  await cluster.run(a.gossip.joinNetwork("n"));
  await cluster.run(b.gossip.joinNetwork("n"));
  b.gossip.createEntry("t", "n", "old", Buffer.from("v"));
  await cluster.pass(3);
  await cluster.crash(b);
  await cluster.pass(0.5);
  const again = await cluster.start(2, [1]);
  await cluster.run(again.gossip.joinNetwork("n"));
  again.gossip.createEntry("t", "n", "new", Buffer.from("v"));
  await cluster.until(() => picture(a.gossip, "t", "n").startsWith("new="), 5, "the new entry");
  assert.equal(picture(a.gossip, "t", "n"), `new=v@${again.gossip.name}/10.0.0.2`);
  assert.deepEqual(kinds(again), ["join 10.0.0.1"], "it does not see its former self");
  // The former goes before the newcomer is told of.
  assert.deepEqual(kinds(a), ["join 10.0.0.2", "replaced 10.0.0.2", "join 10.0.0.2"]);
});

test("a split cluster heals: both sides, with what changed meanwhile", async () => {
  await using cluster = new Cluster(7);
  const nodes: TestNode[] = [];
  for (let host = 1; host <= 6; host++) nodes.push(await cluster.start(host, host === 1 ? [] : [1]));
  for (const node of nodes) await cluster.run(node.gossip.joinNetwork("n"));
  for (const node of nodes) node.gossip.createEntry("t", "n", `k${node.gossip.address}`, Buffer.from("1"));
  await cluster.pass(10);
  const left = new Set(["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
  cluster.network.partition((from, to) => left.has(from) !== left.has(to));
  await cluster.until(() => nodes.every((node) => node.gossip.peers().length === 3), 60, "both halves see it");
  assert.ok(nodes.every((node) => node.gossip.entries("t", "n").length === 3));
  nodes[0]?.gossip.deleteEntry("t", "n", "k10.0.0.1");
  nodes[5]?.gossip.updateEntry("t", "n", "k10.0.0.6", Buffer.from("2"));
  await cluster.pass(60);
  cluster.network.partition(undefined);
  const expected = () => picture(nodes[0]?.gossip as TestNode["gossip"], "t", "n");
  const took = await cluster.until(
    () =>
      nodes.every((node) => node.gossip.peers().length === 6 && picture(node.gossip, "t", "n") === expected()) &&
      nodes[0]?.gossip.entries("t", "n").length === 5,
    60,
    "one cluster again",
  );
  assert.ok(took < 20, `took ${took} s`);
  assert.match(expected(), /k10\.0\.0\.6=2@/);
});

test("keys are rotated one by one without a loss", async () => {
  await using cluster = new Cluster(8);
  const [a, b] = [await cluster.start(1), await cluster.start(2, [1])];
  await cluster.pass(3);
  const ring = (first: number) =>
    [0, 1, 2].map((i) => ({ key: new Uint8Array(16).fill(first + i), lamportTime: BigInt(first + i) }));
  for (let first = 2; first < 8; first++) {
    a.gossip.setKeys(ring(first));
    await cluster.pass(10);
    b.gossip.setKeys(ring(first));
    await cluster.pass(10);
  }
  assert.equal(a.gossip.stats()["dropped.undecryptable"] ?? 0, 0);
  assert.deepEqual(kinds(a), ["join 10.0.0.2"]);
});

test("nodes that lost each other reconnect without bootstrap addresses, even after a long time", async () => {
  await using cluster = new Cluster(9);
  const [a, b] = [await cluster.start(1), await cluster.start(2, [1])];
  await cluster.pass(3);
  b.gossip.setBootstrap([]);
  for (const node of [a, b]) await cluster.run(node.gossip.joinNetwork("n"));
  a.gossip.createEntry("t", "n", "k", Buffer.from("v"));
  cluster.network.partition(() => true);
  await cluster.pass(600);
  assert.equal(b.gossip.entries("t", "n").length, 0);
  cluster.network.partition(undefined);
  const took = await cluster.until(() => b.gossip.entries("t", "n").length === 1, 20, "the entry is back");
  assert.ok(took < 14, `took ${took} s`);
});

test("bootstrap is tried until somebody is there", async () => {
  await using cluster = new Cluster(10);
  const b = await cluster.start(2, [1]);
  await cluster.pass(20);
  const a = await cluster.start(1);
  const took = await cluster.until(() => a.gossip.peers().length === 2 && b.gossip.peers().length === 2, 15, "a pair");
  assert.ok(took < 12, `took ${took} s`);
});

test("a hundred nodes: all know all, a change is everywhere in two seconds, and one that dies is dead to all", {
  skip: process.env.GOSSIP_LARGE ? false : "GOSSIP_LARGE=1 runs it",
}, async () => {
  await using cluster = new Cluster(11);
  const nodes: TestNode[] = [await cluster.start(1)];
  for (let host = 2; host <= 100; host++) nodes.push(await cluster.start(host, [1]));
  const know = (count: number) => () => nodes.every((node) => node.gossip.peers().length === count);
  console.log("all know all after", await cluster.until(know(100), 60, "all know all"), "s");
  await Promise.all([...nodes.map((node) => node.gossip.joinNetwork("n")), cluster.pass(15)]);
  nodes[7]?.gossip.createEntry("t", "n", "k", Buffer.from("v"));
  const everywhere = () => nodes.every((node) => node.gossip.entries("t", "n").length === 1);
  const took = await cluster.until(everywhere, 10, "the entry is everywhere");
  console.log("an entry is everywhere after", took, "s");
  assert.ok(took <= 2);
  const packets = cluster.network.packets;
  const wall = performance.now();
  await cluster.pass(20);
  console.log(
    `idle: ${Math.round((cluster.network.packets - packets) / 2000)} packets and`,
    `${((performance.now() - wall) / 2000).toFixed(2)} ms of CPU per node and second`,
  );
  const dead = nodes.splice(50, 1)[0] as TestNode;
  await cluster.crash(dead);
  console.log("a dead node is known dead by all after", await cluster.until(know(99), 60, "the death"), "s");
});
