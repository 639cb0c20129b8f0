/** Which hosts gossip takes for alive: a second opinion for those who decide whether a node is lost. */
import type { Gossip } from "../gossip/types.ts";

export class HostLiveness {
  readonly #gossip: () => Gossip | undefined;
  #attached: Gossip | undefined;
  /** Addresses of suspected and failed nodes by their gossip names. */
  readonly #silent = new Map<string, string>();

  constructor(gossip: () => Gossip | undefined) {
    this.#gossip = gossip;
  }

  /** To be called whenever gossip may have begun or ended. */
  attach(): void {
    const gossip = this.#gossip();
    if (gossip === this.#attached) return;
    this.#attached = gossip;
    this.#silent.clear();
    gossip?.onNode(({ kind, name, address }) => {
      if (kind === "suspect" || kind === "failed") this.#silent.set(name, address);
      else this.#silent.delete(name);
    });
  }

  /** Undefined where gossip knows nothing of such a host. A host that came back under another name is not silent. */
  isSilent(address: string): boolean | undefined {
    const peers = this.#attached?.peers() ?? [];
    if (peers.some((peer) => peer.address === address && !this.#silent.has(peer.name))) return false;
    return [...this.#silent.values()].includes(address) ? true : undefined;
  }
}
