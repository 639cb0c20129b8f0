/** What we say of ourselves: that we are here, and which networks we are in. */
import { sample } from "../memberlist/shuffle.ts";
import type { Core } from "./core.ts";
import { encodeDb, type NetworkMessage, type NodeMessage } from "./messages.ts";

const sayAgainMs = 1_500;

export class Announcer {
  readonly #core: Core;

  constructor(core: Core) {
    this.#core = core;
  }

  self(type: NodeMessage["type"]): void {
    const { networkClock, options } = this.#core;
    this.#announce({ kind: "node", type, ltime: networkClock.increment(), node: options.name });
  }

  network(type: NetworkMessage["type"], networkId: string, ltime: bigint): void {
    this.#announce({ kind: "network", type, ltime, node: this.#core.options.name, networkId });
  }

  /**
   * Others have dropped our networks and entries, or may have: say it all again, once they have heard that we live.
   * A real Docker node would else not know before its next push/pull and bulk sync, half a minute each.
   */
  again(): void {
    const { later, networkClock, peers, own, plan } = this.#core;
    later.run("announce", sayAgainMs, () => {
      const ltime = networkClock.increment();
      peers.renew(ltime);
      for (const networkId of own.keys()) {
        this.network("join", networkId, ltime);
        for (const peer of peers.others(networkId)) plan.soon(peer, networkId);
      }
    });
  }

  /** Gossips our own news, and tells it directly to as many as is cheap: most races are lost by gossip's delay. */
  #announce(event: NodeMessage | NetworkMessage): void {
    const { options, queue, list } = this.#core;
    const { name, random, eagerNodes } = options;
    const key = event.kind === "node" ? `node/${event.node}` : `net/${event.node}/${event.networkId}`;
    const message = encodeDb(event);
    queue.push({ key, message });
    const others = list?.members().filter((member) => member.name !== name) ?? [];
    for (const member of sample(others, random, eagerNodes)) list?.sendPacket(member, message);
  }
}
