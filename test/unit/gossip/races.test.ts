/** Order is not the network's to keep: a stranger's packets, sent by hand, arrive in the worst one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { afterReading } from "../../../src/gossip/memberlist/after-reading.ts";
import { hand, setUp } from "./stranger.ts";

test("a table event before its owner's network event, before the owner itself", async () => {
  const { cluster, node, alive, network, table, values } = await setUp(1);
  await using _ = cluster;
  table(5n);
  await cluster.pass(0.1);
  network(3n);
  await cluster.pass(0.1);
  assert.deepEqual(values(), []);
  alive();
  await cluster.pass(0.1);
  assert.deepEqual(values(), ["at 5"]);
  assert.deepEqual(
    node.tableEvents.map((event) => event.ownerAddress),
    ["10.0.0.9"],
  );
});

test("what nobody ever explains is dropped and counted", async () => {
  const { cluster, node, alive, table, values } = await setUp(2);
  await using _ = cluster;
  alive();
  table(5n);
  await cluster.pass(12);
  assert.deepEqual(values(), []);
  assert.equal(node.gossip.stats()["dropped.ownerUnknown"], 1);
  assert.equal(node.gossip.stats()["queue.pending"], 0);
});

test("a delete that overtakes its create, and a late leave of the network", async () => {
  const { cluster, node, alive, network, table, values } = await setUp(3);
  await using _ = cluster;
  alive();
  network(3n);
  await cluster.pass(0.1);
  table(6n, { type: "delete", residualReap: 1800 });
  await cluster.pass(0.1);
  table(5n);
  table(7n, { key: "other" });
  await cluster.pass(0.1);
  assert.deepEqual(values(), ["at 7"]);
  network(9n);
  await cluster.pass(0.1);
  network(8n, "leave");
  await cluster.pass(0.1);
  assert.deepEqual(values(), ["at 7"], "it came back before the news of its leaving");
  network(10n, "leave");
  await cluster.pass(0.1);
  assert.deepEqual(values(), []);
  assert.deepEqual(
    node.tableEvents.map((event) => event.kind),
    ["create", "delete"],
  );
});

test("absurd Lamport times are refused, and our own events stay believable", async () => {
  const { cluster, node, alive, network, table, user, values } = await setUp(4);
  await using _ = cluster;
  alive();
  network(3n);
  await cluster.pass(0.1);
  network(0xffff_ffff_ffff_ffffn, "leave");
  table(0xffff_ffff_ffff_ffffn);
  user({ kind: "node", type: "leave", ltime: 0xffff_ffff_ffff_fff0n, node: hand });
  await cluster.pass(0.1);
  assert.equal(node.gossip.stats()["dropped.absurdTime"], 3);
  table(5n);
  await cluster.pass(0.1);
  assert.deepEqual(values(), ["at 5"]);
  assert.equal(node.gossip.peers("n").length, 2);
});

test("others' words about ourselves change nothing here", async () => {
  const { cluster, node, user } = await setUp(5);
  await using _ = cluster;
  const { name } = node.gossip;
  node.gossip.createEntry("t", "n", "mine", Buffer.from("v"));
  user({ kind: "network", type: "leave", ltime: 50n, node: name, networkId: "n" });
  user({ kind: "node", type: "leave", ltime: 51n, node: name });
  user({
    kind: "table",
    type: "delete",
    ltime: 52n,
    owner: name,
    networkId: "n",
    table: "t",
    key: "mine",
    value: Buffer.alloc(0),
    residualReap: 10,
  });
  await cluster.pass(1);
  assert.equal(node.gossip.entries("t", "n").length, 1);
  assert.equal(node.gossip.peers("n").length, 1);
});

test("a stalled process reads before it judges", async () => {
  const { cluster } = await setUp(6);
  await using _ = cluster;
  const verdicts: number[] = [];
  let now = 0;
  // A clock whose timer fires two seconds late, as after a long garbage collection.
  const late = { ...systemClock, now: () => now, after: (ms: number, fn: () => void) => cluster.clock.after(ms, fn) };
  afterReading(late, 500, 300, () => verdicts.push(now));
  now = 2500;
  await cluster.pass(0.6);
  assert.deepEqual(verdicts, []);
  await cluster.pass(0.3);
  assert.deepEqual(verdicts, [2500]);
});
