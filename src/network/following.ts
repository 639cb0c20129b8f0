/**
 * Names, backends or peers of a network changed, here or elsewhere: everything on this host that shows them follows, and
 * whoever waits for that is told. Changes that come while an earlier one is being followed are followed together.
 */
import { messageOf } from "../base/errors.ts";
import type { Standing } from "./announce.ts";
import type { Cluster } from "./cluster.ts";
import type { Core } from "./core.ts";
import type { Datapath } from "./datapath.ts";
import type { Names } from "./names.ts";
import type { Neighbours } from "./neighbours.ts";
import type { Changed } from "./overlay/tables.ts";
import type { PathMtu } from "./path-mtu.ts";
import type { NamespaceKey } from "./plan/types.ts";
import { overlayKey } from "./state.ts";

export interface FollowingParts {
  readonly core: Core;
  readonly cluster: Cluster;
  readonly datapath: Datapath;
  readonly names: Names;
  readonly neighbours: Neighbours;
  readonly pathMtu: PathMtu;
  /** The tables of a network are in the kernel. */
  readonly applied: (networkId: string) => void;
}

export class Following {
  readonly #parts: FollowingParts;
  /** Changes by network that wait for their turn. */
  readonly #waiting = new Map<string, { changed: Set<Changed>; done: Promise<void> }>();
  /** Endpoints of other nodes that the kernel's tables here send connections to, by network. */
  readonly #serving = new Map<string, ReadonlySet<string>>();

  constructor(parts: FollowingParts) {
    this.#parts = parts;
  }

  /** Resolves when a state that includes the caller's change is in the kernel. */
  changed(networkId: string, ...changed: readonly Changed[]): Promise<void> {
    let next = this.#waiting.get(networkId);
    if (!next) {
      const all = new Set<Changed>();
      const done = this.#parts.core.locks.run(`follow ${networkId}`, () => {
        this.#waiting.delete(networkId);
        return this.#follow(networkId, all);
      });
      next = { changed: all, done };
      this.#waiting.set(networkId, next);
    }
    for (const one of changed) next.changed.add(one);
    return next.done;
  }

  /** Gossip found another host: the filter of tunnels lets it in before anything of it is heard. */
  hostCame(): void {
    const { core, datapath } = this.#parts;
    if (!datapath.tunnelsChanged()) return;
    core
      .settle(["host"], "tables")
      .catch((error) => core.log.error("cannot let another host's tunnels in", { error: messageOf(error) }));
  }

  /** What the kernel's tables here make of an endpoint of another node; undefined before they were first written. */
  standing(networkId: string, endpointId: string): Standing | undefined {
    if (!this.#parts.core.networks.has(networkId)) return "withdrawn";
    const serving = this.#serving.get(networkId);
    if (!serving) return undefined;
    return serving.has(endpointId) ? "serving" : "withdrawn";
  }

  /** The network is gone. */
  forget(networkId: string): void {
    const { datapath, names, neighbours } = this.#parts;
    this.#serving.delete(networkId);
    names.changed(networkId);
    datapath.forget(networkId);
    neighbours.forget(networkId);
  }

  async #follow(networkId: string, changed: ReadonlySet<Changed>): Promise<void> {
    const { core, cluster, datapath, names, neighbours, pathMtu, applied } = this.#parts;
    const network = core.networks.get(networkId);
    if (!network) return;
    if (changed.has("peers")) {
      await pathMtu.follow();
      const keys: NamespaceKey[] = [overlayKey(networkId)];
      await core.settle(datapath.tunnelsChanged() ? [...keys, "host"] : keys);
      neighbours.follow(networkId);
    }
    if (!changed.has("endpoints")) return;
    names.changed(networkId);
    datapath.changed(network);
    const serving = cluster.participants(networkId).filter(({ local, draining }) => !local && !draining);
    await core.settle(datapath.affected(network), "tables");
    if (network.spec.ingress) datapath.forgetEarly();
    this.#serving.set(networkId, new Set(serving.map(({ endpointId }) => endpointId)));
    applied(networkId);
    datapath.forgetDead(network);
  }
}
