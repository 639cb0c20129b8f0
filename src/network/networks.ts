/** Creation and removal of networks, local and swarm-wide. */
import { createHash, randomBytes } from "node:crypto";
import { conflict, forbidden, invalid, notFound, SkeinError } from "../base/errors.ts";
import { hexId } from "../base/id.ts";
import { missingFeature } from "../kernel/feature.ts";
import { formatSubnet, parseCidr, type Subnet } from "./address.ts";
import type { Core } from "./core.ts";
import { defaultBridgeOptions, gatewayBridgeOptions, parseBridge } from "./drivers/bridge.ts";
import { type Parent, parseIpvlan, parseMacvlan } from "./drivers/macvlan.ts";
import { parseOverlay } from "./drivers/overlay.ts";
import {
  type AddressPoolBlock,
  completePools,
  defaultLocalPools,
  parsePool,
  type Surroundings,
  uniqueLocalBlock,
} from "./ipam/request.ts";
import { aliasPrefix } from "./plan/types.ts";
import { attachedTo, bridgeName, bridgesOf } from "./plan/world.ts";
import { gatewayBridge, type NetworkState } from "./state.ts";
import type { DriverName, IpamPool, NetworkSpec } from "./types.ts";

export const predefined: ReadonlySet<string> = new Set(["bridge", "host", "none"]);
const known: ReadonlySet<string> = new Set<DriverName>(["bridge", "host", "null", "overlay", "macvlan", "ipvlan"]);

/** RFC 3339 with nanoseconds, as Go prints it. */
export function timestamp(now: number): string {
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

/** A network of the swarm has its labels from the managers, not from who makes it here. */
const labelled = (spec: NetworkSpec): boolean => spec.scope === "local" && Object.keys(spec.labels).length > 0;

const kernelOptions = { macvlan: "MACVLAN", ipvlan: "IPVLAN", dummy: "DUMMY", vlan: "VLAN_8021Q" } as const;

function needFeature(feature: keyof typeof kernelOptions, what: string): void {
  const missing = missingFeature(feature);
  if (missing === undefined) return;
  throw new SkeinError(
    "notImplemented",
    `${what} need CONFIG_${kernelOptions[feature]}, which this kernel lacks: ${missing}`,
  );
}

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
    this.#keep(this.#local(spec));
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
      return this.#establish(this.#local(spec));
    });
  }

  /** A local network: checked, completed, made. */
  async createLocal(spec: NetworkSpec): Promise<NetworkState> {
    return this.#core.locks.run(`network ${spec.name}`, () => this.#establish(this.#local(spec)));
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
        return this.#establish(this.#local(spec));
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

  /** Checks and completes the description of a local network. */
  #local(asked: NetworkSpec): NetworkState {
    const core = this.#core;
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(asked.name)) {
      throw invalid(`invalid network name "${asked.name}": only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed`);
    }
    const namesake = (n: NetworkState) => n.spec.name === asked.name && n.spec.scope === "local";
    if (asked.scope === "local" && [...core.networks.values()].some(namesake)) {
      throw conflict(`network with name ${asked.name} already exists`);
    }
    if (asked.configOnly) {
      if (asked.ingress || asked.internal || asked.attachable) {
        throw forbidden(
          "configuration network can only contain network specific fields. " +
            "Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
        );
      }
      for (const pool of asked.ipam.config) if (pool.subnet) parsePool(pool);
      return { spec: { ...asked, driver: "null" }, userSubnets: false, bridgeByUser: false };
    }
    if (!known.has(asked.driver)) throw notFound(`plugin "${asked.driver}" not found`);
    if (asked.driver === "host" || asked.driver === "null") {
      throw forbidden(`only one instance of "${asked.driver}" network is allowed`);
    }
    if (asked.ingress) throw forbidden("ingress network can only be created in swarm scope");
    if (!["", "default"].includes(asked.ipam.driver)) {
      throw notFound(`plugin "${asked.ipam.driver}" not found`);
    }
    const spec = asked.configFrom ? this.#configured(asked) : asked;
    const device = this.#checkDriver(spec);
    const asks = spec.ipam.config.some((pool) => pool.subnet) ? spec.ipam.config : (device.pools ?? spec.ipam.config);
    // Networks of devices on the host's own segments have no gateway of ours, unless one was named.
    const gateway =
      spec.driver === "bridge" || (spec.driver === "macvlan" && !spec.internal) || spec.driver === "ipvlan";
    const config = completePools(asks, { ipv4: spec.enableIPv4, ipv6: spec.enableIPv6, gateway }, this.#around());
    return {
      spec: { ...spec, ipam: { ...spec.ipam, driver: spec.ipam.driver || "default", config } },
      userSubnets: spec.ipam.config.some((pool) => pool.subnet !== ""),
      bridgeByUser: device.byUser,
    };
  }

  /** Takes pools, options and labels over from a configuration-only network. */
  #configured(spec: NetworkSpec): NetworkSpec {
    if (
      spec.ipam.config.length > 0 ||
      Object.keys(spec.ipam.options ?? {}).length > 0 ||
      spec.enableIPv6 ||
      !spec.enableIPv4 ||
      labelled(spec)
    ) {
      throw forbidden(
        "user specified configurations are not supported if the network depends on a configuration network",
      );
    }
    if (Object.keys(spec.options).length > 0) {
      throw forbidden("network driver options are not supported if the network depends on a configuration network");
    }
    const source = [...this.#core.networks.values()].find(
      ({ spec: { name, configOnly } }) => name === spec.configFrom && configOnly,
    )?.spec;
    if (!source) throw notFound(`configuration network "${spec.configFrom}" does not exist`);
    const { ipam, options, enableIPv4, enableIPv6 } = source;
    return { ...spec, ipam, options, enableIPv4, enableIPv6, labels: { ...spec.labels, ...source.labels } };
  }

  /** Checks the driver's options. Gives the pools of a bridge device that a user made beforehand. */
  #checkDriver(spec: NetworkSpec): { byUser: boolean; pools?: IpamPool[] } {
    const core = this.#core;
    switch (spec.driver) {
      case "bridge": {
        const { bridge } = parseBridge(spec);
        const other = bridgesOf(core.world).find((n) => bridgeName(n) === bridge);
        if (other) {
          throw forbidden(
            `cannot create network ${spec.id} (${bridge}): conflicts with network ${other.spec.id} (${bridge}): networks have same bridge name`,
          );
        }
        const pools = this.#bridgeOfUser(bridge);
        return pools ? { byUser: true, pools } : { byUser: false };
      }
      case "macvlan":
      case "ipvlan": {
        const { parent } = spec.driver === "macvlan" ? parseMacvlan(spec) : parseIpvlan(spec);
        const byUser = this.#isUsers(parent.name);
        this.#checkParent(spec.driver, parent, byUser);
        return { byUser };
      }
      case "overlay":
        throw invalid(
          'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
        );
      case "host":
      case "null":
        return { byUser: false };
    }
  }

  /** The device is there, and not by our doing. */
  #isUsers(name: string): boolean {
    const link = this.#core.namespaces.host.rtnl.link(name);
    return link !== undefined && !link.alias.startsWith(aliasPrefix);
  }

  /** Whether this kernel and this host have what the network would be made of. */
  #checkParent(driver: "macvlan" | "ipvlan", parent: Parent, byUser: boolean): void {
    needFeature(driver, `${driver} networks`);
    if (byUser) return;
    if (parent.kind === "dummy") needFeature("dummy", `${driver} networks without -o parent=DEVICE`);
    if (parent.kind === "vlan") needFeature("vlan", `the VLAN sub-interface ${parent.name}`);
    const device = parent.kind === "vlan" ? parent.lower : parent.name;
    if (parent.kind !== "dummy" && !this.#core.namespaces.host.rtnl.link(device)) {
      throw invalid(`the requested parent interface ${device} was not found on the Docker host`);
    }
  }

  #bridgeOfUser(name: string): IpamPool[] | undefined {
    const { rtnl } = this.#core.namespaces.host;
    const link = rtnl.link(name);
    if (!link || link.alias.startsWith(aliasPrefix)) return undefined;
    if (link.kind !== "bridge") throw invalid(`existing interface ${name} is not a bridge`);
    const addr = rtnl.addrs().find((a) => a.link === link.index && a.family === 4 && a.scope === "global");
    const parsed = addr && parseCidr(`${addr.address}/${addr.prefix}`);
    return parsed ? [{ subnet: formatSubnet(parsed.subnet), gateway: addr.address }] : [];
  }

  /** What chosen and asked-for pools are to keep clear of. */
  #around(): Surroundings {
    const core = this.#core;
    const networks: Subnet[] = [];
    for (const { spec } of core.networks.values()) {
      if (spec.configOnly || spec.driver === "overlay") continue;
      for (const pool of spec.ipam.config) {
        const subnet = parseCidr(pool.subnet)?.subnet;
        if (subnet) networks.push(subnet);
      }
    }
    const hostRoutes = core.namespaces.host.rtnl
      .routes()
      .filter((route) => route.type === "unicast" && route.dst !== "default")
      .flatMap((route) => parseCidr(route.dst.includes("/") ? route.dst : `${route.dst}/32`)?.subnet ?? [])
      // A route to half of the world is a default route in disguise.
      .filter((subnet) => subnet.prefix > 1);
    const blocks = core.options.defaultAddressPools ?? [...defaultLocalPools, this.#uniqueLocal()];
    return { networks, hostRoutes, blocks };
  }

  /** Derived from the id of the default bridge, which is random and kept. */
  #uniqueLocal(): AddressPoolBlock {
    const first = [...this.#core.networks.values()].find(({ spec }) => spec.name === "bridge")?.spec.id;
    return uniqueLocalBlock(
      createHash("sha256")
        .update(first ?? "")
        .digest()
        .subarray(0, 5),
    );
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
