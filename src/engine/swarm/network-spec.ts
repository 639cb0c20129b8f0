/** Networks of the swarm as this host's network room and `docker network` want them, and back. Pure. */
import { create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Network } from "#proto/docker/swarmkit/objects_pb.js";
import { NetworkSpecSchema, type NetworkSpec as SwarmNetworkSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { forbidden, invalid, notImplemented } from "../../base/errors.ts";
import type { DriverName, NetworkSpec } from "../../network/types.ts";
import { checkIpam } from "../networks/ipam.ts";
import type { NetworkCreate } from "../shapes.ts";
import { NEVER } from "../time.ts";

const PREDEFINED = "com.docker.swarm.predefined";
const drivers: readonly string[] = ["bridge", "host", "null", "overlay", "macvlan", "ipvlan"] satisfies DriverName[];
const isDriver = (name: string): name is DriverName => drivers.includes(name);

/** bridge and host stand in the store too, so that services can name them; they are every node's own. */
export const isPredefined = (network: Network): boolean => network.spec?.annotations?.labels[PREDEFINED] === "true";

/** Docker before 17.05 marked its ingress network by a label. */
export function isIngress(network: Network): boolean {
  const annotations = network.spec?.annotations;
  return (
    network.spec?.ingress === true ||
    (annotations?.name === "ingress" && annotations.labels["com.docker.swarm.internal"] !== undefined)
  );
}

/** The driver that was chosen, or was asked for while nothing is allocated yet. */
const driverOf = (network: Network): string =>
  network.driverState?.name || network.spec?.driverConfig?.name || "overlay";

function time(at: Timestamp | undefined): string {
  if (!at) return NEVER;
  const seconds = new Date(Number(at.seconds) * 1000).toISOString().slice(0, 19);
  const fraction = String(at.nanos).padStart(9, "0").replace(/0+$/, "");
  return `${seconds}${fraction ? `.${fraction}` : ""}Z`;
}

/** As the network room creates it and `network inspect` shows it. */
export function toNetworkSpec(network: Network): NetworkSpec {
  const { spec } = network;
  const driver = driverOf(network);
  if (!isDriver(driver)) throw notImplemented(`the network driver ${driver}`);
  return {
    id: network.id,
    name: spec?.annotations?.name ?? "",
    driver,
    scope: "swarm",
    created: time(network.meta?.createdAt),
    enableIPv4: true,
    enableIPv6: spec?.ipv6Enabled ?? false,
    internal: spec?.internal ?? false,
    attachable: spec?.attachable ?? false,
    ingress: isIngress(network),
    configOnly: false,
    configFrom: spec?.configFrom.case === "network" ? spec.configFrom.value : "",
    ipam: {
      driver: network.ipam?.driver?.name || "default",
      options:
        network.ipam?.driver && Object.keys(network.ipam.driver.options).length
          ? { ...network.ipam.driver.options }
          : null,
      config: (network.ipam?.configs ?? []).map((config) => ({
        subnet: config.subnet,
        ...(config.range && { ipRange: config.range }),
        ...(config.gateway && { gateway: config.gateway }),
        ...(Object.keys(config.reserved).length && { auxAddresses: { ...config.reserved } }),
      })),
    },
    options: { ...network.driverState?.options },
    labels: { ...spec?.annotations?.labels },
  };
}

/** Of drivers other than overlay the managers hand on the name only: the rest is each node's own, by `--config-from`. */
function checkNodeLocal(request: NetworkCreate): void {
  const own =
    (request.IPAM?.Config.length ?? 0) > 0 || request.EnableIPv6 === true || Object.keys(request.Options).length > 0;
  if (!own) return;
  if (request.ConfigFrom?.Network) {
    throw forbidden(
      "user specified configurations are not supported if the network depends on a configuration network",
    );
  }
  throw invalid(
    `a swarm scoped network of driver ${request.Driver || "bridge"} takes subnets and options from a configuration network on each node (--config-from)`,
  );
}

/**
 * A `network create` for the managers. `--opt encrypted` is refused until traffic is really encrypted:
 * it must never be taken and sent in clear.
 */
export function fromNetworkCreate(request: NetworkCreate): SwarmNetworkSpec {
  if (request.Name === "") throw invalid("network name cannot be empty");
  if (["bridge", "host", "none", "default"].includes(request.Name)) {
    throw forbidden(`${request.Name} is a pre-defined network and cannot be created`);
  }
  if (Object.hasOwn(request.Options, "encrypted")) throw notImplemented("encrypted overlay networks (--opt encrypted)");
  if (Object.hasOwn(request.Options, "dsr")) throw notImplemented("the overlay option dsr");
  if (request.Driver !== "overlay") checkNodeLocal(request);
  if (request.EnableIPv4 === false) throw notImplemented("overlay networks without IPv4");
  if (request.Ingress && request.Attachable) throw invalid("ingress network cannot be attachable");
  const { IPAM: ipam } = request;
  checkIpam(ipam?.Config ?? [], request.EnableIPv6 ?? false);
  return create(NetworkSpecSchema, {
    annotations: { name: request.Name, labels: request.Labels },
    driverConfig: { name: request.Driver || "bridge", options: request.Options },
    ipv6Enabled: request.EnableIPv6 ?? false,
    internal: request.Internal,
    attachable: request.Attachable,
    ingress: request.Ingress,
    ...(ipam && {
      ipam: {
        driver: { name: ipam.Driver || "default", options: ipam.Options ?? {} },
        configs: ipam.Config.map((config) => ({
          subnet: config.Subnet,
          range: config.IPRange,
          gateway: config.Gateway,
          reserved: config.AuxiliaryAddresses ?? config.AuxAddress ?? {},
        })),
      },
    }),
    ...(request.ConfigFrom?.Network && {
      configFrom: { case: "network" as const, value: request.ConfigFrom.Network },
    }),
  });
}
