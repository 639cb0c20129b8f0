/**
 * What the sandboxes of this host remember of each other's and of other hosts' MAC addresses (their ARP tables).
 *
 * MACs on overlays are random, so an address that another task has now is another MAC; whoever talked to the former one
 * remembers it for up to 45 seconds and then has doubts for five more, in which everything it sends goes nowhere, in each
 * sandbox for itself. The swarm lets addresses rest, but not when there are few, nor for ever. So whenever a network's
 * peers change, what contradicts them is forgotten, and asked again with the next packet.
 */
import { messageOf } from "../base/errors.ts";
import type { Neigh } from "../kernel/types.ts";
import { plainIp } from "./address.ts";
import type { Core } from "./core.ts";
import { legName, legOf } from "./plan/leg.ts";
import type { NamespaceKey } from "./plan/types.ts";
import { attachedTo } from "./plan/world.ts";
import { overlayKey, sandboxKey } from "./state.ts";

/** Entries of a device that name another MAC than the known one. Of unknown addresses nothing is said. */
export function outdated(entries: readonly Neigh[], link: number, known: ReadonlyMap<string, string>): Neigh[] {
  return entries.filter((entry) => {
    const mac = known.get(entry.address);
    return entry.link === link && !entry.permanent && entry.mac !== "" && mac !== undefined && mac !== entry.mac;
  });
}

/** No sandbox remembers for longer what this daemon has not heard of because it came after it. */
const youthMs = 120_000;

export class Neighbours {
  readonly #core: Core;
  readonly #began: number;
  /** By network, the last MAC of every address that was ever known, as the sandboxes were last compared with it. */
  readonly #compared = new Map<string, Map<string, string>>();

  constructor(core: Core) {
    this.#core = core;
    this.#began = core.clock.steady();
  }

  /**
   * The network's own switch has been brought up to date: its sandboxes forget what it contradicts. `anyway`: they are
   * compared even if nothing was said that could contradict them.
   */
  follow(networkId: string, anyway = false): void {
    const known = this.#known(networkId);
    const core = this.#core;
    const young = core.clock.steady() - this.#began < youthMs;
    const compared = this.#compared.get(networkId);
    const last = compared ?? new Map<string, string>();
    let outdates = anyway || !compared;
    for (const [address, mac] of known) {
      const former = last.get(address);
      if (former === mac) continue;
      last.set(address, mac);
      // Nobody remembers an address that has never been there before.
      if (former !== undefined || young) outdates = true;
    }
    this.#compared.set(networkId, last);
    if (!outdates) return;
    for (const { sandbox, endpoint } of attachedTo(core.world, networkId)) {
      if (endpoint.ifName !== "") this.#forgetOutdated(sandboxKey(sandbox.id), endpoint.ifName, known);
    }
    if (legOf(core.world)?.network.spec.id === networkId) this.#forgetOutdated("host", legName, known);
  }

  #forgetOutdated(key: NamespaceKey, device: string, known: ReadonlyMap<string, string>): void {
    const { log, namespaces } = this.#core;
    const open = namespaces.find(key);
    if (!open) return;
    try {
      const { rtnl } = open;
      const entries = rtnl.neighs();
      const link = entries.length > 0 ? rtnl.link(device)?.index : undefined;
      if (link === undefined) return;
      const found = outdated(entries, link, known);
      if (found.length === 0) return;
      open.aboutToChange();
      for (const { address, mac } of found) {
        rtnl.delNeigh(link, address);
        log.debug("an outdated neighbour is forgotten", { namespace: key, address, mac });
      }
      open.forget();
    } catch (error) {
      log.warn("cannot forget neighbours", { namespace: key, error: messageOf(error) });
    }
  }

  forget(networkId: string): void {
    this.#compared.delete(networkId);
  }

  /** Addresses and their MACs as the switch answers for the other hosts, and those of this host. */
  #known(networkId: string): Map<string, string> {
    const core = this.#core;
    const known = new Map<string, string>();
    for (const { address, mac } of core.planOf(overlayKey(networkId))?.neighs ?? []) known.set(address, mac);
    for (const { endpoint } of attachedTo(core.world, networkId)) {
      for (const cidr of [endpoint.ipv4, endpoint.ipv6]) if (cidr) known.set(plainIp(cidr), endpoint.mac);
    }
    return known;
  }
}
