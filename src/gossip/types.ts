/**
 * The door of the gossip room: a cluster of nodes (memberlist) and on it tables per network (networkdb).
 * Wire facts: memberlist and libnetwork's networkdb as Docker uses them, TCP+UDP 7946.
 */
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";

/** A swarm bootstrap key (`docker.swarmkit.v1.EncryptionKey`, subsystem "networking:gossip"). */
export interface GossipKey {
  /** 16 bytes. */
  readonly key: Uint8Array;
  readonly lamportTime: bigint;
}

/** How packets and streams travel; real sockets in production, an in-memory network in tests. */
export interface Transport extends AsyncDisposable {
  readonly address: string;
  readonly port: number;
  send(address: string, port: number, packet: Uint8Array): void;
  onPacket(listener: (packet: Buffer, address: string, port: number) => void): void;
  /** Opens a stream; rejects after `timeoutMs`. */
  dial(address: string, port: number, timeoutMs: number): Promise<GossipStream>;
  onStream(listener: (stream: GossipStream, address: string) => void): void;
}

/** A TCP exchange: one message each way, then closed. */
export interface GossipStream {
  write(bytes: Uint8Array): Promise<void>;
  /** Reads exactly `length` bytes; rejects on end of file or time-out. */
  read(length: number): Promise<Buffer>;
  close(): void;
}

export interface TableEvent {
  readonly kind: "create" | "update" | "delete";
  readonly table: string;
  readonly networkId: string;
  readonly key: string;
  /** For deletes the last known value. */
  readonly value: Uint8Array;
  /** Name of the gossip node that owns the entry. */
  readonly owner: string;
  readonly ownerAddress: string;
  readonly local: boolean;
}

/**
 * Liveness of another node. "suspect" comes before "failed" and may be taken back by "alive". "replaced": another name
 * came up at its address; it was restarted, its entries go, and what is still true of them comes again by the new name.
 */
export interface NodeEvent {
  readonly kind: "join" | "alive" | "suspect" | "failed" | "left" | "replaced";
  readonly name: string;
  readonly address: string;
}

/** A node as it is known here, for people who look. */
export interface GossipMember {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly state: "alive" | "suspect" | "dead" | "left";
  /** Grows each time the node takes back a suspicion. */
  readonly incarnation: number;
  /** Milliseconds since `state` changed. */
  readonly sinceMs: number;
  readonly self: boolean;
  /** Ids of the networks that it is in. */
  readonly networks: readonly string[];
}

export interface TableEntry {
  readonly key: string;
  readonly value: Uint8Array;
  readonly owner: string;
  readonly ownerAddress: string;
  readonly local: boolean;
}

export interface Gossip extends AsyncDisposable {
  /** 12 hex characters, new at every start. */
  readonly name: string;
  readonly address: string;
  /** Addresses ("host" or "host:port") of nodes to join; kept and retried until one answers, then re-checked. */
  setBootstrap(addresses: string[]): void;
  /** Replaces the key ring by Docker's rules (primary = second smallest Lamport time). */
  setKeys(keys: GossipKey[]): void;
  /** Announces membership of a network and syncs its tables with all known members. */
  joinNetwork(networkId: string): Promise<void>;
  leaveNetwork(networkId: string): void;
  createEntry(table: string, networkId: string, key: string, value: Uint8Array): void;
  updateEntry(table: string, networkId: string, key: string, value: Uint8Array): void;
  deleteEntry(table: string, networkId: string, key: string): void;
  entries(table: string, networkId: string): TableEntry[];
  /** Members of the cluster, or of one network; this node included. */
  peers(networkId?: string): { name: string; address: string }[];
  /** Everybody that is known, those included that are suspected, dead or gone but not yet forgotten. */
  members(): GossipMember[];
  /** Whether tables of a network were exchanged with this member since it came: what it has is known here. */
  synced(peer: string, networkId: string): boolean;
  onTable(listener: (event: TableEvent) => void): () => void;
  onNode(listener: (event: NodeEvent) => void): () => void;
  /**
   * A word to one node, in one packet that may be lost. Only for nodes that are known to be ours: others count it as
   * malformed.
   */
  send(peer: string, payload: Uint8Array): void;
  onMessage(listener: (payload: Uint8Array, peer: string) => void): () => void;
  /** Dropped and malformed packets by reason, queue lengths, health score. */
  stats(): Record<string, number>;
  /** Leaves gracefully, then closes. */
  leave(): Promise<void>;
}

export interface GossipOptions {
  readonly bindAddress: string;
  readonly advertiseAddress: string;
  /** Default 7946. */
  readonly port?: number;
  readonly keys: GossipKey[];
  readonly log: Logger;
  readonly clock?: Clock;
  readonly transport?: Transport;
  /** Uniform in [0,1); tests pass a seeded one. */
  readonly random?: () => number;
  readonly name?: string;
}
