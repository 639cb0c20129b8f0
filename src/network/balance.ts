/** From discovery to what the balancer is asked for, in its own words. Pure. */
import { subnetsOf } from "../base/publish.ts";
import { plainIp } from "./address.ts";
import type {
  HostState,
  MeshBackend,
  MeshEntry,
  MeshHost,
  MeshLeg,
  MeshPort,
  MeshSandbox,
  MeshTask,
  Protocol,
  VipService,
} from "./balancer/types.ts";
import { type ServiceBackends, servicesOf } from "./discovery.ts";
import { parseBridge } from "./drivers/bridge.ts";
import type { MeshDoor } from "./overlay/mesh.ts";
import type { Participant } from "./overlay/records.ts";
import { type Leg, legMac, legName, legOf } from "./plan/leg.ts";
import { bridgeName, bridgesOf, type World, wayOut } from "./plan/world.ts";
import type { Reach } from "./ports.ts";
import { gatewayBridge, ingressSandboxId, type NetworkState, type SandboxState } from "./state.ts";

/** The virtual addresses of one overlay network in one family. */
export function vipsOf(networkId: string, participants: readonly Participant[], family: 4 | 6 = 4): VipService[] {
  const byVip = new Map<string, VipService>();
  for (const service of servicesOf(participants)) {
    const vip = family === 4 ? service.vip : service.vip6;
    if (!vip) continue;
    const backends = serving(service).flatMap(({ address, address6 }) => (family === 4 ? address : address6) || []);
    const known = byVip.get(vip);
    // One service, two sets of ports: a rolling update on its way.
    byVip.set(vip, {
      id: `${service.id}.${networkId.slice(0, 12)}`,
      vip,
      backends: known ? [...known.backends, ...backends] : backends,
    });
  }
  return [...byVip.values()];
}

/** The overlays whose virtual addresses a container can call. */
export function callableNetworks(world: World, sandbox: SandboxState): string[] {
  if (sandbox.kind !== "container") return [];
  return sandbox.endpoints.flatMap(({ networkId }) => {
    const spec = world.networks.get(networkId)?.spec;
    return spec?.driver === "overlay" && !spec.ingress ? [networkId] : [];
  });
}

const serving = (service: ServiceBackends) => service.backends.filter((backend) => !backend.draining);

/**
 * The published ports of the mesh that this node answers on, and where their tasks are.
 *
 * Tasks may differ about a port while their service is updated, or because some were told by nodes that do not know our
 * options. Whoever closes goes before who opens: one that is bound binds all, each to the addresses of all that are;
 * one that is local makes all of them so.
 */
export function meshPorts(
  participants: readonly Participant[],
  doors: ReadonlyMap<string, MeshDoor>,
  returnsHere: boolean,
): MeshPort[] {
  const ports = new Map<string, TaskedPort>();
  for (const service of servicesOf(participants)) {
    for (const { protocol, publishedPort, bound, local: onlyLocal } of service.ports) {
      const key = `${protocol} ${String(publishedPort).padStart(5, "0")}`;
      const port: TaskedPort = ports.get(key) ?? {
        protocol,
        publishedPort,
        bound: undefined,
        local: false,
        backends: [],
      };
      ports.set(key, port);
      if (bound) port.bound = [...(port.bound ?? []), ...bound];
      if (onlyLocal) port.local = true;
      for (const { address, local, owner, headed } of serving(service)) {
        if (port.backends.some((backend) => backend.address === address)) continue;
        const headedPort = headed.get(publishedPort);
        const door = doors.get(owner);
        port.backends.push({
          address,
          local,
          returnsToEntry: local ? returnsHere : (door?.returns ?? false),
          ...((local ? returnsHere : door?.returns && door.leg !== undefined) && { returnsToLeg: true }),
          ...(headedPort !== undefined && { headedPort }),
        });
      }
    }
  }
  return [...ports]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, { protocol, publishedPort, bound, local: onlyLocal, backends: all }]) => {
      const chosen = onlyLocal ? all.filter(({ local }) => local) : all;
      // Without a task here it is as if nobody listened: the host itself refuses.
      if (onlyLocal && chosen.length === 0) return [];
      const backends = chosen.map(({ local: _, ...backend }) => backend);
      return [{ protocol, publishedPort, backends, ...(bound && { bound: [...new Set(bound)].sort() }) }];
    });
}

interface TaskedPort {
  readonly protocol: Protocol;
  readonly publishedPort: number;
  bound: readonly string[] | undefined;
  local: boolean;
  readonly backends: (MeshBackend & { readonly local: boolean })[];
}

/** The ingress network of this host, if it has one. */
export function ingressOf(world: World): NetworkState | undefined {
  for (const network of world.networks.values()) if (network.spec.ingress) return network;
  return undefined;
}

function gatewayBridgeOf(world: World): { name: string; subnet: string } | undefined {
  for (const network of world.networks.values()) {
    if (network.spec.name !== gatewayBridge || network.spec.driver !== "bridge") continue;
    return { name: bridgeName(network), subnet: network.spec.ipam.config[0]?.subnet ?? "" };
  }
  return undefined;
}

/** The mesh's door on this host: its devices and addresses; undefined until both are there. */
export function doorOf(world: World) {
  const sandbox = world.sandboxes.get(ingressSandboxId);
  const ingress = sandbox?.endpoints.find((endpoint) => endpoint.role === "lb");
  const gateway = sandbox?.endpoints.find((endpoint) => endpoint.role === "gateway");
  return ingress && gateway ? { ingress, gateway } : undefined;
}

export function meshHost(world: World, ports: readonly MeshPort[]): MeshHost | undefined {
  const door = doorOf(world);
  const bridge = gatewayBridgeOf(world);
  const leg = legOf(world);
  // Connections by the leg end later than their port, and their packets are ours as long.
  if (!door || !bridge || (ports.length === 0 && !leg)) return undefined;
  return {
    bridge: bridge.name,
    bridgeSubnet: bridge.subnet,
    sandbox: plainIp(door.gateway.ipv4),
    ingressSubnet: ingressOf(world)?.spec.ipam.config[0]?.subnet ?? "",
    ...(leg && { leg: meshLeg(world, leg, ports) }),
    ports: ports.map(({ protocol, publishedPort, bound }) => ({
      protocol,
      publishedPort,
      ...(bound && { bound: subnetsOf(bound, 4) }),
    })),
  };
}

/** What goes by the host's own leg: ports all of whose tasks can answer to it, whoever asks from beyond this host. */
function meshLeg(world: World, { routing, subnet }: Leg, ports: readonly MeshPort[]): MeshLeg {
  const bridges = hostState(world).bridges.flatMap(({ subnets }) => subnets);
  return {
    device: legName,
    mark: routing.mark,
    mask: routing.mask,
    near: subnetsOf(["127.0.0.0/8", subnet, ...bridges], 4),
    ports: ports
      .filter(({ backends }) => backends.length > 0 && backends.every(({ returnsToLeg }) => returnsToLeg === true))
      .map(({ protocol, publishedPort, backends }) => ({
        protocol,
        publishedPort,
        tasks: backends.map(({ address }) => address),
      })),
  };
}

export function meshSandbox(world: World, ports: readonly MeshPort[]): MeshSandbox | undefined {
  const door = doorOf(world);
  const bridge = gatewayBridgeOf(world);
  if (!door || !bridge) return undefined;
  return {
    ingressDevice: door.ingress.ifName,
    ingressAddress: plainIp(door.ingress.ipv4),
    gatewayDevice: door.gateway.ifName,
    gatewaySubnet: bridge.subnet,
    ports,
  };
}

/**
 * Every Skein node's door: where replies to clients of that node go back through. No address and no MAC comes twice:
 * a host that came back with nothing left is told of under its former name, too, for a while. The last word counts.
 */
export function meshEntries(world: World, doors: ReadonlyMap<string, MeshDoor>): MeshEntry[] {
  const own = doorOf(world);
  const told: MeshEntry[] = [...doors.values()].map(({ address, mac, leg }) => ({
    address,
    mac,
    ...(leg !== undefined && { leg }),
  }));
  if (own) {
    const { ipv4, mac } = own.ingress;
    told.push({ address: plainIp(ipv4), mac, leg: legMac(mac) });
  }
  const entries: MeshEntry[] = [];
  for (const entry of told.reverse()) {
    if (!entries.some(({ address, mac }) => address === entry.address || mac === entry.mac)) entries.push(entry);
  }
  return entries.sort((a, b) => (a.address < b.address ? -1 : 1));
}

/**
 * A task's half of the mesh; undefined for containers without published ports there. `proxyOf`: where connections to a
 * port that speaks the PROXY protocol are taken.
 */
export function meshTask(
  world: World,
  sandbox: SandboxState,
  entries: readonly MeshEntry[],
  egressHook: boolean,
  proxyOf: (publishedPort: number) => number | undefined,
): MeshTask | undefined {
  const network = ingressOf(world);
  const endpoint = sandbox.endpoints.find(({ networkId, role }) => role === "user" && networkId === network?.spec.id);
  const ports = endpoint?.service?.ingressPorts ?? [];
  if (!network || !endpoint || ports.length === 0) return undefined;
  const gateway = sandbox.endpoints.find((e) => e.role === "gateway");
  return {
    ingressDevice: endpoint.ifName,
    ingressAddress: plainIp(endpoint.ipv4),
    ingressSubnet: network.spec.ipam.config[0]?.subnet ?? "",
    defaultSource: plainIp(gateway?.ipv4 ?? endpoint.ipv4),
    ports: ports.flatMap(({ protocol, publishedPort, targetPort, proxy }) => {
      // Where a header is expected, nothing comes without one.
      const leadsTo = proxy ? (protocol === "tcp" ? proxyOf(publishedPort) : undefined) : targetPort;
      return leadsTo === undefined ? [] : [{ protocol, publishedPort, targetPort: leadsTo }];
    }),
    headed: ports.flatMap(({ headedPort }) => headedPort ?? []),
    entries,
    egressHook,
  };
}

/** Where a container's published ports lead. An owner that is none, the routing mesh, is reached at its door over IPv4. */
export function reachOf(world: World, owner: string): Reach {
  const sandbox = world.sandboxes.get(owner);
  if (!sandbox) return { ipv4: plainIp(doorOf(world)?.gateway.ipv4 ?? "127.0.0.1"), ipv6: "", lingers: true };
  const out = wayOut(world, sandbox)?.endpoint;
  return { ipv4: plainIp(out?.ipv4 ?? ""), ipv6: plainIp(out?.ipv6 ?? "") };
}

/** Bridges and published ports of the host's own containers. */
export function hostState(world: World): HostState {
  const bridges = bridgesOf(world).map((network) => {
    const options = parseBridge(network.spec);
    return {
      name: options.bridge,
      subnets: network.spec.ipam.config.map((pool) => pool.subnet),
    };
  });
  const ports: { protocol: Protocol; hostIp: string; hostPort: number; address: string; containerPort: number }[] = [];
  for (const sandbox of world.sandboxes.values()) {
    if (sandbox.ports.length === 0) continue;
    const out = wayOut(world, sandbox)?.endpoint;
    for (const { protocol, hostIp, hostPort, containerPort } of sandbox.ports) {
      const address = plainIp((hostIp.includes(":") ? out?.ipv6 : out?.ipv4) ?? "");
      if (address && hostPort !== 0) ports.push({ protocol, hostIp, hostPort, address, containerPort });
    }
  }
  return { bridges, ports };
}
