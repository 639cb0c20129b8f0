/** States for tests: small, named, complete. */
import type { World } from "../../../src/network/plan/world.ts";
import type { EndpointState, NetworkState, SandboxState } from "../../../src/network/state.ts";
import type { IpamPool, NetworkSpec } from "../../../src/network/types.ts";

export function spec(partial: Partial<NetworkSpec> & Pick<NetworkSpec, "id" | "name" | "driver">): NetworkSpec {
  return {
    scope: partial.driver === "overlay" ? "swarm" : "local",
    created: "2026-01-01T00:00:00.000000000Z",
    enableIPv4: true,
    enableIPv6: false,
    internal: false,
    attachable: false,
    ingress: false,
    configOnly: false,
    configFrom: "",
    ipam: { driver: "default", options: null, config: [] },
    options: {},
    labels: {},
    ...partial,
  };
}

export const ipam = (...config: IpamPool[]) => ({ driver: "default", options: null, config });

export function network(
  partial: Partial<NetworkSpec> & Pick<NetworkSpec, "id" | "name" | "driver">,
  state: Partial<NetworkState> = {},
): NetworkState {
  return { spec: spec(partial), userSubnets: true, bridgeByUser: false, ...state };
}

export function endpoint(partial: Partial<EndpointState> & Pick<EndpointState, "networkId">): EndpointState {
  return {
    id: `ep-${partial.networkId}-${partial.name ?? ""}`,
    name: "c1",
    aliases: [],
    ifName: "eth0",
    outerName: "veth0000001",
    mac: "02:42:ac:11:00:02",
    ipv4: "172.17.0.2/16",
    ipv6: "",
    role: "user",
    ...partial,
  };
}

export function sandbox(id: string, endpoints: EndpointState[], partial: Partial<SandboxState> = {}): SandboxState {
  return {
    id,
    kind: "container",
    request: {
      id,
      mode: "private",
      hostname: id.slice(0, 12),
      domainname: "",
      dns: { servers: [], search: [], options: [] },
      extraHosts: [],
      ports: [],
    },
    path: `/run/skein/netns/${id.slice(0, 12)}`,
    activity: "active",
    endpoints,
    ports: [],
    ...partial,
  };
}

export function world(networks: NetworkState[], sandboxes: SandboxState[], cluster = true): World {
  return {
    pathMtu: 1500,
    networks: new Map(networks.map((n) => [n.spec.id, n])),
    sandboxes: new Map(sandboxes.map((s) => [s.id, s])),
    cluster: cluster
      ? { bindAddress: "192.0.2.1", advertiseAddress: "192.0.2.1", dataPathAddress: "192.0.2.1", dataPathPort: 4789 }
      : undefined,
  };
}
