/**
 * Nodes come, fail, leave, come back and take each other's places. Memberlist says so; here it is made of it what the
 * tables need: whose entries go, who must be asked, to whom we must say again what we have.
 */
import { sample } from "../memberlist/shuffle.ts";
import type { Member } from "../memberlist/state.ts";
import type { NodeEvent } from "../types.ts";
import type { Announcer } from "./announcer.ts";
import type { Core } from "./core.ts";
import type { PeerStatus } from "./peers.ts";

const maxReconnects = 4;

export class Roster {
  readonly #core: Core;
  readonly #announcer: Announcer;
  readonly #explained: (name: string) => void;
  readonly #reconnecting = new Set<string>();
  /** Peers taken for gone because another name came up at their address. */
  readonly #replaced = new Set<string>();

  /** `explained`: a node is known now. */
  constructor(core: Core, announcer: Announcer, explained: (name: string) => void) {
    this.#core = core;
    this.#announcer = announcer;
    this.#explained = explained;
  }

  /** Joins the cluster through the node at this address. */
  async join(host: string, port: number): Promise<void> {
    await this.#core.list?.pushPull(host, port, true);
    this.#announcer.self("join");
  }

  isActive(address: string, port: number): boolean {
    return this.#core.peers.withStatus("active").some((peer) => peer.address === address && peer.port === port);
  }

  joined(member: Member): void {
    const { options, peers, list, later } = this.#core;
    const { name, address, port } = member;
    const before = peers.get(name);
    if (address === options.address && port === options.port) {
      // Ourselves before a restart. Nobody knows better than we that it is gone.
      list?.dismiss(name);
      return;
    }
    this.#replaced.delete(name);
    for (const former of peers.joined(name, address, port, options.clock.now())) {
      this.#replaced.add(former.name);
      this.#gone(former.name, "left", "replaced");
    }
    options.onNode({ kind: "join", name, address });
    this.#explained(name);
    if (!before) return;
    // It was taken for dead, and its networks and entries were dropped; it may not even know. Ask it. And it may
    // have taken us for dead as well.
    this.#announcer.again();
    later.run(`learn/${name}`, 300 + options.random() * 700, () => {
      if (peers.networks(name).length === 0) this.#core.exchange(name);
    });
  }

  /** Memberlist's suspicion, and that it was wrong. */
  doubted(member: Member, kind: "alive" | "suspect"): void {
    const { name, address } = member;
    if (this.#core.peers.get(name)?.status === "active") this.#core.options.onNode({ kind, name, address });
  }

  /** A node failed or left, by memberlist's or its own word. */
  gone(name: string, status: Exclude<PeerStatus, "active">): void {
    this.#replaced.delete(name);
    this.#gone(name, status, status);
  }

  /** Called every second. */
  tick(): void {
    this.#reinstate();
    this.#reconnect();
  }

  /** Its entries go at once, without tombstones: they come back with it. */
  #gone(name: string, status: Exclude<PeerStatus, "active">, told: NodeEvent["kind"]): void {
    const { options, peers, bulk, tables } = this.#core;
    const moved = peers.move(name, status, options.clock.now());
    if (!moved) return;
    peers.detachAll(name);
    bulk.forget(name);
    options.onNode({ kind: told, name, address: moved.address });
    this.#core.tell(tables.dropOwner(name));
  }

  /**
   * Two names at one address: the later one wins at first, but news of the former may just have been late. Who
   * outlives the other is the one.
   */
  #reinstate(): void {
    for (const name of this.#replaced) {
      const member = this.#core.list?.live(name);
      if (!member) this.#replaced.delete(name);
      else if (!this.isActive(member.address, member.port)) this.joined(member);
    }
  }

  #reconnect(): void {
    if (this.#reconnecting.size >= maxReconnects) return;
    const { peers, options } = this.#core;
    const failed = peers.withStatus("failed").filter((peer) => !this.#reconnecting.has(peer.name));
    const [peer] = sample(failed, options.random, 1);
    if (!peer) return;
    this.#reconnecting.add(peer.name);
    this.join(peer.address, peer.port)
      .catch((error) => this.#core.noted("reconnect", peer.name, error))
      .finally(() => this.#reconnecting.delete(peer.name));
  }
}
