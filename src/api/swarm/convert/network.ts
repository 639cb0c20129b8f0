/** Networks as they stand inside tasks (`NetworksAttachments`). `docker network` itself is the engine's. */
import type { Network, NetworkAttachment } from "#proto/docker/swarmkit/objects_pb.js";
import type { IPAMOptions } from "#proto/docker/swarmkit/types_pb.js";
import { annotationsToJson, driverToJson, metaToJson } from "./common.ts";
import { nz, ptr } from "./render.ts";

const ipamToJson = (ipam: IPAMOptions) => ({
  Driver: ipam.driver ? driverToJson(ipam.driver) : {},
  Configs: nz(ipam.configs.map((c) => ({ Subnet: nz(c.subnet), Range: nz(c.range), Gateway: nz(c.gateway) }))),
});

/** Swarms made by Docker before 17.05 have their ingress network marked by a label. */
export function isIngress(network: Network): boolean {
  const annotations = network.spec?.annotations;
  return (
    network.spec?.ingress === true ||
    (annotations?.name === "ingress" && annotations.labels["com.docker.swarm.internal"] !== undefined)
  );
}

function networkToJson(network: Network) {
  const spec = network.spec;
  return {
    ...metaToJson(network.id, network.meta),
    Spec: {
      ...annotationsToJson(spec?.annotations),
      DriverConfiguration: ptr(spec?.driverConfig, driverToJson),
      IPv6Enabled: nz(spec?.ipv6Enabled),
      Internal: nz(spec?.internal),
      Attachable: nz(spec?.attachable),
      Ingress: nz(isIngress(network)),
      IPAMOptions: ptr(spec?.ipam, ipamToJson),
      ConfigFrom: spec?.configFrom.case === "network" ? { Network: spec.configFrom.value } : undefined,
      Scope: "swarm",
    },
    DriverState: network.driverState ? driverToJson(network.driverState) : {},
    IPAMOptions: ptr(network.ipam, ipamToJson),
  };
}

export function attachmentToJson(attachment: NetworkAttachment) {
  return {
    Network: attachment.network ? networkToJson(attachment.network) : {},
    Addresses: nz(attachment.addresses),
  };
}
