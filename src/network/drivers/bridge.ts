/** Options of bridge networks, by Docker's names. */
import { invalid } from "../../base/errors.ts";
import { parseIp } from "../address.ts";
import type { NetworkSpec } from "../types.ts";
import { booleanOption, mtuOption } from "./options.ts";

const prefix = "com.docker.network.bridge.";
const bridgeOption = {
  name: `${prefix}name`,
  defaultBridge: `${prefix}default_bridge`,
  icc: `${prefix}enable_icc`,
  masquerade: `${prefix}enable_ip_masquerade`,
  hostBinding: `${prefix}host_binding_ipv4`,
  inhibitIpv4: `${prefix}inhibit_ipv4`,
  gatewayMode4: `${prefix}gateway_mode_ipv4`,
  gatewayMode6: `${prefix}gateway_mode_ipv6`,
  trustedInterfaces: `${prefix}trusted_host_interfaces`,
  hostIpv4: "com.docker.network.host_ipv4",
  hostIpv6: "com.docker.network.host_ipv6",
  ifPrefix: "com.docker.network.container_iface_prefix",
} as const;

const gatewayModes = ["nat", "nat-unprotected", "routed", "isolated"] as const;
/**
 * How a network meets the world. "nat": behind the host's address, published ports are translated. "nat-unprotected":
 * besides, every port of a container can be reached at its own address. "routed": no translation, published ports are
 * reached at the container's address. "isolated" (internal networks only): the host itself has no address on it.
 */
export type GatewayMode = (typeof gatewayModes)[number];

export interface BridgeOptions {
  /** The device's name on the host. */
  readonly bridge: string;
  readonly defaultBridge: boolean;
  /** Containers on it may talk to each other. */
  readonly icc: boolean;
  readonly masquerade: boolean;
  /** Host address that ports are bound to when none is given; "" for all. */
  readonly hostBinding: string;
  readonly mtu: number;
  /** Prefix of device names in containers. */
  readonly ifPrefix: string;
  /** Source addresses of connections to the outside, instead of masquerading. */
  readonly hostIpv4: string | undefined;
  readonly hostIpv6: string | undefined;
  /** The bridge has no IPv4 address: somebody else on the wire is the gateway. */
  readonly inhibitIpv4: boolean;
  readonly modes: { readonly 4: GatewayMode; readonly 6: GatewayMode };
  /** Devices of the host from which published ports may be asked for at the container's own address. */
  readonly trusted: readonly string[];
}

export function parseBridge(spec: Pick<NetworkSpec, "id" | "options" | "internal">): BridgeOptions {
  const get = (name: string): string | undefined => spec.options[name];
  const bridge = get(bridgeOption.name) || `br-${spec.id.slice(0, 12)}`;
  if (!isDeviceName(bridge)) throw invalid(`invalid bridge name: ${bridge}`);
  const mode = (name: string): GatewayMode => {
    const value = get(name) || "nat";
    const found = gatewayModes.find((known) => known === value);
    if (!found) throw invalid(`unknown gateway mode ${value}`);
    if (found === "isolated" && !spec.internal) {
      throw invalid("gateway mode 'isolated' can only be used for an internal network");
    }
    return found;
  };
  const trusted = (get(bridgeOption.trustedInterfaces) ?? "").split(":").filter(Boolean);
  for (const name of trusted)
    if (!isDeviceName(name)) throw invalid(`invalid ${bridgeOption.trustedInterfaces}: ${name}`);
  const address = (name: string, family: 4 | 6 = 4) => {
    const value = get(name);
    if (value && parseIp(value)?.family !== family) throw invalid(`invalid ${name}: ${value}`);
    return value || undefined;
  };
  const hostBinding = address(bridgeOption.hostBinding) ?? "";
  const ifPrefix = get(bridgeOption.ifPrefix) || "eth";
  if (!/^[\w.-]{1,12}$/.test(ifPrefix)) throw invalid(`invalid interface prefix: ${ifPrefix}`);
  return {
    bridge,
    defaultBridge: booleanOption(get(bridgeOption.defaultBridge), bridgeOption.defaultBridge, false),
    icc: booleanOption(get(bridgeOption.icc), bridgeOption.icc, true),
    masquerade: booleanOption(get(bridgeOption.masquerade), bridgeOption.masquerade, true),
    hostBinding: hostBinding === "0.0.0.0" ? "" : hostBinding,
    mtu: mtuOption(spec.options, 1500),
    ifPrefix,
    hostIpv4: address(bridgeOption.hostIpv4),
    hostIpv6: address(bridgeOption.hostIpv6, 6),
    inhibitIpv4: booleanOption(get(bridgeOption.inhibitIpv4), bridgeOption.inhibitIpv4, false),
    modes: { 4: mode(bridgeOption.gatewayMode4), 6: mode(bridgeOption.gatewayMode6) },
    trusted,
  };
}

/** What Linux takes as a device's name, without what would end a quoted word of nftables. */
const isDeviceName = (name: string) => name.length <= 15 && /^[^\s/"\\]+$/.test(name) && name !== "." && name !== "..";

/** The options that `network inspect bridge` shows. */
export const defaultBridgeOptions: Readonly<Record<string, string>> = {
  [bridgeOption.defaultBridge]: "true",
  [bridgeOption.icc]: "true",
  [bridgeOption.masquerade]: "true",
  [bridgeOption.hostBinding]: "0.0.0.0",
  [bridgeOption.name]: "docker0",
  "com.docker.network.driver.mtu": "1500",
};

/** Those of the gateway bridge as Docker makes it. */
export const gatewayBridgeOptions: Readonly<Record<string, string>> = {
  [bridgeOption.icc]: "false",
  [bridgeOption.masquerade]: "true",
  [bridgeOption.name]: "docker_gwbridge",
};
