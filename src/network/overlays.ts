/**
 * Overlay networks on this host: namespace, gossip, and the sandbox of this node's load balancer address.
 * The ingress network's balancer is `ingress_sbox`, which also has a way to the host.
 */
import { messageOf } from "../base/errors.ts";
import type { Cluster } from "./cluster.ts";
import type { Core } from "./core.ts";
import type { Networks } from "./networks.ts";
import type { NamespaceKey } from "./plan/types.ts";
import { attachedTo } from "./plan/world.ts";
import type { Sandboxes } from "./sandboxes.ts";
import { ingressSandboxId, lbSandboxId, type NetworkState, overlayKey, sandboxKey } from "./state.ts";

export const overlayPin = (networkId: string): string => `1-${networkId.slice(0, 10)}`;
const balancerPin = (network: NetworkState): string =>
  network.spec.ingress ? "ingress_sbox" : `lb_${network.spec.id.slice(0, 9)}`;
const balancerId = (network: NetworkState): string =>
  network.spec.ingress ? ingressSandboxId : lbSandboxId(network.spec.name);

export class Overlays {
  readonly #core: Core;
  readonly #networks: Networks;
  readonly #sandboxes: Sandboxes;
  readonly #cluster: Cluster;
  /** Addresses told before their network was created here. */
  #addresses: ReadonlyMap<string, string> = new Map();
  readonly #vanished = new Set<string>();

  constructor(core: Core, networks: Networks, sandboxes: Sandboxes, cluster: Cluster) {
    this.#core = core;
    this.#networks = networks;
    this.#sandboxes = sandboxes;
    this.#cluster = cluster;
  }

  /** The namespace with its switch. */
  async ensure(network: NetworkState): Promise<void> {
    const core = this.#core;
    const key = overlayKey(network.spec.id);
    if (core.namespaces.find(key)) return;
    core.namespaces.ensure(key, overlayPin(network.spec.id));
    await core.settle([key]);
  }

  /** Gossip first, then the switch, then the balancer, whose peer record all others need. */
  async bringUp(network: NetworkState, lbAddress: string | undefined): Promise<void> {
    if (!this.#core.cluster) return;
    this.#cluster.join(network.spec.id);
    // The filter of tunnels before there is one.
    await this.#core.settle(["host"], "tables");
    await this.ensure(network);
    await this.#balancer(network, lbAddress ?? this.#addresses.get(network.spec.id) ?? network.lbAddress);
  }

  async bringUpAll(): Promise<void> {
    for (const network of this.#overlays()) await this.bringUp(network, undefined);
  }

  #overlays(): NetworkState[] {
    return [...this.#core.networks.values()].filter((n) => n.spec.driver === "overlay" && !n.spec.configOnly);
  }

  async #balancer(network: NetworkState, address: string | undefined): Promise<void> {
    const core = this.#core;
    if (!address) return;
    await core.locks.run(`balancer ${network.spec.id}`, async () => {
      const id = balancerId(network);
      const there = core.sandboxes.get(id);
      const has = there?.endpoints.find((endpoint) => endpoint.networkId === network.spec.id);
      if (has && (has.ipv4 === address || has.ipv4.split("/")[0] === address)) return;
      if (there) await this.#sandboxes.remove(id);
      network.lbAddress = address;
      core.store.saveNetwork(network);
      await this.#sandboxes.create(
        {
          id,
          mode: "private",
          hostname: id,
          domainname: "",
          dns: { servers: [], search: [], options: [] },
          extraHosts: [],
          ports: [],
        },
        network.spec.ingress ? "ingress" : "lb",
        balancerPin(network),
      );
      await this.#sandboxes.connect(id, {
        networkId: network.spec.id,
        name: network.spec.ingress ? "ingress-endpoint" : `${network.spec.name}-endpoint`,
        aliases: [],
        ipv4: address,
      });
    });
  }

  async setLoadBalancers(addresses: ReadonlyMap<string, string>): Promise<void> {
    const core = this.#core;
    this.#addresses = new Map(addresses);
    this.#vanished.clear();
    if (!core.cluster) return;
    for (const network of this.#overlays()) {
      const { id } = network.spec;
      const address = addresses.get(id);
      if (address) await this.#balancer(network, address);
      // One that never had an address here is new: its address is on the way.
      else if (network.lbAddress !== undefined) {
        this.#vanished.add(id);
        await this.removeIfVanished(id);
      }
    }
  }

  /** A network that the managers took away from this node goes with the last container on it. */
  async removeIfVanished(networkId: string): Promise<void> {
    const core = this.#core;
    const network = core.networks.get(networkId);
    if (!network || !this.#vanished.has(networkId)) return;
    if (attachedTo(core.world, networkId).some(({ endpoint }) => endpoint.role === "user")) return;
    this.#vanished.delete(networkId);
    await this.remove(network);
  }

  async tearDown(network: NetworkState): Promise<void> {
    const core = this.#core;
    const id = balancerId(network);
    // The sandbox goes by a name: a network that took this one's place (a new ingress) may have it by now.
    const mine = core.sandboxes.get(id)?.endpoints.some((endpoint) => endpoint.networkId === network.spec.id);
    if (mine) await this.#sandboxes.remove(id);
    this.#cluster.leave(network.spec.id);
    await core.endOverlay(overlayKey(network.spec.id), overlayPin(network.spec.id));
  }

  async remove(network: NetworkState): Promise<void> {
    await this.tearDown(network);
    await this.#networks.remove(network);
  }

  /** Leaving the swarm: every overlay goes, and whoever is on another network of the swarm, with whatever is still on it. */
  async tearDownAll(): Promise<void> {
    const core = this.#core;
    this.#addresses = new Map();
    for (const network of core.networks.values()) {
      if (network.spec.scope !== "swarm") continue;
      try {
        for (const { sandbox, endpoint } of attachedTo(core.world, network.spec.id)) {
          if (endpoint.role === "user") await this.#sandboxes.disconnect(sandbox.id, network.spec.id);
        }
        if (network.spec.driver === "overlay") await this.remove(network);
      } catch (error) {
        core.log.error("cannot remove a swarm network", { network: network.spec.name, error: messageOf(error) });
      }
    }
  }

  /**
   * Namespaces whose pin somebody removed are pinned again; with "all" those that vanished are made anew, which must
   * not happen while networks come and go.
   */
  repin(which: "pins" | "all"): [NamespaceKey, string][] {
    const { cluster, namespaces, sandboxes } = this.#core;
    const done: NamespaceKey[] = [];
    for (const { spec } of cluster ? this.#overlays() : []) {
      const key = overlayKey(spec.id);
      const pin = overlayPin(spec.id);
      if (namespaces.find(key) ? namespaces.repin(key, pin) : which === "all" && namespaces.ensure(key, pin)) {
        done.push(key);
      }
    }
    for (const sandbox of sandboxes.values()) {
      const file = sandbox.path?.split("/").at(-1);
      if (file && namespaces.repin(sandboxKey(sandbox.id), file)) done.push(sandboxKey(sandbox.id));
    }
    return done.map((key) => [key, "pin the namespace"]);
  }
}
