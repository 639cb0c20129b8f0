/** Helpers of the gossip tests: seeded random, a virtual cluster, waiting. */
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { createGossip } from "../../../src/gossip/gossip.ts";
import { type MemberlistConfig, skeinConfig } from "../../../src/gossip/memberlist/config.ts";
import { MemoryNetwork } from "../../../src/gossip/memory-transport.ts";
import type { Gossip, GossipKey, NodeEvent, TableEvent } from "../../../src/gossip/types.ts";

/** mulberry32: small, seeded, good enough to shuffle. */
export function seeded(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export const testKeys: GossipKey[] = [1, 2, 3].map((n) => ({
  key: new Uint8Array(16).fill(n),
  lamportTime: BigInt(n),
}));

export interface TestNode {
  readonly gossip: Gossip;
  readonly tableEvents: TableEvent[];
  readonly nodeEvents: NodeEvent[];
}

/** Several nodes in one process under one virtual clock. */
export class Cluster {
  readonly clock = new VirtualClock(1_000_000);
  readonly random: () => number;
  readonly network: MemoryNetwork;
  readonly nodes = new Map<string, TestNode>();
  readonly #config: MemberlistConfig;
  /** What nodes are started with. */
  keys = testKeys;
  #serial = 0;

  constructor(seed: number, config: MemberlistConfig = skeinConfig) {
    this.#config = config;
    this.random = seeded(seed);
    this.network = new MemoryNetwork(this.clock, this.random);
  }

  /** Starts a node at 10.0.0.<host>; its name is new each time, as after a restart, unless one is given. */
  async start(host: number, bootstrap: number[] = [], name?: string): Promise<TestNode> {
    const address = `10.0.0.${host}`;
    const gossip = await createGossip(
      {
        bindAddress: address,
        advertiseAddress: address,
        keys: this.keys,
        log: nullLogger,
        clock: this.clock,
        random: this.random,
        transport: this.network.open(address),
        name: name ?? `${String(host).padStart(4, "0")}${String(++this.#serial).padStart(8, "0")}`,
      },
      this.#config,
    );
    const node: TestNode = { gossip, tableEvents: [], nodeEvents: [] };
    gossip.onTable((event) => node.tableEvents.push(event));
    gossip.onNode((event) => node.nodeEvents.push(event));
    if (bootstrap.length > 0) gossip.setBootstrap(bootstrap.map((other) => `10.0.0.${other}`));
    this.nodes.set(address, node);
    return node;
  }

  /** Lets virtual time pass. */
  async pass(seconds: number): Promise<void> {
    await this.clock.advanceAsync(seconds * 1000);
  }

  /** Lets time pass until `condition` holds; throws after `seconds`. Returns how long it took. */
  async until(condition: () => boolean, seconds: number, what = "condition"): Promise<number> {
    const start = this.clock.now();
    while (!condition()) {
      if (this.clock.now() - start > seconds * 1000) throw new Error(`not within ${seconds} s: ${what}`);
      await this.clock.advanceAsync(100);
    }
    return (this.clock.now() - start) / 1000;
  }

  /** Resolves a promise while time passes. */
  async run<T>(promise: Promise<T>): Promise<T> {
    let done = false;
    promise.finally(() => {
      done = true;
    });
    while (!done) await this.clock.advanceAsync(50);
    return promise;
  }

  /** Stops a node without a word. */
  async crash(node: TestNode): Promise<void> {
    await node.gossip[Symbol.asyncDispose]();
    if (this.nodes.get(node.gossip.address) === node) this.nodes.delete(node.gossip.address);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const node of this.nodes.values()) await node.gossip[Symbol.asyncDispose]();
  }
}

/** The table as text: what must be equal on all nodes. */
export function picture(gossip: Gossip, table: string, networkId: string): string {
  return gossip
    .entries(table, networkId)
    .map((entry) => `${entry.key}=${Buffer.from(entry.value).toString()}@${entry.owner}/${entry.ownerAddress}`)
    .sort()
    .join("\n");
}
