/** What all planners look at, and the small questions they ask of it. */
import { parseBridge } from "../drivers/bridge.ts";
import type { EndpointState, NetworkState, SandboxState } from "../state.ts";
import type { ClusterNetworking, MeshRouting } from "../types.ts";

export interface World {
  readonly networks: ReadonlyMap<string, NetworkState>;
  readonly sandboxes: ReadonlyMap<string, SandboxState>;
  readonly cluster: ClusterNetworking | undefined;
  /** Bytes of an IP packet that fit between this host and all others of its overlay networks, at most 1500. */
  readonly pathMtu: number;
  /** The host's leg in the ingress network is not to be had (now): the mesh goes through `ingress_sbox` alone. */
  readonly legless?: boolean;
  /** False: it is not wanted. */
  readonly meshRouting?: MeshRouting | false;
}

export interface Attached {
  readonly sandbox: SandboxState;
  readonly endpoint: EndpointState;
}

/** The endpoints of one network on this host, in the order in which they came. */
export function attachedTo(world: World, networkId: string): Attached[] {
  const found: Attached[] = [];
  for (const sandbox of world.sandboxes.values()) {
    for (const endpoint of sandbox.endpoints) if (endpoint.networkId === networkId) found.push({ sandbox, endpoint });
  }
  return found;
}

/** Networks that are a bridge on this host. */
export function bridgesOf(world: World): NetworkState[] {
  return [...world.networks.values()].filter((n) => n.spec.driver === "bridge" && !n.spec.configOnly);
}

/** The endpoint through which a sandbox reaches the outside: the first by network name that is not internal. */
export function wayOut(world: World, sandbox: SandboxState): Attached | undefined {
  const candidates = sandbox.endpoints
    .map((endpoint) => ({ sandbox, endpoint, network: world.networks.get(endpoint.networkId)?.spec }))
    .filter(({ network }) => network && !network.internal && ["bridge", "macvlan", "ipvlan"].includes(network.driver))
    .sort(
      (a, b) =>
        Number(a.endpoint.role === "gateway") - Number(b.endpoint.role === "gateway") ||
        compare(a.network?.name ?? "", b.network?.name ?? ""),
    );
  return candidates[0];
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/** Plain gateway address of a network for one family, "" where there is none. */
export function gatewayOf(network: NetworkState, family: 4 | 6): string {
  for (const pool of network.spec.ipam.config) {
    if (pool.subnet.includes(":") === (family === 6) && pool.gateway) return pool.gateway.split("/")[0] ?? "";
  }
  return "";
}

/** The device name of a bridge network. */
export const bridgeName = (network: NetworkState): string => parseBridge(network.spec).bridge;
