/**
 * What the controller knows: networks, sandboxes and their endpoints. Plans are computed from this and from
 * the gossip tables, nothing else. Everything here is JSON, so that it can be kept and read back.
 */
import type { NamespaceKey } from "./plan/types.ts";
import type { NetworkSpec, PublishedPort, SandboxRequest, ServiceBinding } from "./types.ts";

export interface NetworkState {
  spec: NetworkSpec;
  /** Subnets were asked for by the user; only then may containers ask for addresses. */
  userSubnets: boolean;
  /** The bridge, or the VLAN device below a macvlan network, was there before us and outlives the network. */
  bridgeByUser: boolean;
  /** This node's load balancer address, CIDR; swarm networks only. */
  lbAddress?: string | undefined;
}

/**
 * "container": what users see. "lb": the balancer sandbox of an overlay network on this node,
 * "ingress": that of the ingress network, which has a way to the host too.
 */
export type SandboxKind = "container" | "lb" | "ingress";
export type Activity = "active" | "draining" | "inactive";

export interface SandboxState {
  id: string;
  kind: SandboxKind;
  request: SandboxRequest;
  /** Where its namespace is pinned; undefined in host mode. */
  path?: string | undefined;
  activity: Activity;
  endpoints: EndpointState[];
  ports: PublishedPort[];
}

export interface EndpointState {
  id: string;
  networkId: string;
  name: string;
  aliases: string[];
  /** Name inside the sandbox, "" where there is no device (host, none). */
  ifName: string;
  /** Name of the outer half of its veth pair, on the host or in the overlay's namespace. */
  outerName: string;
  mac: string;
  /** CIDR, "" where there is none. */
  ipv4: string;
  ipv6: string;
  service?: ServiceBinding | undefined;
  /** Made by us to give the sandbox its way out, or as the network's own. */
  role: "user" | "gateway" | "lb";
}

export const sandboxKey = (id: string): NamespaceKey => `sandbox/${id}`;
export const overlayKey = (networkId: string): NamespaceKey => `overlay/${networkId}`;

/** Id of the sandbox of the routing mesh on each node; Docker's name. */
export const ingressSandboxId = "ingress-sbox";
export const lbSandboxId = (networkName: string): string => `lb-${networkName}`;
export const gatewayBridge = "docker_gwbridge";
