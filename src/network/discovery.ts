/** From participants to names and to backends. Pure; one call per network and change. */
import type { Participant } from "./overlay/records.ts";
import type { NameNetwork, NameRecord, SrvTarget } from "./resolver/types.ts";
import type { IngressPort, ServiceBinding, VerboseService } from "./types.ts";

/**
 * What a network knows by name. Container names and aliases -> their address; `tasks.<service>` -> every task;
 * `<service>` -> its VIP, or every task where it has none. A draining task has no names, but its service keeps its VIP
 * while any task is known.
 */
export function namesOf(
  network: { name: string; ingress: boolean },
  participants: readonly Participant[],
  portsOf: (serviceId: string) => readonly ServicePort[] = () => [],
): NameNetwork {
  const forward = new Map<string, { ipv4: Set<string>; ipv6: Set<string> }>();
  const reverse = new Map<string, string>();
  const add = (name: string, address: string) => {
    if (!name || !address) return;
    const key = name.toLowerCase();
    const entry = forward.get(key) ?? { ipv4: new Set(), ipv6: new Set() };
    forward.set(key, entry);
    (address.includes(":") ? entry.ipv6 : entry.ipv4).add(address);
  };
  // Ingress is for the mesh only: its addresses are nobody's business.
  for (const p of network.ingress ? [] : participants) {
    const serviceNames = p.service ? [p.service.name, ...p.service.aliases] : [];
    if (p.service?.vip) for (const name of serviceNames) add(name, p.service.vip);
    if (p.vip6) for (const name of serviceNames) add(name, p.vip6);
    if (p.draining) continue;
    for (const address of [p.address, p.address6]) {
      for (const name of [p.name, ...p.aliases]) add(name, address);
      if (address && !reverse.has(address)) reverse.set(address, `${p.name}.${network.name}`);
      for (const name of serviceNames) {
        add(`tasks.${name}`, address);
        if (!p.service?.vip) add(name, address);
      }
    }
  }
  const records = new Map<string, NameRecord>(
    [...forward].map(([name, { ipv4, ipv6 }]) => [name, { ipv4: [...ipv4], ipv6: [...ipv6] }]),
  );
  return {
    name: network.name,
    lookup: (name) => records.get(name),
    reverse: (address) => reverse.get(address),
    srv: (name) => (network.ingress ? undefined : srvOf(name, network.name, participants, portsOf)),
  };
}

export type ServicePort = ServiceBinding["ingressPorts"][number];

/** What people call the targets that services publish most. */
const wellKnown: Readonly<Record<number, string>> = { 53: "domain", 80: "http", 443: "https" };

/**
 * `_<port>._<protocol>.<service>`: every task with the target port. The port by its name in the service, by its
 * number, or by what everybody calls it: `_web._tcp.shop`, `_8080._tcp.shop`, `_http._tcp.shop`.
 */
function srvOf(
  name: string,
  networkName: string,
  participants: readonly Participant[],
  portsOf: (serviceId: string) => readonly ServicePort[],
): SrvTarget[] | undefined {
  const parts = /^_([^.]+)\._(tcp|udp|sctp)\.(.+)$/.exec(name);
  if (!parts) return undefined;
  const [, port = "", protocol, asked = ""] = parts;
  const suffix = `.${networkName.toLowerCase()}`;
  const wanted = asked.endsWith(suffix) ? asked.slice(0, -suffix.length) : asked;
  const isCalled = ({ service }: Participant) =>
    service !== undefined && [service.name, ...service.aliases].some((one) => one.toLowerCase() === wanted);
  return participants
    .filter((p) => !p.draining && isCalled(p))
    .flatMap((p) => {
      const fitting = portsOf(p.service?.id ?? "").filter(
        (one) =>
          one.protocol === protocol &&
          [one.name.toLowerCase(), String(one.targetPort), wellKnown[one.targetPort]].includes(port),
      );
      const ports = [...new Set(fitting.map(({ targetPort }) => targetPort))];
      return ports.map((number) => ({ target: `${p.name}.${networkName}`, port: number }));
    });
}

/** A service as the balancer sees it on one network. */
export interface ServiceBackends {
  readonly id: string;
  readonly name: string;
  readonly vip: string;
  /** "" where the network has no IPv6, or no task of the service is reached over it. */
  readonly vip6: string;
  readonly ports: readonly Omit<IngressPort, "name" | "headedPort">[];
  readonly backends: readonly {
    readonly address: string;
    /** "" for none. */
    readonly address6: string;
    readonly local: boolean;
    readonly draining: boolean;
    readonly owner: string;
    /** `headedPort` by published port. */
    readonly headed: ReadonlyMap<number, number>;
  }[];
}

/**
 * The services on a network in order of their ids, backends in order of addresses, so that equal states give equal
 * tables. A service whose tasks carry different ports (during an update) is one entry per set of ports.
 */
export function servicesOf(participants: readonly Participant[]): ServiceBackends[] {
  const found = new Map<string, ServiceBackends & { vip6: string; backends: ServiceBackends["backends"][number][] }>();
  for (const p of participants) {
    if (!p.service) continue;
    const ports = p.service.ingressPorts.map(({ name: _, headedPort: __, ...port }) => port);
    const key = `${p.service.id} ${p.service.vip} ${JSON.stringify(ports)}`;
    const { id, name, vip } = p.service;
    const entry = found.get(key) ?? { id, name, vip, vip6: "", ports, backends: [] };
    if (p.vip6) entry.vip6 = p.vip6;
    found.set(key, entry);
    const { address, address6, local, draining, owner } = p;
    if (entry.backends.some((backend) => backend.address === address)) continue;
    const headed = new Map(
      p.service.ingressPorts.flatMap(({ publishedPort, headedPort }) =>
        headedPort === undefined ? [] : [[publishedPort, headedPort] as const],
      ),
    );
    entry.backends.push({ address, address6, local, draining, owner, headed });
  }
  for (const entry of found.values()) entry.backends.sort((a, b) => compare(a.address, b.address));
  return [...found.entries()].sort(([a], [b]) => compare(a, b)).map(([, entry]) => entry);
}

/** `network inspect --verbose`. */
export function verboseOf(participants: readonly Participant[]): VerboseService[] {
  const services = new Map<string, { vip: string; ports: Set<string>; tasks: VerboseService["tasks"] }>();
  for (const p of participants) {
    const name = p.service?.name ?? "";
    const entry = services.get(name) ?? { vip: p.service?.vip || "<nil>", ports: new Set(), tasks: [] };
    services.set(name, entry);
    for (const port of p.service?.ingressPorts ?? []) {
      entry.ports.add(`Target: ${port.targetPort}, Publish: ${port.publishedPort}`);
    }
    entry.tasks.push({ name: p.name, endpointId: p.endpointId, endpointIp: p.address, hostIp: p.hostAddress });
  }
  return [...services].map(([name, { vip, ports, tasks }]) => ({ name, vip, ports: [...ports], tasks }));
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
