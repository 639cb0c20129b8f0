/**
 * Whatever the network does, once it behaves again all nodes agree: on who is there and on every table.
 * Seeded; GOSSIP_SEEDS=n runs n more clusters, GOSSIP_SEED=s only the one that failed.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Cluster, picture, type TestNode } from "./harness.ts";

const networks = ["net-a", "net-b", "net-c"];
const table = "endpoint_table";

interface Live extends TestNode {
  readonly host: number;
  readonly joined: Set<string>;
  /** network/key to value: what all members should see of this node. */
  readonly model: Map<string, string>;
}

/** A cluster that is disturbed by a seeded random, step by step. */
class Storm {
  readonly cluster: Cluster;
  readonly live = new Map<number, Live>();
  readonly #hosts: number;
  #keys = 0;

  constructor(seed: number, hosts: number) {
    this.cluster = new Cluster(seed);
    this.#hosts = hosts;
  }

  async start(host: number): Promise<Live> {
    const managers = [1, 2, 3].filter((other) => other !== host && other <= this.#hosts);
    const node: Live = { ...(await this.cluster.start(host, managers)), host, joined: new Set(), model: new Map() };
    this.live.set(host, node);
    return node;
  }

  /** One random thing happens. */
  async step(): Promise<void> {
    const node = this.#pick([...this.live.values()]);
    const dice = this.cluster.random();
    if (!node || dice < 0.04) await this.#revive();
    else if (dice < 0.08 && this.live.size > 2) await this.#lose(node);
    else if (dice < 0.12) this.disturb();
    else if (dice < 0.3) this.#join(node);
    else if (dice < 0.34) this.#leave(node);
    else this.#touch(node);
    // Now and then long enough for the lost to be declared dead, and forgotten.
    await this.cluster.pass(this.cluster.random() * (this.cluster.random() < 0.05 ? 60 : 2));
  }

  /** The network behaves again. */
  calm(): void {
    Object.assign(this.cluster.network.conditions, { loss: 0.02, duplication: 0.02, minDelayMs: 1, maxDelayMs: 20 });
    this.cluster.network.partition(undefined);
  }

  /** What is wrong yet, if anything. */
  disagreement(): string | undefined {
    const nodes = [...this.live.values()];
    const everybody = names(nodes);
    for (const node of nodes) {
      const seen = names(node.gossip.peers().map((gossip) => ({ gossip })));
      if (seen !== everybody) return `${node.host} sees nodes ${seen} instead of ${everybody}`;
    }
    for (const networkId of networks) {
      const members = nodes.filter((node) => node.joined.has(networkId));
      const expected = members
        .flatMap((owner) =>
          [...owner.model].map(([path, value]) => {
            const [of, key] = path.split("/");
            return of === networkId ? `${key}=${value}@${owner.gossip.name}/${owner.gossip.address}` : "";
          }),
        )
        .filter((line) => line !== "")
        .sort()
        .join("\n");
      for (const node of members) {
        const seen = picture(node.gossip, table, networkId);
        if (seen !== expected) return `${node.host} in ${networkId} sees\n${seen}\ninstead of\n${expected}`;
        const peers = names(node.gossip.peers(networkId).map((gossip) => ({ gossip })));
        if (peers !== names(members)) return `${node.host} sees ${peers} in ${networkId}, not ${names(members)}`;
      }
    }
    return undefined;
  }

  #pick<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(this.cluster.random() * items.length)];
  }

  async #revive(): Promise<void> {
    const gone = Array.from({ length: this.#hosts }, (_, i) => i + 1).filter((host) => !this.live.has(host));
    const host = this.#pick(gone);
    if (host !== undefined) await this.start(host);
  }

  async #lose(node: Live): Promise<void> {
    this.live.delete(node.host);
    if (this.cluster.random() < 0.5) await this.cluster.run(node.gossip.leave());
    else await this.cluster.crash(node);
    this.cluster.nodes.delete(node.gossip.address);
  }

  disturb(): void {
    const { random, network } = this.cluster;
    network.conditions.loss = random() * 0.4;
    network.conditions.duplication = random() * 0.3;
    network.conditions.maxDelayMs = 2 + random() * 300;
    const side = new Map<string, boolean>();
    const sideOf = (address: string) => {
      if (!side.has(address)) side.set(address, random() < 0.5);
      return side.get(address);
    };
    const oneWay = random() < 0.3;
    const split = random() < 0.5;
    network.partition(
      split ? (from, to) => sideOf(from) !== sideOf(to) && (!oneWay || sideOf(from) === true) : undefined,
    );
  }

  #join(node: Live): void {
    const networkId = this.#pick(networks) ?? "";
    if (node.joined.has(networkId)) return;
    node.joined.add(networkId);
    node.gossip.joinNetwork(networkId);
  }

  #leave(node: Live): void {
    const networkId = this.#pick([...node.joined]);
    if (networkId === undefined) return;
    node.joined.delete(networkId);
    node.gossip.leaveNetwork(networkId);
    for (const path of [...node.model.keys()]) if (path.startsWith(`${networkId}/`)) node.model.delete(path);
  }

  #touch(node: Live): void {
    const networkId = this.#pick([...node.joined]);
    if (networkId === undefined) return;
    const { gossip, model } = node;
    const mine = [...model.keys()].filter((path) => path.startsWith(`${networkId}/`));
    const path = this.cluster.random() < 0.5 ? this.#pick(mine) : undefined;
    if (path === undefined) {
      const key = `k${++this.#keys}`;
      gossip.createEntry(table, networkId, key, Buffer.from("0"));
      model.set(`${networkId}/${key}`, "0");
      return;
    }
    const key = path.slice(networkId.length + 1);
    if (this.cluster.random() < 0.4) {
      gossip.deleteEntry(table, networkId, key);
      model.delete(path);
    } else {
      const value = String(Number(model.get(path)) + 1);
      gossip.updateEntry(table, networkId, key, Buffer.from(value));
      model.set(path, value);
    }
  }
}

function names(nodes: readonly { gossip: { name: string } }[]): string {
  return nodes
    .map(({ gossip }) => gossip.name)
    .sort()
    .join(" ");
}

/** Replays a node's events: watchers must end up with what `entries` says. */
function replayed(node: Live, networkId: string): string {
  const seen = new Map<string, string>();
  for (const event of node.tableEvents) {
    if (event.networkId !== networkId) continue;
    if (event.kind === "delete") assert.ok(seen.delete(event.key), `delete of unknown ${event.key}`);
    else {
      assert.equal(seen.has(event.key), event.kind === "update", `${event.kind} of ${event.key}`);
      seen.set(event.key, `${event.key}=${Buffer.from(event.value)}@${event.owner}/${event.ownerAddress}`);
    }
  }
  return [...seen.values()].sort().join("\n");
}

async function weather(seed: number): Promise<void> {
  const hosts = 2 + (seed % 24);
  const storm = new Storm(seed, hosts);
  await using cluster = storm.cluster;
  for (let host = 1; host <= hosts; host++) await storm.start(host);
  for (let i = 0; i < 60; i++) {
    if (i % 20 === 10) storm.disturb();
    await storm.step();
  }
  storm.calm();
  try {
    const took = await cluster.until(() => storm.disagreement() === undefined, 90, "agreement");
    if (process.env.GOSSIP_SEEDS || process.env.GOSSIP_SEED) console.log(`seed ${seed}: ${hosts} hosts, ${took} s`);
  } catch (error) {
    throw new Error(`seed ${seed}, ${hosts} hosts: ${storm.disagreement()}`, { cause: error });
  }
  for (const node of storm.live.values()) {
    for (const networkId of networks) {
      assert.equal(replayed(node, networkId), node.joined.has(networkId) ? picture(node.gossip, table, networkId) : "");
    }
  }
}

const only = process.env.GOSSIP_SEED;
const many = process.env.GOSSIP_SEEDS;
const seeds = only ? [Number(only)] : many ? Array.from({ length: Number(many) }, (_, i) => 1 + i * 5) : [1, 6, 11, 56];
for (const seed of seeds) {
  test(`a cluster of ${2 + (seed % 24)} agrees after the storm (seed ${seed})`, { timeout: 120_000 }, () =>
    weather(seed),
  );
}
