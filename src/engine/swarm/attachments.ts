/** From a task to the endpoints its container gets: addresses, names, VIPs, ingress ports. Pure. */
import type { NetworkAttachment, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { type PortConfig, PortConfig_Protocol, PortConfig_PublishMode } from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../base/errors.ts";
import { type PublishOptions, publishOptions } from "../../base/publish.ts";
import type { ServiceBinding } from "../../network/types.ts";
import { taskContainerName } from "../../swarm/expand.ts";
import type { TaskAttachment } from "../types.ts";
import { isIngress, isPredefined, toNetworkSpec } from "./network-spec.ts";

export const protocolWord = (port: PortConfig): "tcp" | "udp" | "sctp" =>
  port.protocol === PortConfig_Protocol.UDP ? "udp" : port.protocol === PortConfig_Protocol.SCTP ? "sctp" : "tcp";

/** What the service's labels say of a port. */
export const optionsOf = (task: Task, port: PortConfig): PublishOptions =>
  publishOptions(task.serviceAnnotations?.labels ?? {}, {
    protocol: protocolWord(port),
    publishedPort: port.publishedPort,
  });

const plain = (cidr: string): string => cidr.split("/")[0] ?? "";

function bindingOf(task: Task, attachment: NetworkAttachment, networkId: string, ingress: boolean): ServiceBinding {
  const vip = task.endpoint?.virtualIps.find((entry) => entry.networkId === networkId)?.addr ?? "";
  const ports = ingress ? (task.endpoint?.ports ?? []) : [];
  return {
    id: task.serviceId,
    name: task.serviceAnnotations?.name ?? "",
    vip: plain(vip),
    aliases: [...attachment.aliases],
    ingressPorts: ports
      .filter((port) => port.publishMode === PortConfig_PublishMode.INGRESS)
      .map((port) => ({
        name: port.name,
        protocol: protocolWord(port),
        targetPort: port.targetPort,
        publishedPort: port.publishedPort,
        ...optionsOf(task, port),
      })),
  };
}

/**
 * The task's endpoints. Its own networks come first and ingress last, so that eth0 is a network the user named.
 * bridge and host are not among them: they are chosen by the container's network mode.
 */
export function taskAttachments(task: Task, loadBalancers: ReadonlyMap<string, string>): TaskAttachment[] {
  const own: TaskAttachment[] = [];
  const ingress: TaskAttachment[] = [];
  const seen = new Set<string>();
  for (const attachment of task.networks) {
    const { network } = attachment;
    // A spec may name a network twice: the managers give two addresses, and Docker's nodes use one.
    if (!network || isPredefined(network) || seen.has(network.id)) continue;
    seen.add(network.id);
    const spec = toNetworkSpec(network);
    const addresses = attachment.addresses;
    const ipv4 = addresses.find((address) => !address.includes(":"));
    const ipv6 = addresses.find((address) => address.includes(":"));
    const lbAddress = loadBalancers.get(network.id);
    const onIngress = isIngress(network);
    (onIngress ? ingress : own).push({
      network: spec,
      ...(lbAddress !== undefined && { lbAddress }),
      request: {
        name: taskContainerName(task),
        aliases: [],
        ...(ipv4 !== undefined && { ipv4 }),
        ...(ipv6 !== undefined && { ipv6 }),
        driverOptions: { ...attachment.driverAttachmentOpts },
        ...(task.serviceId !== "" && { service: bindingOf(task, attachment, network.id, onIngress) }),
      },
    });
  }
  if (predefinedNetwork(task) === "host") refuseOthers(own, ingress);
  return [...own, ...ingress];
}

/** With the host's network there is no other. Docker's words, which differ when the other one is ingress. */
function refuseOthers(own: readonly TaskAttachment[], ingress: readonly TaskAttachment[]): void {
  if (own.length > 0) {
    throw invalid(
      "container sharing network namespace with another container or host cannot be connected to any other network",
    );
  }
  if (ingress.length > 0) {
    throw invalid("container cannot be disconnected from host network or connected to host network");
  }
}

/** Name of the predefined network that the task is to use ("bridge", "host"), if it names one. */
export function predefinedNetwork(task: Task): string | undefined {
  const found = task.networks.find((attachment) => attachment.network && isPredefined(attachment.network));
  return found?.network?.spec?.annotations?.name;
}
