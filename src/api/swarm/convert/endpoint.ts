/** Ports, endpoint specs and virtual addresses. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Endpoint } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type EndpointSpec,
  EndpointSpec_ResolutionMode,
  type EndpointSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import {
  type PortConfig,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  type PortConfigSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../../base/errors.ts";
import { int, list, type ShapeOf, str } from "../../../base/shape.ts";
import { uint32 } from "./common.ts";
import { enumValue, nz, ptr, wordOf } from "./render.ts";
import { strict } from "./strict.ts";

const portShape = strict({ Name: str, Protocol: str, TargetPort: int, PublishedPort: int, PublishMode: str });
export const endpointSpec = strict({ Mode: str, Ports: list(portShape) });

function portToProto(json: ShapeOf<typeof portShape>): MessageInitShape<typeof PortConfigSchema> {
  const protocol = json.Protocol === "" ? PortConfig_Protocol.TCP : enumValue(PortConfig_Protocol, json.Protocol);
  if (protocol === undefined) throw invalid(`invalid protocol: ${JSON.stringify(json.Protocol)}`);
  const mode =
    json.PublishMode === "" ? PortConfig_PublishMode.INGRESS : enumValue(PortConfig_PublishMode, json.PublishMode);
  if (mode === undefined) throw invalid(`invalid publish mode: ${JSON.stringify(json.PublishMode)}`);
  for (const port of [json.TargetPort, json.PublishedPort]) {
    if (uint32(port, "EndpointSpec.Ports") > 65535) throw invalid(`invalid port ${port}: more than 65535`);
  }
  return {
    name: json.Name,
    protocol,
    publishMode: mode,
    targetPort: json.TargetPort,
    publishedPort: json.PublishedPort,
  };
}

export function endpointSpecToProto(json: ShapeOf<typeof endpointSpec>): MessageInitShape<typeof EndpointSpecSchema> {
  // Docker compares this word as it is, and those of ports in any case.
  const known = json.Mode === json.Mode.toLowerCase();
  const mode = json.Mode === "" ? EndpointSpec_ResolutionMode.VIP : enumValue(EndpointSpec_ResolutionMode, json.Mode);
  if (mode === undefined || !known) throw invalid(`invalid resolution mode: ${JSON.stringify(json.Mode)}`);
  return { mode, ports: json.Ports.map(portToProto) };
}

export function portToJson(port: PortConfig) {
  return {
    Name: nz(port.name),
    Protocol: wordOf(PortConfig_Protocol, port.protocol),
    TargetPort: nz(port.targetPort),
    PublishedPort: nz(port.publishedPort),
    PublishMode: wordOf(PortConfig_PublishMode, port.publishMode),
  };
}

export function endpointSpecToJson(spec: EndpointSpec) {
  return { Mode: wordOf(EndpointSpec_ResolutionMode, spec.mode), Ports: nz(spec.ports.map(portToJson)) };
}

export function endpointToJson(endpoint: Endpoint | undefined) {
  return {
    Spec: ptr(endpoint?.spec, endpointSpecToJson) ?? {},
    Ports: nz(endpoint?.ports.map(portToJson)),
    VirtualIPs: nz(endpoint?.virtualIps.map((vip) => ({ NetworkID: nz(vip.networkId), Addr: nz(vip.addr) }))),
  };
}
