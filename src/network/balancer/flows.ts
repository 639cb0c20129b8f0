/**
 * Connections that a change leaves behind. A table is asked only for a connection's first packet; datagram clients
 * that go on sending keep theirs alive, and with it the decision of another day. So whoever replaces a table forgets
 * these (`Conntrack.flush`), after the table is in place.
 */
import { familyOf } from "../../kernel/inet.ts";
import type { ConntrackFilter } from "../../kernel/types.ts";
import type { HostPort, HostState, MeshHost, Protocol } from "./types.ts";

const NUMBERS: Record<Protocol, number> = { tcp: 6, udp: 17, sctp: 132 };

const keyOf = (port: HostPort) =>
  `${port.protocol} ${port.hostIp} ${port.hostPort} ${port.address} ${port.containerPort}`;

/**
 * After published ports of containers changed: what went to ports that are published otherwise now, and what was
 * translated to containers that are gone.
 */
export function staleFlows(before: HostState, after: HostState): ConntrackFilter[] {
  const [was, is] = [new Set(before.ports.map(keyOf)), new Set(after.ports.map(keyOf))];
  const alive = new Set(after.ports.map(({ address }) => address));
  const filters = new Map<string, ConntrackFilter>();
  const add = (filter: ConntrackFilter) => filters.set(JSON.stringify(filter), filter);
  for (const { protocol, address, hostPort } of after.ports.filter((port) => !was.has(keyOf(port)))) {
    // A stream that was refused left nothing behind.
    if (protocol === "udp") add({ family: familyOf(address), protocol: NUMBERS.udp, origDstPort: hostPort });
  }
  for (const { protocol, address, hostPort } of before.ports.filter((port) => !is.has(keyOf(port)))) {
    const family = familyOf(address);
    if (!alive.has(address)) add({ family, replySrc: address });
    else add({ family, protocol: NUMBERS[protocol], origDstPort: hostPort, replySrc: address });
  }
  return [...filters.values()];
}

/** After the mesh's ports on this host changed: in the host's namespace. Undefined: no mesh here. */
export function staleMeshFlows(before: MeshHost | undefined, after: MeshHost | undefined): ConntrackFilter[] {
  const keys = (state: MeshHost | undefined) =>
    new Map((state?.ports ?? []).map((port) => [`${port.protocol} ${port.publishedPort}`, port] as const));
  const [was, is] = [keys(before), keys(after)];
  const changed = [...is].filter(([key]) => !was.has(key)).concat([...was].filter(([key]) => !is.has(key)));
  return changed
    .filter(([, { protocol }]) => protocol === "udp")
    .map(([, { publishedPort }]) => ({ family: 4, protocol: NUMBERS.udp, origDstPort: publishedPort }));
}
