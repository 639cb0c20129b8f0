/** A cluster to which everything happens that may happen to one, and what all its nodes must agree on afterwards. */
import assert from "node:assert/strict";
import { Cluster, picture, type TestNode } from "./harness.ts";

export const networks = ["net-a", "net-b", "net-c"];
export const table = "endpoint_table";

export interface Live extends TestNode {
  readonly host: number;
  readonly joined: Set<string>;
  /** network/key to value: what all members should see of this node. */
  readonly model: Map<string, string>;
}

/** How likely each thing is; what is left is for entries. */
export interface Chances {
  readonly revive: number;
  readonly lose: number;
  readonly reborn: number;
  readonly disturb: number;
  readonly split: number;
  readonly rotate: number;
  readonly join: number;
  readonly leave: number;
}

/** Hosts 1 to 3: the others find the cluster through these. */
const managers = 3;
/** The last node has new keys so long after the first. */
const lateMs = 15_000;

/** A cluster that is disturbed by a seeded random, step by step. */
export class Storm {
  readonly cluster: Cluster;
  readonly live = new Map<number, Live>();
  readonly #hosts: number;
  #keys = 0;
  #ring = 1;
  /** Nobody is behind by a ring of keys from then on. */
  #rotated = 0;

  constructor(seed: number, hosts: number) {
    this.cluster = new Cluster(seed);
    this.#hosts = hosts;
  }

  async start(host: number, name?: string): Promise<Live> {
    const others = Array.from({ length: managers }, (_, i) => i + 1).filter((other) => other !== host);
    const bootstrap = others.filter((other) => other <= this.#hosts);
    const started = await this.cluster.start(host, bootstrap, name);
    const node: Live = { ...started, host, joined: new Set(), model: new Map() };
    this.live.set(host, node);
    return node;
  }

  /** One random thing happens. */
  async step(chances: Chances): Promise<void> {
    const node = this.#pick([...this.live.values()]);
    let dice = this.cluster.random();
    const hit = (chance: number) => {
      dice -= chance;
      return dice < 0;
    };
    if (!node || hit(chances.revive)) await this.#revive();
    else if (hit(chances.lose)) await (this.live.size > 2 ? this.#lose(node) : this.#revive());
    else if (hit(chances.reborn)) await this.#reborn(node);
    else if (hit(chances.disturb)) this.disturb();
    else if (hit(chances.split)) this.split();
    else if (hit(chances.rotate)) this.#rotate();
    else if (hit(chances.join)) this.#join(node);
    else if (hit(chances.leave)) this.#leave(node);
    else this.#touch(node);
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

  /** Messages that nobody could read. Keys change all the time, and there must be none. */
  unread(): number {
    const counts = [...this.live.values()].map((node) => node.gossip.stats());
    const names = ["dropped.undecryptable", "dropped.streamUndecryptable"];
    return counts.reduce((sum, stats) => sum + names.reduce((part, name) => part + (stats[name] ?? 0), 0), 0);
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
    // One manager stays: who starts while there is none, knows nobody.
    if ([...this.live.keys()].filter((host) => host <= managers).every((host) => host === node.host)) return;
    this.live.delete(node.host);
    if (this.cluster.random() < 0.5) await this.cluster.run(node.gossip.leave());
    else await this.cluster.crash(node);
    this.cluster.nodes.delete(node.gossip.address);
  }

  /** It comes back at once, under the same name, and knows nothing of what it was. */
  async #reborn(node: Live): Promise<void> {
    await this.cluster.crash(node);
    this.live.delete(node.host);
    await this.start(node.host, node.gossip.name);
  }

  /** Everybody gets the next keys, some early, some late; only then there are others. */
  #rotate(): void {
    const { clock, random } = this.cluster;
    if (clock.now() < this.#rotated) return;
    this.#rotated = clock.now() + lateMs + 1_000;
    const first = ++this.#ring;
    const ring = [first, first + 1, first + 2].map((n) => ({
      key: new Uint8Array(16).fill(n),
      lamportTime: BigInt(n),
    }));
    this.cluster.keys = ring;
    for (const { gossip } of this.live.values()) clock.after(random() * lateMs, () => gossip.setKeys(ring));
  }

  /** Two to four groups that do not hear each other. */
  split(): void {
    const { random, network } = this.cluster;
    const groups = 2 + Math.floor(random() * 3);
    const sides = new Map<string, number>();
    for (let host = 1; host <= this.#hosts; host++) sides.set(`10.0.0.${host}`, Math.floor(random() * groups));
    network.partition((from, to) => sides.get(from) !== sides.get(to));
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
export function replayed(node: Live, networkId: string): string {
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
