/** Nodes. */
import { create } from "@bufbuild/protobuf";
import type { Node } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type NodeSpec,
  NodeSpec_Availability,
  NodeSpec_Membership,
  NodeSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import {
  IssuanceStatus_State,
  type ManagerStatus,
  type NodeDescription,
  NodeRole,
  NodeStatus_State,
  RaftMemberStatus_Reachability,
} from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../../base/errors.ts";
import { type ShapeOf, str } from "../../../base/shape.ts";
import { annotationFields, annotationsToJson, annotationsToProto, metaToJson } from "./common.ts";
import { bytesToJson, enumValue, nz, ptr, wordOf } from "./render.ts";
import { genericToJson } from "./resources.ts";
import { strict } from "./strict.ts";

export const nodeSpec = strict({ ...annotationFields, Role: str, Availability: str });

/** "active" also for "". Throws on an unknown word. */
export function availabilityOf(word: string): NodeSpec_Availability {
  const value = word === "" ? NodeSpec_Availability.ACTIVE : enumValue(NodeSpec_Availability, word);
  if (value === undefined) throw invalid(`invalid Availability: ${JSON.stringify(word)}`);
  return value;
}

export function nodeSpecToProto(json: ShapeOf<typeof nodeSpec>): NodeSpec {
  const desiredRole = enumValue(NodeRole, json.Role);
  if (desiredRole === undefined) throw invalid(`invalid Role: ${JSON.stringify(json.Role)}`);
  const availability = enumValue(NodeSpec_Availability, json.Availability);
  if (availability === undefined) throw invalid(`invalid Availability: ${JSON.stringify(json.Availability)}`);
  return create(NodeSpecSchema, {
    annotations: annotationsToProto(json),
    desiredRole,
    availability,
    membership: NodeSpec_Membership.ACCEPTED,
  });
}

const managerStatusToJson = (status: ManagerStatus) => ({
  Leader: nz(status.leader),
  Reachability: wordOf(RaftMemberStatus_Reachability, status.reachability),
  Addr: nz(status.addr),
});

function descriptionToJson(description: NodeDescription | undefined) {
  const engine = description?.engine;
  const tls = description?.tlsInfo;
  const resources = description?.resources;
  return {
    Hostname: nz(description?.hostname),
    Platform: { Architecture: nz(description?.platform?.architecture), OS: nz(description?.platform?.os) },
    Resources: {
      NanoCPUs: nz(Number(resources?.nanoCpus ?? 0n)),
      MemoryBytes: nz(Number(resources?.memoryBytes ?? 0n)),
      GenericResources: nz(resources?.generic.map(genericToJson)),
    },
    Engine: {
      EngineVersion: nz(engine?.engineVersion),
      Labels: nz(engine?.labels),
      Plugins: nz(engine?.plugins.map((plugin) => ({ Type: nz(plugin.type), Name: nz(plugin.name) }))),
    },
    TLSInfo: {
      TrustRoot: tls?.trustRoot.length ? Buffer.from(tls.trustRoot).toString("utf8") : undefined,
      CertIssuerSubject: ptr(tls?.certIssuerSubject, bytesToJson),
      CertIssuerPublicKey: ptr(tls?.certIssuerPublicKey, bytesToJson),
    },
  };
}

/** Why a node waits for its certificate: an external authority does not sign it. */
function certificateMessage({ certificate }: Node): string {
  const { err = "", state } = certificate?.status ?? {};
  if (err === "") return "";
  return `${state === IssuanceStatus_State.PENDING ? "no certificate yet" : "the certificate is not renewed"}: ${err}`;
}

export function nodeToJson(node: Node) {
  const spec = node.spec;
  return {
    ...metaToJson(node.id, node.meta),
    Spec: {
      ...annotationsToJson(spec?.annotations),
      Role: wordOf(NodeRole, spec?.desiredRole ?? NodeRole.WORKER),
      Availability: wordOf(NodeSpec_Availability, spec?.availability ?? NodeSpec_Availability.ACTIVE),
    },
    Description: descriptionToJson(node.description),
    Status: {
      State: wordOf(NodeStatus_State, node.status?.state ?? NodeStatus_State.UNKNOWN),
      Message: nz(node.status?.message || certificateMessage(node)),
      Addr: nz(node.status?.addr),
    },
    ManagerStatus: ptr(node.managerStatus, managerStatusToJson),
  };
}
