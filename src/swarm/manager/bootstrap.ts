/** The birth of a cluster: certificates of the first node, then the first objects of the store. */

import { createHash, randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import { ClusterSchema, type Network, NetworkSchema, NodeSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { type ClusterSpec, NodeSpec_Availability, NodeSpec_Membership } from "#proto/docker/swarmkit/specs_pb.js";
import {
  AnnotationsSchema,
  CAConfigSchema,
  DispatcherConfigSchema,
  EncryptionConfigSchema,
  IssuanceStatus_State,
  NodeRole,
  NodeStatus_State,
  OrchestrationConfigSchema,
  RaftConfigSchema,
  RaftMemberStatus_Reachability,
  TaskDefaultsSchema,
} from "#proto/docker/swarmkit/types_pb.js";
import { type Clock, systemClock } from "../../base/clock.ts";
import { unavailable } from "../../base/errors.ts";
import { swarmId } from "../../base/id.ts";
import { createCsr, createRootCa, MANAGER_OU, signCsr } from "../ca/certificates.ts";
import { type NodeCredentials, readRootKey, writeCredentials } from "../ca/files.ts";
import { KEY_BYTES } from "../ca/seal.ts";
import { makeToken } from "../ca/token.ts";
import type { Store } from "../store/store.ts";
import { unlockKeysFor } from "./autolock.ts";
import { firstKeys } from "./keys.ts";
import type { BootstrapOptions, BootstrapResult } from "./types.ts";

const DAY_S = 86_400n;

/** Makes a new swarm's root and this node's certificate in `<stateDir>/certificates`. */
export async function bootstrapCluster(stateDir: string, clock: Clock = systemClock): Promise<BootstrapResult> {
  const nodeId = swarmId();
  const clusterId = swarmId();
  const root = await createRootCa(clock.now());
  const { csrPem, keyPem } = await createCsr();
  const certPem = await signCsr({ root, csrPem, cn: nodeId, ou: MANAGER_OU, o: clusterId, now: clock.now() });
  const dataKeys = [{ generation: 0, key: randomBytes(KEY_BYTES) }];
  writeCredentials(stateDir, { rootPem: root.certPem, rootKeyPem: root.keyPem, keyPem, certPem, dataKeys });
  return { nodeId, clusterId };
}

/**
 * The spec with SwarmKit's defaults where it says nothing, but for the heartbeat: a second instead of five, so that
 * a lost node's tasks run elsewhere within five seconds.
 */
export function withDefaults(spec: ClusterSpec): ClusterSpec {
  const raft = spec.raft ?? create(RaftConfigSchema);
  const annotations = spec.annotations ?? create(AnnotationsSchema);
  const caConfig = spec.caConfig ?? create(CAConfigSchema);
  return {
    ...spec,
    annotations: { ...annotations, name: annotations.name || "default" },
    orchestration: spec.orchestration ?? create(OrchestrationConfigSchema, { taskHistoryRetentionLimit: 5n }),
    raft: {
      ...raft,
      snapshotInterval: raft.snapshotInterval || 10_000n,
      logEntriesForSlowFollowers: raft.logEntriesForSlowFollowers || 500n,
      heartbeatTick: raft.heartbeatTick || 1,
      electionTick: raft.electionTick || 10,
    },
    dispatcher: spec.dispatcher?.heartbeatPeriod
      ? spec.dispatcher
      : create(DispatcherConfigSchema, { heartbeatPeriod: { seconds: 1n } }),
    caConfig: {
      ...caConfig,
      nodeCertExpiry: caConfig.nodeCertExpiry ?? create(DurationSchema, { seconds: 90n * DAY_S }),
    },
    taskDefaults: spec.taskDefaults ?? create(TaskDefaultsSchema),
    encryptionConfig: spec.encryptionConfig ?? create(EncryptionConfigSchema),
  };
}

/** The label of networks that every node has. */
export const PREDEFINED_LABEL = "com.docker.swarm.predefined";

function predefined(name: string, driver: string): Network {
  return create(NetworkSchema, {
    id: swarmId(),
    spec: { annotations: { name, labels: { [PREDEFINED_LABEL]: "true" } }, driverConfig: { name: driver } },
  });
}

function ingress(): Network {
  return create(NetworkSchema, {
    id: swarmId(),
    spec: {
      annotations: { name: "ingress" },
      driverConfig: { name: "overlay" },
      ingress: true,
      ipam: { driver: { name: "default" } },
    },
  });
}

/** Writes the first objects: cluster with tokens and keys, this node, ingress and the predefined networks. */
export async function createFirstObjects(
  store: Store,
  stateDir: string,
  node: NodeCredentials,
  options: BootstrapOptions,
  advertiseAddr: string,
): Promise<void> {
  const keyPem = readRootKey(stateDir);
  if (keyPem === undefined) throw unavailable("the swarm's root CA key is not there: bootstrapCluster was not called");
  const bytes = (text: string) => new TextEncoder().encode(text);
  const { cn: nodeId, o: clusterId } = node.identity;
  const ring = firstKeys();
  const cluster = create(ClusterSchema, {
    id: clusterId,
    spec: withDefaults(options.clusterSpec),
    rootCa: {
      caKey: bytes(keyPem),
      caCert: bytes(node.rootPem),
      caCertHash: `sha256:${createHash("sha256").update(node.rootPem).digest("hex")}`,
      joinTokens: { worker: makeToken(node.rootPem), manager: makeToken(node.rootPem) },
    },
    networkBootstrapKeys: ring.keys,
    encryptionKeyLamportClock: ring.clock,
    unlockKeys: unlockKeysFor(options.clusterSpec, [], false),
    defaultAddressPool: options.defaultAddressPool,
    subnetSize: options.subnetSize,
    VXLANUDPPort: options.dataPathPort,
  });
  const self = create(NodeSchema, {
    id: nodeId,
    role: NodeRole.MANAGER,
    VXLANUDPPort: options.dataPathPort,
    spec: {
      annotations: {},
      desiredRole: NodeRole.MANAGER,
      membership: NodeSpec_Membership.ACCEPTED,
      availability: options.availability ?? NodeSpec_Availability.ACTIVE,
    },
    status: { state: NodeStatus_State.UNKNOWN },
    certificate: {
      role: NodeRole.MANAGER,
      cn: nodeId,
      certificate: bytes(node.certPem),
      status: { state: IssuanceStatus_State.ISSUED },
    },
    managerStatus: {
      raftId: 1n,
      addr: advertiseAddr,
      leader: true,
      reachability: RaftMemberStatus_Reachability.REACHABLE,
    },
  });
  await store.update((tx) => {
    if (tx.get("cluster", clusterId)) return;
    tx.create("cluster", cluster);
    tx.create("node", self);
    tx.create("network", ingress());
    tx.create("network", predefined("bridge", "bridge"));
    tx.create("network", predefined("host", "host"));
  });
}
