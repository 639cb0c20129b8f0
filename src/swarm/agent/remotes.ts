/**
 * Which manager to talk to: a weighted random choice that learns from experience.
 * (SwarmKit: remotes/remotes.go)
 */
export interface ManagerPeer {
  readonly nodeId: string;
  /** "host:port". */
  readonly addr: string;
}

/** A good experience with a manager adds this to what is remembered of it, a bad one takes it away. */
export const goodExperience = 10;
export const badExperience = -10;

/** Observations are averaged with what is remembered: half of each. */
const smoothing = 0.5;
const maxWeight = 256;
/** So that a manager with weight 0 is still chosen when there is no better; less so the worse it was. */
const bias = 0.001;
const halved = 1.25;
const shareOf = (weight: number) => Math.max(0, weight) + bias * 2 ** (Math.min(0, weight) / halved);

/** The known managers and their weights. Keyed by address: a manager that moved is another choice. */
export class Remotes {
  #weights = new Map<string, { peer: ManagerPeer; weight: number }>();

  constructor(peers: readonly ManagerPeer[] = []) {
    for (const peer of peers) this.observe(peer, goodExperience);
  }

  peers(): ManagerPeer[] {
    return [...this.#weights.values()].map((entry) => entry.peer);
  }

  weight(addr: string): number | undefined {
    return this.#weights.get(addr)?.weight;
  }

  /** Remembers an experience (positive good, negative bad) with a manager. */
  observe(peer: ManagerPeer, observation: number): void {
    const old = this.#weights.get(peer.addr);
    const weight = Math.ceil(smoothing * observation + (1 - smoothing) * (old?.weight ?? 0));
    const clipped = Math.max(-maxWeight, Math.min(maxWeight, weight));
    // An address read from a join request has no node id until a session tells it.
    const nodeId = peer.nodeId || (old?.peer.nodeId ?? "");
    this.#weights.set(peer.addr, { peer: { nodeId, addr: peer.addr }, weight: clipped });
  }

  /** As `observe`, but only of managers that are still known: a late failure must not bring one back. */
  observeKnown(peer: ManagerPeer, observation: number): void {
    if (this.#weights.has(peer.addr)) this.observe(peer, observation);
  }

  /**
   * The managers' own list. Those missing from it are forgotten; an empty list is not believed, because
   * nothing would be left to come back to.
   */
  replace(list: readonly { peer: ManagerPeer; weight: number }[]): void {
    if (list.length === 0) return;
    const listed = new Set(list.map((entry) => entry.peer.addr));
    for (const addr of this.#weights.keys()) {
      if (!listed.has(addr)) this.#weights.delete(addr);
    }
    for (const { peer, weight } of list) this.observe(peer, weight);
  }

  /** Chooses one; `random` is uniform in [0,1). Undefined when none is known. */
  select(random: () => number): ManagerPeer | undefined {
    const entries = [...this.#weights.values()].map(({ peer, weight }) => ({
      peer,
      share: shareOf(weight),
    }));
    let point = random() * entries.reduce((sum, entry) => sum + entry.share, 0);
    for (const { peer, share } of entries) {
      point -= share;
      if (point < 0) return peer;
    }
    return entries.at(-1)?.peer;
  }
}
