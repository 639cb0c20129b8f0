/** Services and published ports as this node's tables have them. Pure. */
import { plainIp } from "../address.ts";
import type { doorOf } from "../balance.ts";
import type { MeshLeg, MeshPort } from "../balancer/types.ts";
import type { Participant } from "../overlay/records.ts";
import type { World } from "../plan/world.ts";
import { compareAddresses } from "./overlay.ts";
import type { Backend, PortLook, ServiceLook } from "./types.ts";

/** Who takes part on a network: those that count, and those of suspected nodes. */
export interface Participants {
  readonly networkId: string;
  readonly name: string;
  readonly ingress: boolean;
  readonly counting: readonly Participant[];
  readonly suspended: readonly Participant[];
}

export function serviceLooks(networks: readonly Participants[]): ServiceLook[] {
  const found = new Map<string, Entry>();
  for (const network of networks) {
    const all = [...network.counting, ...network.suspended];
    const ids = new Set(all.flatMap(({ service }) => (service ? [service.id] : [])));
    for (const id of ids) {
      const members = (list: readonly Participant[]) => list.filter(({ service }) => service?.id === id);
      const [first] = members(all);
      if (!first?.service) continue;
      const entry: Entry = found.get(id) ?? { name: first.service.name, networks: [], ports: new Map() };
      found.set(id, entry);
      entry.networks.push({
        network: network.name,
        networkId: network.networkId,
        ingress: network.ingress,
        vip6: members(all).find(({ vip6 }) => vip6)?.vip6 ?? "",
        vip: members(all).find(({ service }) => service?.vip)?.service?.vip ?? "",
        backends: backends(members(network.counting), members(network.suspended)),
      });
      for (const { service } of members(all)) {
        for (const { protocol, publishedPort, targetPort } of service?.ingressPorts ?? []) {
          const port = { protocol, published: publishedPort, target: targetPort };
          entry.ports.set(JSON.stringify(port), port);
        }
      }
    }
  }
  return [...found]
    .map(([id, { name, networks: on, ports }]) => ({ id, name, networks: on, ports: [...ports.values()] }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

type Port = ServiceLook["ports"][number];
type Entry = { name: string; networks: ServiceLook["networks"][number][]; ports: Map<string, Port> };

function backends(counting: readonly Participant[], suspended: readonly Participant[]): Backend[] {
  const serving = new Set(counting.filter((one) => !one.draining).map((one) => one.address));
  const look = (one: Participant, state: Backend["state"]): Backend => ({
    task: one.name,
    endpointId: one.endpointId,
    address: one.address,
    address6: one.address6,
    host: one.hostAddress,
    here: one.local,
    state,
    share: state === "serving" ? 1 / serving.size : 0,
  });
  return [
    ...counting.map((one) => look(one, one.draining ? "draining" : "serving")),
    ...suspended.map((one) => look(one, "suspended")),
  ].sort((a, b) => compareAddresses(a.address, b.address));
}

/** The ports of the routing mesh: `mesh` as it is planned here, `participants` of the ingress network. */
export function meshLooks(
  mesh: readonly MeshPort[],
  participants: Participants,
  door: ReturnType<typeof doorOf>,
  leg: MeshLeg | undefined,
): PortLook[] {
  const all = [...participants.counting, ...participants.suspended];
  const published = new Map(
    all.flatMap(({ service }) =>
      (service?.ingressPorts ?? []).map((port) => [`${port.protocol} ${port.publishedPort}`, port] as const),
    ),
  );
  return [...published.values()].map(({ protocol, publishedPort }) => {
    const planned = mesh.find((one) => one.protocol === protocol && one.publishedPort === publishedPort);
    const ports = (one: Participant) =>
      one.service?.ingressPorts.filter((p) => p.protocol === protocol && p.publishedPort === publishedPort) ?? [];
    const publishing = (list: readonly Participant[]) => list.filter((one) => ports(one).length > 0);
    const told = publishing(all).flatMap(ports);
    // Who is asked here is what is planned: with the policy "local" only tasks of this host.
    const asked = new Map(planned?.backends.map((one) => [one.address, one.returnsToEntry]));
    const share = asked.size === 0 ? 0 : 1 / asked.size;
    return {
      kind: "mesh",
      protocol,
      port: publishedPort,
      ...(planned?.bound && { addresses: planned.bound }),
      policy: told.some(({ local }) => local) ? "local" : "mesh",
      proxy: told.some(({ proxy }) => proxy === true),
      services: [...new Set(publishing(all).map(({ service }) => service?.name ?? ""))],
      target: [...new Set(told.map(({ targetPort }) => targetPort))],
      door: {
        gateway: plainIp(door?.gateway.ipv4 ?? ""),
        ingress: plainIp(door?.ingress.ipv4 ?? ""),
        leg: leg?.ports.some((one) => one.protocol === protocol && one.publishedPort === publishedPort)
          ? leg.device
          : "",
      },
      backends: backends(publishing(participants.counting), publishing(participants.suspended)).map((one) => ({
        ...one,
        share: asked.has(one.address) ? share : 0,
        keepsClientAddress: asked.get(one.address) ?? false,
      })),
    };
  });
}

/** Ports that containers of this host publish on it. */
export function containerPortLooks(
  world: World,
  reach: (sandboxId: string) => { ipv4: string; ipv6: string },
): PortLook[] {
  const found = new Map<string, Extract<PortLook, { kind: "container" }> & { addresses: string[] }>();
  for (const sandbox of world.sandboxes.values()) {
    const { ipv4, ipv6 } = reach(sandbox.id);
    for (const { protocol, hostIp, hostPort, containerPort } of sandbox.ports) {
      if (hostPort === 0) continue;
      const key = `${sandbox.id} ${protocol} ${hostPort} ${containerPort}`;
      const entry = found.get(key) ?? {
        kind: "container",
        protocol,
        port: hostPort,
        addresses: [],
        container: sandbox.id,
        address: ipv4 || ipv6,
        target: containerPort,
      };
      entry.addresses.push(hostIp || "0.0.0.0");
      found.set(key, entry);
    }
  }
  return [...found.values()];
}
