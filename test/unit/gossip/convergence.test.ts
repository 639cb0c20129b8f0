/**
 * Whatever the network does, once it behaves again all nodes agree: on who is there and on every table. No node is
 * restarted for it, and while keys are rotated all the time no message is lost for want of one.
 *
 * Seeded; each seed is a shape of trouble and a size. A few in the suite; SKEIN_GOSSIP_SEEDS=n tries n of them, from
 * SKEIN_GOSSIP_FROM on, and prints how long each took to agree; GOSSIP_SEED=s only the one that failed.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { picture } from "./harness.ts";
import { type Chances, networks, replayed, Storm, table } from "./storm.ts";

interface Shape {
  readonly name: string;
  readonly chances: Chances;
  readonly steps: number;
  /** Hosts at most. */
  readonly hosts: number;
  /** Between two steps, given a random number. */
  readonly pauseMs: (random: () => number) => number;
}

const none: Chances = { revive: 0, lose: 0, reborn: 0, disturb: 0, split: 0, rotate: 0, join: 0.2, leave: 0.05 };
const shapes: readonly Shape[] = [
  {
    name: "storm",
    chances: { ...none, revive: 0.04, lose: 0.04, disturb: 0.1, rotate: 0.03, join: 0.18, leave: 0.04 },
    steps: 60,
    hosts: 25,
    // Now and then long enough for the lost to be declared dead, and forgotten.
    pauseMs: (random) => random() * (random() < 0.05 ? 60_000 : 2_000),
  },
  {
    // Nothing is lost, but all comes at once: what is needed to understand an event is on its way with it.
    name: "burst",
    chances: { ...none, join: 0.35, leave: 0.25 },
    steps: 90,
    hosts: 20,
    pauseMs: (random) => Math.floor(random() * 4),
  },
  {
    name: "split",
    chances: { ...none, split: 0.1, disturb: 0.02, rotate: 0.05, join: 0.15, leave: 0.05, lose: 0.02, revive: 0.02 },
    steps: 50,
    hosts: 10,
    pauseMs: (random) => random() * (random() < 0.2 ? 120_000 : 3_000),
  },
  {
    name: "restarts",
    chances: { ...none, revive: 0.15, lose: 0.15, rotate: 0.05, disturb: 0.03 },
    steps: 60,
    hosts: 12,
    pauseMs: (random) => random() * (random() < 0.1 ? 20_000 : 1_500),
  },
  {
    name: "reborn",
    chances: { ...none, reborn: 0.1, rotate: 0.05, disturb: 0.03, leave: 0.1 },
    steps: 50,
    hosts: 8,
    pauseMs: (random) => random() * (random() < 0.1 ? 20_000 : 1_500),
  },
];

const many = process.env.SKEIN_GOSSIP_SEEDS;
const only = process.env.GOSSIP_SEED;

function shapeOf(seed: number): { shape: Shape; hosts: number } {
  const shape = shapes[seed % shapes.length] ?? (shapes[0] as Shape);
  return { shape, hosts: 2 + (Math.floor(seed / shapes.length) % (shape.hosts - 1)) };
}

async function weather(seed: number): Promise<void> {
  const { shape, hosts } = shapeOf(seed);
  const storm = new Storm(seed, hosts);
  await using cluster = storm.cluster;
  for (let host = 1; host <= hosts; host++) await storm.start(host);
  if (shape.name === "burst") await cluster.pass(3);
  for (let i = 0; i < shape.steps; i++) {
    await storm.step(shape.chances);
    await cluster.pass(shape.pauseMs(cluster.random) / 1000);
  }
  storm.calm();
  try {
    const took = await cluster.until(() => storm.disagreement() === undefined, 120, "agreement");
    if (many || only) console.log(`seed ${seed}: ${shape.name} of ${hosts}, ${took} s`);
  } catch (error) {
    throw new Error(`seed ${seed}, ${shape.name} of ${hosts}: ${storm.disagreement()}`, { cause: error });
  }
  assert.equal(storm.unread(), 0, "messages that nobody could read");
  for (const node of storm.live.values()) {
    for (const networkId of networks) {
      const expected = node.joined.has(networkId) ? picture(node.gossip, table, networkId) : "";
      assert.equal(replayed(node, networkId), expected);
    }
  }
}

const from = Number(process.env.SKEIN_GOSSIP_FROM ?? 1);
const seeds = only
  ? [Number(only)]
  : many
    ? Array.from({ length: Number(many) }, (_, i) => from + i)
    : [20, 55, 21, 41, 17, 32, 23, 38, 19, 34];
for (const seed of seeds) {
  const { shape, hosts } = shapeOf(seed);
  test(`${shape.name}: a cluster of ${hosts} agrees afterwards (seed ${seed})`, { timeout: 600_000 }, () =>
    weather(seed),
  );
}
