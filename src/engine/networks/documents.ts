/** Networks as `docker network inspect` and `ls` show them. */
import type { ListedEndpoint, NetworkSpec, VerboseService } from "../../network/types.ts";
import type { Json } from "../types.ts";

export function networkDocument(spec: NetworkSpec): Json {
  return {
    Name: spec.name,
    Id: spec.id,
    Created: spec.created,
    Scope: spec.scope,
    Driver: spec.driver,
    EnableIPv4: spec.enableIPv4,
    EnableIPv6: spec.enableIPv6,
    IPAM: {
      Driver: spec.ipam.driver || "default",
      Options: spec.ipam.options,
      Config: spec.ipam.config.map((pool) => ({
        Subnet: pool.subnet,
        ...(pool.ipRange && { IPRange: pool.ipRange }),
        ...(pool.gateway && { Gateway: pool.gateway }),
        ...(pool.auxAddresses && { AuxiliaryAddresses: pool.auxAddresses }),
      })),
    },
    Internal: spec.internal,
    Attachable: spec.attachable,
    Ingress: spec.ingress,
    ConfigFrom: { Network: spec.configFrom },
    ConfigOnly: spec.configOnly,
    Containers: {},
    Options: spec.options,
    Labels: spec.labels,
  };
}

export function containersMap(endpoints: readonly ListedEndpoint[]): Json {
  const out: Json = {};
  for (const endpoint of endpoints) {
    out[endpoint.key] = {
      Name: endpoint.name,
      EndpointID: endpoint.endpointId,
      MacAddress: endpoint.mac,
      IPv4Address: endpoint.ipv4,
      IPv6Address: endpoint.ipv6,
    };
  }
  return out;
}

export function servicesMap(services: readonly VerboseService[]): Json {
  const out: Json = {};
  for (const service of services) {
    out[service.name] = {
      VIP: service.vip,
      Ports: service.ports,
      LocalLBIndex: 0,
      Tasks: service.tasks.map((task) => ({
        Name: task.name,
        EndpointID: task.endpointId,
        EndpointIP: task.endpointIp,
        Info: { "Host IP": task.hostIp },
      })),
    };
  }
  return out;
}
