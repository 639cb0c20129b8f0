/**
 * What the nodes tell each other about endpoints: two gossip tables per overlay network, keyed by endpoint id.
 * `overlay_peer_table` says where an address is, `endpoint_table` what it is called and what it serves.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  EndpointRecordSchema,
  PeerRecordSchema,
  type PortConfig,
  PortConfig_Protocol,
  type ProxiedPort,
} from "#proto/docker/networkdb/records_pb.js";
import type { PublishOptions } from "../../base/publish.ts";
import { isMac, parseCidr, parseIp, plainIp } from "../address.ts";
import type { RemotePeer } from "../plan/overlay.ts";
import type { EndpointState } from "../state.ts";
import type { IngressPort, ServiceBinding } from "../types.ts";

export const endpointTable = "endpoint_table";
export const peerTable = "overlay_peer_table";

/** One participant of discovery on one network, local or told by another node. */
export interface Participant {
  readonly endpointId: string;
  readonly name: string;
  readonly aliases: readonly string[];
  /** Plain address. */
  readonly address: string;
  /** Plain address, "" for none. Not told between nodes: it follows from the IPv4 one (`base/dual-stack.ts`). */
  readonly address6: string;
  /** The service's virtual address in IPv6, for participants who are reached over it. Follows from `service.vip`. */
  readonly vip6?: string;
  readonly service: ServiceBinding | undefined;
  /** About to stop: keeps its connections, gets no new ones, has no names. */
  readonly draining: boolean;
  /** Data path or gossip address of its host. */
  readonly hostAddress: string;
  /** Gossip name of its node, "" for this one. */
  readonly owner: string;
  readonly local: boolean;
}

const protocols = {
  tcp: PortConfig_Protocol.TCP,
  udp: PortConfig_Protocol.UDP,
  sctp: PortConfig_Protocol.SCTP,
} as const;

const protocolName = (value: PortConfig_Protocol): "tcp" | "udp" | "sctp" => {
  if (value === PortConfig_Protocol.UDP) return "udp";
  return value === PortConfig_Protocol.SCTP ? "sctp" : "tcp";
};

export function encodeEndpoint(endpoint: EndpointState, draining: boolean): Uint8Array {
  const { service } = endpoint;
  const ports = service?.ingressPorts ?? [];
  return toBinary(
    EndpointRecordSchema,
    create(EndpointRecordSchema, {
      name: endpoint.name,
      endpointIp: plainIp(endpoint.ipv4),
      taskAliases: endpoint.aliases,
      serviceDisabled: draining,
      ...(service
        ? {
            serviceName: service.name,
            serviceId: service.id,
            virtualIp: service.vip,
            aliases: service.aliases,
            ingressPorts: ports.filter((port) => !isRestricted(port)).map(encodePort),
            restrictedPorts: ports.filter(isRestricted).map((port) => ({
              port: encodePort(port),
              bound: port.bound !== undefined,
              addresses: [...(port.bound ?? [])],
              local: port.local ?? false,
            })),
            proxiedPorts: ports.flatMap(({ publishedPort, proxy, headedPort = 0 }) =>
              proxy ? [{ publishedPort, headedPort }] : [],
            ),
          }
        : {}),
    }),
  );
}

/** Undefined for what receivers ignore: no name, no address, not a record at all. */
export function decodeEndpoint(
  endpointId: string,
  bytes: Uint8Array,
  from: { address: string; name: string },
): Participant | undefined {
  let record: ReturnType<typeof fromBinary<typeof EndpointRecordSchema>>;
  try {
    record = fromBinary(EndpointRecordSchema, bytes);
  } catch {
    return undefined;
  }
  if (!record.name || parseIp(record.endpointIp)?.family !== 4) return undefined;
  return {
    endpointId,
    name: record.name,
    aliases: record.taskAliases,
    address: record.endpointIp,
    draining: record.serviceDisabled,
    address6: "",
    hostAddress: from.address,
    owner: from.name,
    local: false,
    service: record.serviceId
      ? {
          id: record.serviceId,
          name: record.serviceName,
          // Go writes a missing address as the text "<nil>".
          vip: parseIp(record.virtualIp)?.family === 4 ? record.virtualIp : "",
          aliases: record.aliases,
          ingressPorts: [
            ...record.ingressPorts.flatMap((port) => decodePort(port)),
            ...record.restrictedPorts.flatMap(({ port, bound, addresses, local }) =>
              decodePort(port).map((one) => ({
                ...one,
                ...(bound && { bound: addresses.filter((address) => parseCidr(address)) }),
                ...(local && { local }),
              })),
            ),
          ].map((port) => ({ ...port, ...proxiedOf(record.proxiedPorts, port) })),
        }
      : undefined,
  };
}

/** Not for everybody: only nodes of ours are told. */
const isRestricted = ({ bound, local }: PublishOptions): boolean => bound !== undefined || local === true;

const encodePort = (port: IngressPort) => ({
  name: port.name,
  protocol: protocols[port.protocol],
  targetPort: port.targetPort,
  publishedPort: port.publishedPort,
});

function decodePort(port: PortConfig | undefined): IngressPort[] {
  if (!port || !validPort(port.targetPort) || !validPort(port.publishedPort)) return [];
  const { name, targetPort, publishedPort } = port;
  return [{ name, protocol: protocolName(port.protocol), targetPort, publishedPort }];
}

function proxiedOf(proxied: readonly ProxiedPort[], { protocol, publishedPort }: IngressPort): Partial<IngressPort> {
  const told = protocol === "tcp" ? proxied.find((one) => one.publishedPort === publishedPort) : undefined;
  if (!told) return {};
  return { proxy: true, ...(validPort(told.headedPort) && { headedPort: told.headedPort }) };
}

const validPort = (port: number) => port > 0 && port < 65536;

export function encodePeer(endpoint: EndpointState, vtep: string): Uint8Array {
  return toBinary(
    PeerRecordSchema,
    create(PeerRecordSchema, { endpointIp: endpoint.ipv4, endpointMac: endpoint.mac, tunnelEndpointIp: vtep }),
  );
}

export function decodePeer(endpointId: string, bytes: Uint8Array): RemotePeer | undefined {
  try {
    const record = fromBinary(PeerRecordSchema, bytes);
    const parsed = parseCidr(record.endpointIp);
    if (!parsed || !isMac(record.endpointMac) || !parseIp(record.tunnelEndpointIp)) return undefined;
    return {
      endpointId,
      address: plainIp(record.endpointIp),
      prefix: parsed.subnet.prefix,
      mac: record.endpointMac.toLowerCase(),
      vtep: record.tunnelEndpointIp,
    };
  } catch {
    return undefined;
  }
}
