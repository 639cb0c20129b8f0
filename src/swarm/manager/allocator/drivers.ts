/** Which network drivers the swarm allocates for, and how a network tells its driver. */
import type { Network } from "#proto/docker/swarmkit/objects_pb.js";
import type { NetworkSpec } from "#proto/docker/swarmkit/specs_pb.js";

const DEFAULT_DRIVER = "overlay";
export const VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list";

/** Networks of these drivers are made on each node by itself: no addresses from here. */
const NODE_LOCAL = new Set(["bridge", "host", "macvlan", "ipvlan", "null", "none"]);

export const driverName = (spec: NetworkSpec | undefined) => spec?.driverConfig?.name || DEFAULT_DRIVER;
export const isNodeLocal = (spec: NetworkSpec | undefined) => NODE_LOCAL.has(driverName(spec));
export const isKnownDriver = (name: string) => name === DEFAULT_DRIVER || NODE_LOCAL.has(name);

/** The ingress network, also in the form of old clusters. */
export function isIngress(network: Network): boolean {
  if (network.spec?.ingress) return true;
  const annotations = network.spec?.annotations;
  return annotations?.name === "ingress" && annotations.labels["com.docker.swarm.internal"] !== undefined;
}

export const isAllocated = (network: Network) => network.driverState !== undefined && network.ipam !== undefined;
