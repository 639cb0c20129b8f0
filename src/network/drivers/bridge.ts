/** Options of bridge networks, by Docker's names. */
import { invalid, notImplemented } from "../../base/errors.ts";
import { parseIp } from "../address.ts";
import type { NetworkSpec } from "../types.ts";
import { booleanOption, mtuOption } from "./options.ts";

const prefix = "com.docker.network.bridge.";
export const bridgeOption = {
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
  /** Source address of connections to the outside, instead of masquerading. */
  readonly hostIpv4: string | undefined;
}

export function parseBridge(spec: Pick<NetworkSpec, "id" | "options" | "internal">): BridgeOptions {
  const get = (name: string): string | undefined => spec.options[name];
  const bridge = get(bridgeOption.name) || `br-${spec.id.slice(0, 12)}`;
  if (bridge.length > 15 || !/^[^\s/]+$/.test(bridge) || bridge === "." || bridge === "..") {
    throw invalid(`invalid bridge name: ${bridge}`);
  }
  for (const mode of [bridgeOption.gatewayMode4, bridgeOption.gatewayMode6] as const) {
    const value = get(mode);
    if (value === undefined || value === "nat") continue;
    if (["routed", "isolated", "nat-unprotected"].includes(value)) throw notImplemented(`${mode}=${value}`);
    throw invalid(`unknown gateway mode ${value}`);
  }
  for (const option of [bridgeOption.trustedInterfaces, bridgeOption.hostIpv6]) {
    if (get(option)) throw notImplemented(`the network option ${option}`);
  }
  if (booleanOption(get(bridgeOption.inhibitIpv4), bridgeOption.inhibitIpv4, false)) {
    throw notImplemented(`the network option ${bridgeOption.inhibitIpv4}`);
  }
  const address = (name: string) => {
    const value = get(name);
    if (value && parseIp(value)?.family !== 4) throw invalid(`invalid ${name}: ${value}`);
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
  };
}

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
