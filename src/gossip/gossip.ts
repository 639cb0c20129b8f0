/** One node's gossip put together: transport, memberlist, networkdb, bootstrap. */
import { randomBytes } from "node:crypto";
import { Emitter } from "../base/async.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { keyRing } from "./keys.ts";
import { type MemberlistConfig, skeinConfig } from "./memberlist/config.ts";
import { Counters } from "./memberlist/counters.ts";
import { Keyring } from "./memberlist/crypto.ts";
import { Memberlist } from "./memberlist/memberlist.ts";
import { monotonicClock } from "./monotonic.ts";
import { Bootstrap } from "./networkdb/bootstrap.ts";
import { NetworkDb } from "./networkdb/networkdb.ts";
import { openTransport } from "./transport.ts";
import type {
  Gossip,
  GossipKey,
  GossipMember,
  GossipOptions,
  NodeEvent,
  TableEntry,
  TableEvent,
  Transport,
} from "./types.ts";

const defaultPort = 7946;

/**
 * Starts a node: binds the port, listens and answers at once. It joins others when told of some by `setBootstrap`.
 * Rejects when the port is taken or the keys are unusable. `config` differs from ours only in tests.
 */
export async function createGossip(options: GossipOptions, config: MemberlistConfig = skeinConfig): Promise<Gossip> {
  const keyring = new Keyring(keyRing(options.keys));
  const transport =
    options.transport ?? (await openTransport(options.bindAddress, options.port ?? defaultPort, options.clock));
  try {
    return new Node(options, config, keyring, transport);
  } catch (error) {
    if (!options.transport) await transport[Symbol.asyncDispose]();
    throw error;
  }
}

class Node implements Gossip {
  readonly name: string;
  readonly address: string;
  readonly #keyring: Keyring;
  readonly #transport: Transport;
  readonly #counters = new Counters();
  readonly #clock: Clock;
  readonly #list: Memberlist;
  readonly #db: NetworkDb;
  readonly #bootstrap: Bootstrap;
  readonly #cancelBootstrap: () => void;
  readonly #tables: Emitter<TableEvent>;
  readonly #nodes: Emitter<NodeEvent>;
  readonly #messages: Emitter<{ payload: Uint8Array; peer: string }>;
  #leaving: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: GossipOptions, config: MemberlistConfig, keyring: Keyring, transport: Transport) {
    const { advertiseAddress, random = Math.random } = options;
    const clock = options.clock && options.clock !== systemClock ? options.clock : monotonicClock;
    this.#clock = clock;
    this.name = options.name ?? randomBytes(6).toString("hex");
    this.address = advertiseAddress;
    this.#keyring = keyring;
    this.#transport = transport;
    const log = options.log.with({ gossip: this.name });
    const counters = this.#counters;
    const onError = (error: unknown) => log.error("a gossip listener failed", { error: messageOf(error) });
    this.#tables = new Emitter(onError);
    this.#nodes = new Emitter(onError);
    this.#messages = new Emitter(onError);
    this.#db = new NetworkDb({
      name: this.name,
      address: this.address,
      port: transport.port,
      clock,
      random,
      log,
      counters,
      gossipIntervalMs: config.gossipIntervalMs,
      bulkSyncIntervalMs: config.pushPullIntervalMs,
      packetBytes: config.packetBytes,
      retransmitMult: config.retransmitMult,
      eagerNodes: config.eagerNodes,
      onTable: (event) => this.#tables.emit(event),
      onNode: (event) => {
        log.info(`gossip node ${event.kind}`, { node: event.name, address: event.address });
        this.#nodes.emit(event);
      },
      onMessage: (payload, peer) => this.#messages.emit({ payload, peer }),
    });
    const { name, port } = { name: this.name, port: transport.port };
    this.#list = new Memberlist(
      { name, advertiseAddress, advertisePort: port, config, transport, clock, random, keyring, counters, log },
      this.#db,
    );
    this.#bootstrap = new Bootstrap({
      clock,
      log,
      defaultPort: port,
      isSelf: (host, at) => at === port && (host === advertiseAddress || host === transport.address),
      isActive: (host, at) => this.#db.isActive(host, at),
      join: (host, at) => this.#db.joinCluster(host, at),
    });
    this.#list.start();
    this.#db.start(this.#list);
    this.#cancelBootstrap = clock.every(1_000, () => this.#bootstrap.tick());
  }

  setBootstrap(addresses: string[]): void {
    this.#bootstrap.set(addresses);
  }

  setKeys(keys: GossipKey[]): void {
    this.#keyring.replace(keyRing(keys));
  }

  joinNetwork(networkId: string): Promise<void> {
    return this.#db.joinNetwork(networkId);
  }

  leaveNetwork(networkId: string): void {
    this.#db.leaveNetwork(networkId);
  }

  createEntry(table: string, networkId: string, key: string, value: Uint8Array): void {
    this.#db.createEntry(table, networkId, key, value);
  }

  updateEntry(table: string, networkId: string, key: string, value: Uint8Array): void {
    this.#db.updateEntry(table, networkId, key, value);
  }

  deleteEntry(table: string, networkId: string, key: string): void {
    this.#db.deleteEntry(table, networkId, key);
  }

  entries(table: string, networkId: string): TableEntry[] {
    return this.#db.entries(table, networkId);
  }

  peers(networkId?: string): { name: string; address: string }[] {
    return this.#db.peers(networkId);
  }

  members(): GossipMember[] {
    const now = this.#clock.now();
    return this.#list.all().map(({ name, address, port, state, incarnation, changedAt }) => ({
      name,
      address,
      port,
      state,
      incarnation,
      sinceMs: now - changedAt,
      self: name === this.name,
      networks: this.#db.networksOf(name),
    }));
  }

  synced(peer: string, networkId: string): boolean {
    return this.#db.synced(peer, networkId);
  }

  onTable(listener: (event: TableEvent) => void): () => void {
    return this.#tables.on(listener);
  }

  onNode(listener: (event: NodeEvent) => void): () => void {
    return this.#nodes.on(listener);
  }

  send(peer: string, payload: Uint8Array): void {
    this.#db.send(peer, payload);
  }

  onMessage(listener: (payload: Uint8Array, peer: string) => void): () => void {
    return this.#messages.on(({ payload, peer }) => listener(payload, peer));
  }

  stats(): Record<string, number> {
    return {
      ...this.#counters.all(),
      ...this.#db.stats(),
      health: this.#list.health,
      "queue.members": this.#list.queued,
    };
  }

  leave(): Promise<void> {
    this.#leaving ??= (async () => {
      this.#cancelBootstrap();
      await this.#db.leaveCluster();
      await this.#list.leave();
      await this[Symbol.asyncDispose]();
    })();
    return this.#leaving;
  }

  /** Stops without a word to the others, as a crash would. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= (async () => {
      this.#cancelBootstrap();
      this.#db.close();
      this.#list.close();
      await this.#transport[Symbol.asyncDispose]();
    })();
    return this.#closing;
  }
}
