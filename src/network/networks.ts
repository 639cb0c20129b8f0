/** Life of networks, local and swarm-wide: what every host has, creation, removal. */
import { randomBytes } from "node:crypto";
import { forbidden, invalid } from "../base/errors.ts";
import { hexId } from "../base/id.ts";
import { formatSubnet, parseCidr } from "./address.ts";
import type { Core } from "./core.ts";
import { defaultBridgeOptions, gatewayBridgeOptions } from "./drivers/bridge.ts";
import { parseOverlay } from "./drivers/overlay.ts";
import { completeLocal } from "./local-network.ts";
import { attachedTo } from "./plan/world.ts";
import { gatewayBridge, type NetworkState } from "./state.ts";
import type { IpamPool, NetworkSpec } from "./types.ts";

const predefined: ReadonlySet<string> = new Set(["bridge", "host", "none"]);

/** RFC 3339 with nanoseconds, as Go prints it. */
function timestamp(now: number): string {
  const fraction = `${String(Math.floor(now) % 1000).padStart(3, "0")}${String(randomBytes(3).readUIntBE(0, 3) % 1_000_000).padStart(6, "0")}`;
  return `${new Date(now).toISOString().slice(0, 19)}.${fraction}Z`;
}

const blank = {
  scope: "local",
  enableIPv4: true,
  enableIPv6: false,
  internal: false,
  attachable: false,
  ingress: false,
  configOnly: false,
  configFrom: "",
  labels: {},
} as const;

/** Whether this host gives out the network's addresses. */
export const hasPools = (spec: NetworkSpec): boolean => spec.driver !== "overlay" && !spec.configOnly;

export class Networks {
  readonly #core: Core;
  #idle = new Set<string>();

  constructor(core: Core) {
    this.#core = core;
  }

  /** Makes what every host has: bridge, host, none. No kernel yet. */
  async ensureDefaults(): Promise<void> {
    const core = this.#core;
    const have = (name: string) => [...core.networks.values()].some((n) => n.spec.name === name);
    const created = () => timestamp(core.clock.now());
    const ipam = { driver: "default", options: null, config: [] };
    for (const [name, driver] of [
      ["host", "host"],
      ["none", "null"],
    ] as const) {
      if (!have(name))
        this.#keep({ spec: { ...blank, id: hexId(), name, driver, created: created(), ipam, options: {} } });
    }
    if (have("bridge")) return;
    const bip = core.options.bip ? parseCidr(core.options.bip) : undefined;
    if (core.options.bip && !bip) throw invalid(`invalid bip ${core.options.bip}: invalid CIDR block notation`);
    const config: IpamPool[] = bip
      ? [{ subnet: formatSubnet(bip.subnet), gateway: core.options.bip?.split("/")[0] ?? "" }]
      : [];
    const spec: NetworkSpec = {
      ...blank,
      id: hexId(),
      name: "bridge",
      driver: "bridge",
      created: created(),
      ipam: { ...ipam, config },
      options: { ...defaultBridgeOptions },
    };
    this.#keep(completeLocal(core, spec));
  }

  /** The bridge by which containers on overlays reach the outside; one that a user made is left as it is. */
  async ensureGatewayBridge(): Promise<NetworkState> {
    const core = this.#core;
    return core.locks.run(`network ${gatewayBridge}`, async () => {
      const there = [...core.networks.values()].find((n) => n.spec.name === gatewayBridge);
      if (there) return there;
      const spec: NetworkSpec = {
        ...blank,
        id: hexId(),
        name: gatewayBridge,
        driver: "bridge",
        created: timestamp(core.clock.now()),
        ipam: { driver: "default", options: null, config: [] },
        options: { ...gatewayBridgeOptions },
      };
      return this.#establish(completeLocal(core, spec));
    });
  }

  /** A local network: checked, completed, made. */
  async createLocal(spec: NetworkSpec): Promise<NetworkState> {
    const core = this.#core;
    return core.locks.run(`network ${spec.name}`, () => this.#establish(completeLocal(core, spec)));
  }

  /**
   * A swarm network. An overlay arrives complete and is only checked; of other drivers the managers know no more than
   * the name, and this host's own configuration decides.
   */
  async createSwarm(spec: NetworkSpec, lbAddress: string | undefined): Promise<NetworkState> {
    const core = this.#core;
    const there = core.networks.get(spec.id);
    if (there) {
      this.#idle.delete(spec.id);
      return there;
    }
    if (spec.driver !== "overlay") {
      return core.locks.run(`network ${spec.name}`, async () => {
        for (const state of this.#unused()) await this.remove(state);
        return this.#establish(completeLocal(core, spec));
      });
    }
    parseOverlay(spec);
    const state: NetworkState = { spec, userSubnets: true, bridgeByUser: false, lbAddress };
    this.#keep(state);
    core.events.emit({ kind: "create", network: spec });
    return state;
  }

  /** Networks of the swarm that are this host's own matter, and that nobody here is on. */
  #unused(): NetworkState[] {
    const { networks, world } = this.#core;
    return [...networks.values()].filter(
      ({ spec }) => spec.scope === "swarm" && spec.driver !== "overlay" && attachedTo(world, spec.id).length === 0,
    );
  }

  /** Removes those that were unused the last time too: one just made waits for its first container. */
  async sweepUnused(all = false): Promise<void> {
    const unused = this.#unused();
    const due = unused.filter(({ spec }) => all || this.#idle.has(spec.id));
    this.#idle = new Set(unused.map(({ spec }) => spec.id));
    for (const state of due) {
      this.#idle.delete(state.spec.id);
      await this.remove(state);
    }
  }

  async #establish(state: NetworkState): Promise<NetworkState> {
    const core = this.#core;
    this.#keep(state);
    try {
      await core.settle(["host"]);
    } catch (error) {
      this.#forget(state);
      await core.settle(["host"]).catch(() => {});
      throw error;
    }
    core.events.emit({ kind: "create", network: state.spec });
    return state;
  }

  #keep(state: Pick<NetworkState, "spec"> & Partial<NetworkState>): void {
    const full: NetworkState = { userSubnets: false, bridgeByUser: false, ...state };
    this.#core.networks.set(full.spec.id, full);
    if (hasPools(full.spec)) this.#core.pools.add(full.spec);
    this.#core.store.saveNetwork(full);
  }

  #forget(state: NetworkState): void {
    this.#core.networks.delete(state.spec.id);
    this.#core.pools.remove(state.spec.id);
    this.#core.store.deleteNetwork(state.spec.id);
  }

  /** Throws when the network may not go. */
  checkRemovable(state: NetworkState): void {
    const { spec } = state;
    if (predefined.has(spec.name) && spec.scope === "local") {
      throw forbidden(`${spec.name} is a pre-defined network and cannot be removed`);
    }
    const active = attachedTo(this.#core.world, spec.id).some(({ endpoint }) => endpoint.role !== "lb");
    if (active) {
      throw forbidden(`error while removing network: network ${spec.name} id ${spec.id} has active endpoints`);
    }
    const user = [...this.#core.networks.values()].find((n) => n.spec.configFrom === spec.name);
    if (spec.configOnly && user) throw forbidden(`configuration network "${spec.name}" is in use`);
  }

  async remove(state: NetworkState): Promise<void> {
    this.#forget(state);
    await this.#core.settle(["host"]);
    this.#core.events.emit({ kind: "destroy", network: state.spec });
  }
}
