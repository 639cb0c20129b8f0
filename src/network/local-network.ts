/**
 * From the network that a user asks for to the one that is made here: checks in Docker's words and order, the driver's
 * options, complete pools. State and kernel are read and left as they are.
 */
import { createHash } from "node:crypto";
import { conflict, forbidden, invalid, notFound, SkeinError } from "../base/errors.ts";
import { missingFeature } from "../kernel/feature.ts";
import type { Link } from "../kernel/types.ts";
import { formatSubnet, parseCidr, type Subnet } from "./address.ts";
import type { Core } from "./core.ts";
import { parseBridge } from "./drivers/bridge.ts";
import { type Parent, parseIpvlan, parseMacvlan } from "./drivers/macvlan.ts";
import {
  type AddressPoolBlock,
  completePools,
  defaultLocalPools,
  parsePool,
  type Surroundings,
  uniqueLocalBlock,
} from "./ipam/request.ts";
import { aliasPrefix } from "./plan/types.ts";
import { bridgeName, bridgesOf } from "./plan/world.ts";
import type { NetworkState } from "./state.ts";
import type { DriverName, IpamPool, NetworkSpec } from "./types.ts";

const known: ReadonlySet<string> = new Set<DriverName>(["bridge", "host", "null", "overlay", "macvlan", "ipvlan"]);

/** What is looked at. */
type LocalWorld = Pick<Core, "namespaces" | "networks" | "options" | "world">;

/** Checks and completes the description of a local network. */
export function completeLocal(host: LocalWorld, asked: NetworkSpec): NetworkState {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(asked.name)) {
    throw invalid(`invalid network name "${asked.name}": only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed`);
  }
  const namesake = (n: NetworkState) => n.spec.name === asked.name && n.spec.scope === "local";
  if (asked.scope === "local" && [...host.networks.values()].some(namesake)) {
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
  const spec = asked.configFrom ? configured(host, asked) : asked;
  const device = checkDriver(host, spec);
  const asks = spec.ipam.config.some((pool) => pool.subnet) ? spec.ipam.config : (device.pools ?? spec.ipam.config);
  // Networks of devices on the host's own segments have no gateway of ours, unless one was named.
  const gateway = spec.driver === "bridge" || (spec.driver === "macvlan" && !spec.internal) || spec.driver === "ipvlan";
  const config = completePools(asks, { ipv4: spec.enableIPv4, ipv6: spec.enableIPv6, gateway }, around(host));
  return {
    spec: { ...spec, ipam: { ...spec.ipam, driver: spec.ipam.driver || "default", config } },
    userSubnets: spec.ipam.config.some((pool) => pool.subnet !== ""),
    bridgeByUser: device.byUser,
  };
}

/** Takes pools, options and labels over from a configuration-only network. */
function configured(host: LocalWorld, spec: NetworkSpec): NetworkSpec {
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
  const source = [...host.networks.values()].find(
    ({ spec: { name, configOnly } }) => name === spec.configFrom && configOnly,
  )?.spec;
  if (!source) throw notFound(`configuration network "${spec.configFrom}" does not exist`);
  const { ipam, options, enableIPv4, enableIPv6 } = source;
  return { ...spec, ipam, options, enableIPv4, enableIPv6, labels: { ...spec.labels, ...source.labels } };
}

/** Checks the driver's options. Gives the pools of a bridge device that a user made beforehand. */
function checkDriver(host: LocalWorld, spec: NetworkSpec): { byUser: boolean; pools?: IpamPool[] } {
  switch (spec.driver) {
    case "bridge": {
      const { bridge } = parseBridge(spec);
      const other = bridgesOf(host.world).find((n) => bridgeName(n) === bridge);
      if (other) {
        throw forbidden(
          `cannot create network ${spec.id} (${bridge}): conflicts with network ${other.spec.id} (${bridge}): networks have same bridge name`,
        );
      }
      const pools = bridgeOfUser(host, bridge);
      return pools ? { byUser: true, pools } : { byUser: false };
    }
    case "macvlan":
    case "ipvlan": {
      const { parent } = spec.driver === "macvlan" ? parseMacvlan(spec) : parseIpvlan(spec);
      const byUser = deviceOfUser(host, parent.name) !== undefined;
      checkParent(host, spec.driver, parent, byUser);
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

/** A device that is there, and not by our doing. */
function deviceOfUser(host: LocalWorld, name: string): Link | undefined {
  const link = host.namespaces.host.rtnl.link(name);
  return link?.alias.startsWith(aliasPrefix) ? undefined : link;
}

/** Whether this kernel and this host have what the network would be made of. */
function checkParent(host: LocalWorld, driver: "macvlan" | "ipvlan", parent: Parent, byUser: boolean): void {
  needFeature(driver, `${driver} networks`);
  if (byUser) return;
  if (parent.kind === "dummy") needFeature("dummy", `${driver} networks without -o parent=DEVICE`);
  if (parent.kind === "vlan") needFeature("vlan", `the VLAN sub-interface ${parent.name}`);
  const device = parent.kind === "vlan" ? parent.lower : parent.name;
  if (parent.kind !== "dummy" && !host.namespaces.host.rtnl.link(device)) {
    throw invalid(`the requested parent interface ${device} was not found on the Docker host`);
  }
}

/** The pools of a bridge that a user made beforehand: its own address and subnet, if it has one. */
function bridgeOfUser(host: LocalWorld, name: string): IpamPool[] | undefined {
  const link = deviceOfUser(host, name);
  if (!link) return undefined;
  if (link.kind !== "bridge") throw invalid(`existing interface ${name} is not a bridge`);
  const addr = host.namespaces.host.rtnl
    .addrs()
    .find((a) => a.link === link.index && a.family === 4 && a.scope === "global");
  const parsed = addr && parseCidr(`${addr.address}/${addr.prefix}`);
  return parsed ? [{ subnet: formatSubnet(parsed.subnet), gateway: addr.address }] : [];
}

/** What chosen and asked-for pools are to keep clear of. */
function around(host: LocalWorld): Surroundings {
  const networks: Subnet[] = [];
  for (const { spec } of host.networks.values()) {
    if (spec.configOnly || spec.driver === "overlay") continue;
    for (const pool of spec.ipam.config) {
      const subnet = parseCidr(pool.subnet)?.subnet;
      if (subnet) networks.push(subnet);
    }
  }
  const hostRoutes = host.namespaces.host.rtnl
    .routes()
    .filter((route) => route.type === "unicast")
    .flatMap((route) => parseCidr(route.dst)?.subnet ?? [])
    // A route to half of the world is a default route in disguise.
    .filter((subnet) => subnet.prefix > 1);
  const blocks = host.options.defaultAddressPools ?? [...defaultLocalPools, uniqueLocal(host)];
  return { networks, hostRoutes, blocks };
}

/** Derived from the id of the default bridge, which is random and kept. */
function uniqueLocal(host: LocalWorld): AddressPoolBlock {
  const first = [...host.networks.values()].find(({ spec }) => spec.name === "bridge")?.spec.id;
  return uniqueLocalBlock(
    createHash("sha256")
      .update(first ?? "")
      .digest()
      .subarray(0, 5),
  );
}

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
