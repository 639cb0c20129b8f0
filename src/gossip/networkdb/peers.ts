/**
 * Who is in the cluster and in which networks, pure. Memberlist alone brings nodes in; networkdb's own events
 * only refine what it says.
 */
import type { Attachment, NetworkMessage, NodeMessage } from "./messages.ts";

export type PeerStatus = "active" | "failed" | "left";

export interface Peer {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  /** Network clock's time of the last event about it. */
  readonly ltime: bigint;
  readonly status: PeerStatus;
  readonly changedAt: number;
}

interface Attached {
  ltime: bigint;
  leaving: boolean;
  /** When the mark of leaving may be forgotten. */
  reapAt: number;
}

/** The mark that a node left a network outlives the tombstones of its entries. */
const reapNetworkMs = 30 * 60 * 1000 + 25_000;
const forgetPeerMs = 24 * 60 * 60 * 1000;
export interface PeerLimits {
  /** All nodes together may be in so many networks, those that they left lately included. */
  readonly attachments: number;
  /** So many that are gone are remembered. */
  readonly gone: number;
}

export class Peers {
  readonly #self: string;
  readonly #peers = new Map<string, Peer>();
  readonly #attached = new Map<string, Map<string, Attached>>();
  readonly #members = new Map<string, Set<string>>();
  readonly #limits: PeerLimits;
  #attachments = 0;

  constructor(self: string, limits: PeerLimits = { attachments: 200_000, gone: 10_000 }) {
    this.#self = self;
    this.#limits = limits;
  }

  get(name: string): Peer | undefined {
    return this.#peers.get(name);
  }

  withStatus(status: PeerStatus): Peer[] {
    return [...this.#peers.values()].filter((peer) => peer.status === status);
  }

  /**
   * Memberlist saw the node come. Returns those whose place it takes: same address and port, other name. They
   * were the same node before a restart.
   */
  joined(name: string, address: string, port: number, now: number): Peer[] {
    const ltime = this.#peers.get(name)?.ltime ?? 0n;
    this.#peers.set(name, { name, address, port, ltime, status: "active", changedAt: now });
    return [...this.#peers.values()].filter(
      (peer) => peer.name !== name && peer.address === address && peer.port === port && peer.status !== "left",
    );
  }

  /** Moves a peer; undefined when it is unknown or there already. A peer that left does not fail afterwards. */
  move(name: string, status: PeerStatus, now: number): Peer | undefined {
    const peer = this.#peers.get(name);
    if (!peer || peer.status === status || (peer.status === "left" && status === "failed")) return undefined;
    const moved = { ...peer, status, changedAt: now };
    this.#peers.set(name, moved);
    return moved;
  }

  /** Takes a node event's time; true when it is news about an active peer. */
  freshNodeEvent(event: NodeMessage): boolean {
    const peer = this.#peers.get(event.node);
    if (!peer || peer.ltime >= event.ltime) return false;
    this.#peers.set(peer.name, { ...peer, ltime: event.ltime });
    return peer.status === "active";
  }

  /** Takes a network event about another node; "unknown" when memberlist has not told of the node yet. */
  networkEvent(event: Omit<NetworkMessage, "kind">, now: number): "fresh" | "stale" | "unknown" | "full" {
    const attached = this.#attached.get(event.node);
    const known = attached?.get(event.networkId);
    if (known && known.ltime >= event.ltime) return "stale";
    if (!known && event.type === "leave") return "stale";
    if (this.#peers.get(event.node)?.status !== "active") return "unknown";
    if (!known && this.#attachments >= this.#limits.attachments) return "full";
    if (event.type === "join") this.attach(event.node, event.networkId, event.ltime);
    else this.detach(event.node, event.networkId, event.ltime, now);
    return "fresh";
  }

  attach(name: string, networkId: string, ltime: bigint): void {
    const attached = this.#attached.get(name) ?? new Map<string, Attached>();
    this.#attached.set(name, attached);
    if (!attached.has(networkId)) this.#attachments++;
    attached.set(networkId, { ltime, leaving: false, reapAt: 0 });
    const members = this.#members.get(networkId) ?? new Set<string>();
    this.#members.set(networkId, members.add(name));
  }

  /** Marks the node as having left the network. */
  detach(name: string, networkId: string, ltime: bigint, now: number): void {
    this.#attached.get(name)?.set(networkId, { ltime, leaving: true, reapAt: now + reapNetworkMs });
    this.#dropMember(networkId, name);
  }

  /** Forgets all attachments of a node that is gone. */
  detachAll(name: string): void {
    this.#attachments -= this.#attached.get(name)?.size ?? 0;
    for (const networkId of this.#attached.get(name)?.keys() ?? []) this.#dropMember(networkId, name);
    this.#attached.delete(name);
  }

  isMember(name: string, networkId: string): boolean {
    return this.#members.get(networkId)?.has(name) ?? false;
  }

  /** Names of the nodes in a network, we included. */
  members(networkId: string): string[] {
    return [...(this.#members.get(networkId) ?? [])];
  }

  others(networkId: string): string[] {
    return this.members(networkId).filter((name) => name !== this.#self);
  }

  /** Networks that a node is in. */
  networks(name: string): string[] {
    return [...(this.#attached.get(name) ?? [])].filter(([, { leaving }]) => !leaving).map(([id]) => id);
  }

  /** Networks that both of us are in. */
  common(name: string): string[] {
    return this.networks(this.#self).filter((networkId) => this.isMember(name, networkId));
  }

  /** Time of the last word on whether a node is in a network. */
  saidOf(name: string, networkId: string): bigint | undefined {
    return this.#attached.get(name)?.get(networkId)?.ltime;
  }

  /** Stamps our own attachments anew, over stale copies that others may have. */
  renew(ltime: bigint): void {
    for (const attached of this.#attached.get(this.#self)?.values() ?? []) attached.ltime = ltime;
  }

  attachments(): Attachment[] {
    return [...this.#attached].flatMap(([node, networks]) =>
      [...networks].map(([networkId, { ltime, leaving }]) => ({ node, networkId, ltime, leaving })),
    );
  }

  /** Who is in a network or has left it lately. */
  attachmentsTo(networkId: string): Attachment[] {
    return [...this.#attached].flatMap(([node, networks]) => {
      const known = networks.get(networkId);
      return known ? [{ node, networkId, ltime: known.ltime, leaving: known.leaving }] : [];
    });
  }

  /** Forgets old marks and peers that have been gone for a day; returns own networks whose mark went. */
  reap(now: number): string[] {
    const own: string[] = [];
    for (const [name, networks] of this.#attached) {
      for (const [networkId, { leaving, reapAt }] of networks) {
        if (!leaving || reapAt > now) continue;
        networks.delete(networkId);
        this.#attachments--;
        if (name === this.#self) own.push(networkId);
      }
    }
    const gone = [...this.#peers.values()].filter((peer) => peer.status !== "active");
    gone.sort((a, b) => b.changedAt - a.changedAt);
    for (const [index, peer] of gone.entries()) {
      if (index >= this.#limits.gone || now - peer.changedAt > forgetPeerMs) this.#peers.delete(peer.name);
    }
    return own;
  }

  #dropMember(networkId: string, name: string): void {
    const members = this.#members.get(networkId);
    members?.delete(name);
    if (members?.size === 0) this.#members.delete(networkId);
  }
}
