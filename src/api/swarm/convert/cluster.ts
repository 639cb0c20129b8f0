/** The swarm itself: its spec, its tokens, its root of trust. */
import { clone, create } from "@bufbuild/protobuf";
import type { Cluster } from "#proto/docker/swarmkit/objects_pb.js";
import { type ClusterSpec, ClusterSpecSchema } from "#proto/docker/swarmkit/specs_pb.js";
import { type ExternalCA, ExternalCA_CAProtocol, ExternalCASchema } from "#proto/docker/swarmkit/types_pb.js";
import { invalid } from "../../../base/errors.ts";
import { bool, dict, int, list, optional, type ShapeOf, str } from "../../../base/shape.ts";
import { issuerOf } from "../../../swarm/ca/certificates.ts";
import {
  annotationFields,
  annotationsToJson,
  driver,
  driverToJson,
  driverToProto,
  metaToJson,
  uint32,
  uint64,
} from "./common.ts";
import { bytesToJson, durationFromJson, durationOrZero, nz, ptr } from "./render.ts";
import { strict } from "./strict.ts";

const externalCa = strict({ Protocol: str, URL: str, Options: dict(str), CACert: str });

/** cfssl is the only protocol that SwarmKit knows; a null among them is passed over. */
function externalCas(given: readonly (ShapeOf<typeof externalCa> | undefined)[]): ExternalCA[] {
  return given.flatMap((ca) => {
    if (!ca) return [];
    if (ca.Protocol.toUpperCase() !== "CFSSL") throw invalid(`invalid protocol: ${JSON.stringify(ca.Protocol)}`);
    const { CACert, Options: options, URL: url } = ca;
    return create(ExternalCASchema, {
      protocol: ExternalCA_CAProtocol.CAPROTOCOL_CFSSL,
      url,
      options,
      caCert: Buffer.from(CACert),
    });
  });
}

const externalCaToJson = ({ caCert, options, url }: ExternalCA) => ({
  Protocol: "cfssl",
  URL: url,
  Options: Object.keys(options).length > 0 ? options : undefined,
  CACert: Buffer.from(caCert).toString("utf8"),
});

export const swarmSpec = strict({
  ...annotationFields,
  Orchestration: strict({ TaskHistoryRetentionLimit: optional(int) }),
  Raft: strict({
    SnapshotInterval: int,
    KeepOldSnapshots: optional(int),
    LogEntriesForSlowFollowers: int,
    ElectionTick: int,
    HeartbeatTick: int,
  }),
  Dispatcher: strict({ HeartbeatPeriod: int }),
  CAConfig: strict({
    NodeCertExpiry: int,
    ExternalCAs: list(optional(externalCa)),
    SigningCACert: str,
    SigningCAKey: str,
    ForceRotate: int,
  }),
  TaskDefaults: strict({ LogDriver: driver }),
  EncryptionConfig: strict({ AutoLockManagers: bool }),
});
export type SwarmSpecJson = ShapeOf<typeof swarmSpec>;

export const initRequest = strict({
  ListenAddr: str,
  AdvertiseAddr: str,
  DataPathAddr: str,
  DataPathPort: int,
  ForceNewCluster: bool,
  Spec: swarmSpec,
  AutoLockManagers: bool,
  Availability: str,
  DefaultAddrPool: list(str),
  SubnetSize: int,
});

export const joinRequest = strict({
  ListenAddr: str,
  AdvertiseAddr: str,
  DataPathAddr: str,
  RemoteAddrs: list(str),
  JoinToken: str,
  Availability: str,
});

export const unlockRequest = strict({ UnlockKey: str });

/** Docker knows one name of a swarm only. */
export function checkSwarmName(spec: SwarmSpecJson): void {
  if (spec.Name !== "" && spec.Name !== "default") throw invalid('swarm spec must be named "default"');
}

/** SwarmKit's defaults, where `docker swarm init` starts from. */
export function defaultClusterSpec(): ClusterSpec {
  return create(ClusterSpecSchema, {
    annotations: { name: "default" },
    orchestration: { taskHistoryRetentionLimit: 5n },
    raft: { snapshotInterval: 10000n, logEntriesForSlowFollowers: 500n, heartbeatTick: 1, electionTick: 10 },
    dispatcher: { heartbeatPeriod: { seconds: 1n } },
    caConfig: { nodeCertExpiry: { seconds: 7776000n } },
    taskDefaults: {},
    encryptionConfig: {},
  });
}

/**
 * Lays a request over a spec: zero and absent keep what is there. `docker swarm update` sends the whole spec,
 * `docker swarm init` what was given on its command line.
 */
export function mergeSwarmSpec(json: SwarmSpecJson, base: ClusterSpec): ClusterSpec {
  checkSwarmName(json);
  const spec = clone(ClusterSpecSchema, base);
  const { Raft: raft, CAConfig: ca } = json;
  const raftBase = spec.raft;
  const patch = create(ClusterSpecSchema, {
    annotations: {
      name: json.Name || spec.annotations?.name || "default",
      labels: Object.keys(json.Labels).length ? json.Labels : (spec.annotations?.labels ?? {}),
    },
    orchestration: {
      taskHistoryRetentionLimit:
        ptr(json.Orchestration.TaskHistoryRetentionLimit, BigInt) ??
        spec.orchestration?.taskHistoryRetentionLimit ??
        0n,
    },
    raft: {
      snapshotInterval: uint64(raft.SnapshotInterval, "Raft.SnapshotInterval") || raftBase?.snapshotInterval || 0n,
      keepOldSnapshots:
        ptr(raft.KeepOldSnapshots, (n) => uint64(n, "Raft.KeepOldSnapshots")) ?? raftBase?.keepOldSnapshots ?? 0n,
      logEntriesForSlowFollowers:
        uint64(raft.LogEntriesForSlowFollowers, "Raft.LogEntriesForSlowFollowers") ||
        raftBase?.logEntriesForSlowFollowers ||
        0n,
      heartbeatTick: uint32(raft.HeartbeatTick, "Raft.HeartbeatTick") || raftBase?.heartbeatTick || 0,
      electionTick: uint32(raft.ElectionTick, "Raft.ElectionTick") || raftBase?.electionTick || 0,
    },
    dispatcher: {
      heartbeatPeriod: json.Dispatcher.HeartbeatPeriod
        ? durationFromJson(json.Dispatcher.HeartbeatPeriod)
        : spec.dispatcher?.heartbeatPeriod,
    },
    caConfig: {
      nodeCertExpiry: ca.NodeCertExpiry ? durationFromJson(ca.NodeCertExpiry) : spec.caConfig?.nodeCertExpiry,
      signingCaCert: ca.SigningCACert ? Buffer.from(ca.SigningCACert) : spec.caConfig?.signingCaCert,
      signingCaKey: ca.SigningCAKey ? Buffer.from(ca.SigningCAKey) : spec.caConfig?.signingCaKey,
      forceRotate: uint64(ca.ForceRotate, "CAConfig.ForceRotate"),
      externalCas: [...(spec.caConfig?.externalCas ?? []), ...externalCas(ca.ExternalCAs)],
    },
    taskDefaults: { logDriver: driverToProto(json.TaskDefaults.LogDriver) ?? spec.taskDefaults?.logDriver },
    encryptionConfig: { autoLockManagers: json.EncryptionConfig.AutoLockManagers },
    acceptancePolicy: spec.acceptancePolicy,
  });
  return patch;
}

function specToJson(spec: ClusterSpec | undefined) {
  return {
    ...annotationsToJson(spec?.annotations),
    Orchestration: { TaskHistoryRetentionLimit: Number(spec?.orchestration?.taskHistoryRetentionLimit ?? 0n) },
    Raft: {
      SnapshotInterval: nz(Number(spec?.raft?.snapshotInterval ?? 0n)),
      KeepOldSnapshots: Number(spec?.raft?.keepOldSnapshots ?? 0n),
      LogEntriesForSlowFollowers: nz(Number(spec?.raft?.logEntriesForSlowFollowers ?? 0n)),
      ElectionTick: spec?.raft?.electionTick ?? 0,
      HeartbeatTick: spec?.raft?.heartbeatTick ?? 0,
    },
    Dispatcher: { HeartbeatPeriod: nz(durationOrZero(spec?.dispatcher?.heartbeatPeriod)) },
    // The signing certificate and key are never told: a read and an update must not lose one and keep the other.
    CAConfig: {
      NodeCertExpiry: nz(durationOrZero(spec?.caConfig?.nodeCertExpiry)),
      ExternalCAs: spec?.caConfig?.externalCas.length ? spec.caConfig.externalCas.map(externalCaToJson) : undefined,
      ForceRotate: nz(Number(spec?.caConfig?.forceRotate ?? 0n)),
    },
    TaskDefaults: { LogDriver: ptr(spec?.taskDefaults?.logDriver, driverToJson) },
    EncryptionConfig: { AutoLockManagers: spec?.encryptionConfig?.autoLockManagers ?? false },
  };
}

/** Subject and public key (raw DER, base64) of the CA that signs node certificates. */
function issuerToJson(pem: Uint8Array): {
  CertIssuerSubject?: string | undefined;
  CertIssuerPublicKey?: string | undefined;
} {
  if (pem.length === 0) return {};
  try {
    const { subject, publicKey } = issuerOf(Buffer.from(pem).toString("utf8"));
    return { CertIssuerSubject: bytesToJson(subject), CertIssuerPublicKey: bytesToJson(publicKey) };
  } catch {
    return {};
  }
}

/** What `docker info` shows of the swarm on a manager. */
export function clusterInfoToJson(cluster: Cluster) {
  const root = cluster.rootCa;
  return {
    ...metaToJson(cluster.id, cluster.meta),
    Spec: specToJson(cluster.spec),
    TLSInfo: {
      TrustRoot: root?.caCert.length ? Buffer.from(root.caCert).toString("utf8") : undefined,
      ...(root ? issuerToJson(root.rootRotation?.caCert ?? root.caCert) : {}),
    },
    RootRotationInProgress: root?.rootRotation !== undefined,
    DefaultAddrPool: cluster.defaultAddressPool.length ? cluster.defaultAddressPool : null,
    SubnetSize: cluster.subnetSize,
    DataPathPort: cluster.VXLANUDPPort,
  };
}

/** `GET /swarm`. */
export function swarmToJson(cluster: Cluster) {
  const tokens = cluster.rootCa?.joinTokens;
  return {
    ...clusterInfoToJson(cluster),
    JoinTokens: { Worker: tokens?.worker ?? "", Manager: tokens?.manager ?? "" },
  };
}
