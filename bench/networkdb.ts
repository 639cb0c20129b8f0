/**
 * How fast a change in gossip's tables is known everywhere, in virtual time over simulated links, so that the figures are
 * those of the protocol and not of the machine: `bin/node bench/networkdb.ts [nodes…]`. Default: 2, 5, 10, 25 and 100.
 *
 * Each sample starts from a quiet cluster and is over when the last node knows. Beside it the same nodes on Docker's own
 * schedule, where news leave with the next tick of 200 ms to three nodes. Links: 1 to 3 ms one way, nothing lost.
 *
 * For the weight of many entries on real sockets see `networkdb-entries.ts`.
 */
import { dockerConfig, type MemberlistConfig, skeinConfig } from "../src/gossip/memberlist/config.ts";
import type { Gossip } from "../src/gossip/types.ts";
import { Cluster, type TestNode } from "../test/unit/gossip/harness.ts";
import { median, row } from "./support/rows.ts";

const sizes = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [2, 5, 10, 25, 100];
const network = "net";
const table = "endpoint_table";
/** What a network of 500 containers has. */
const populated = 1_000;
const value = Buffer.alloc(120, "v");
const rounds = (size: number) => (size >= 100 ? 5 : 20);

const kinds = ["create", "update", "delete", "join", "write after join", "join populated", "leave"] as const;
type Kind = (typeof kinds)[number];
type Samples = Record<Kind, number[]>;

const has = (gossip: Gossip, key: string) => gossip.entries(table, network).some((entry) => entry.key === key);

/** Milliseconds of virtual time until the condition holds. */
async function until(cluster: Cluster, done: () => boolean): Promise<number> {
  const start = cluster.clock.now();
  for (; !done(); await cluster.clock.advanceAsync(1)) {
    if (cluster.clock.now() - start > 120_000) throw new Error("not within two minutes");
  }
  return cluster.clock.now() - start;
}

async function measure(size: number, config: MemberlistConfig): Promise<Samples> {
  await using cluster = new Cluster(size, config);
  const nodes: TestNode[] = [];
  for (let host = 1; host <= size; host++) nodes.push(await cluster.start(host, host === 1 ? [] : [1]));
  const gossips = nodes.map((node) => node.gossip);
  const [first, last] = [gossips[0], gossips.at(-1)];
  if (!first || !last) throw new Error("no nodes");
  const stay = gossips.slice(0, -1);
  const quiet = () => cluster.pass(3 + cluster.random());
  const members = (count: number) => () => gossips.every((gossip) => gossip.peers(network).length === count);

  await until(cluster, () => gossips.every((gossip) => gossip.peers().length === size));
  for (const gossip of stay) gossip.joinNetwork(network);
  await until(cluster, members(size - 1));
  await quiet();

  const samples = Object.fromEntries(kinds.map((kind) => [kind, []])) as unknown as Samples;
  for (let round = 0; round < rounds(size); round++) {
    last.joinNetwork(network);
    samples.join.push(await until(cluster, members(size)));
    await quiet();

    const key = `k${round}`;
    first.createEntry(table, network, key, value);
    samples.create.push(await until(cluster, () => gossips.every((gossip) => has(gossip, key))));
    await quiet();
    first.updateEntry(table, network, key, Buffer.from("new"));
    const updated = (gossip: Gossip) => gossip.entries(table, network).find((entry) => entry.key === key)?.value.length;
    samples.update.push(await until(cluster, () => gossips.every((gossip) => updated(gossip) === 3)));
    await quiet();
    first.deleteEntry(table, network, key);
    samples.delete.push(await until(cluster, () => !gossips.some((gossip) => has(gossip, key))));
    await quiet();

    last.leaveNetwork(network);
    samples.leave.push(await until(cluster, members(size - 1)));
    await quiet();
    last.joinNetwork(network);
    last.createEntry(table, network, `early${round}`, value);
    samples["write after join"].push(
      await until(cluster, () => gossips.every((gossip) => has(gossip, `early${round}`))),
    );
    last.leaveNetwork(network);
    await until(cluster, members(size - 1));
    await quiet();
  }
  for (let i = 0; i < populated; i++) stay[i % stay.length]?.createEntry(table, network, `p${i}`, value);
  const full = (gossip: Gossip) => gossip.entries(table, network).length === populated;
  while (!stay.every(full)) await cluster.pass(1);
  await cluster.pass(30);
  for (let round = 0; round < 3; round++) {
    last.joinNetwork(network);
    samples["join populated"].push(await until(cluster, () => full(last)));
    await quiet();
    last.leaveNetwork(network);
    await until(cluster, members(size - 1));
    await quiet();
  }
  return samples;
}

for (const size of sizes) {
  const [ours, docker] = [await measure(size, skeinConfig), await measure(size, dockerConfig)];
  for (const kind of kinds) row(`${size} nodes, ${kind}`, "ms", ours[kind], docker[kind]);
  const worst = Math.max(...kinds.flatMap((kind) => ours[kind]));
  console.log(`${size} nodes: median of all ${median(kinds.flatMap((kind) => ours[kind]))} ms, worst ${worst} ms\n`);
}
