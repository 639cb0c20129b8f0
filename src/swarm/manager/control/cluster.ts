/** What a cluster's spec may say. (SwarmKit: manager/controlapi/cluster.go) */
import { create } from "@bufbuild/protobuf";
import type { Cluster } from "#proto/docker/swarmkit/objects_pb.js";
import type { ClusterSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { JoinTokensSchema } from "#proto/docker/swarmkit/types_pb.js";
import { MIN_NODE_EXPIRY_MS } from "../../ca/certificates.ts";
import { makeToken } from "../../ca/token.ts";
import { unlockKeysFor } from "../autolock.ts";
import { durationMs } from "../defaults.ts";
import { rpcError } from "./errors.ts";

/** Throws Docker's words. */
export function checkCluster(spec: ClusterSpec): void {
  if (durationMs(spec.caConfig?.nodeCertExpiry, MIN_NODE_EXPIRY_MS) < MIN_NODE_EXPIRY_MS) {
    throw rpcError("InvalidArgument", "minimum certificate expiry time is: 1h0m0s");
  }
  if (durationMs(spec.dispatcher?.heartbeatPeriod, 0) < 0) {
    throw rpcError("InvalidArgument", "heartbeat time period cannot be a negative duration");
  }
}

export function updatedCluster(
  cluster: Cluster,
  spec: ClusterSpec,
  rotation: { worker: boolean; manager: boolean; unlockKey: boolean },
): Cluster {
  checkCluster(spec);
  const root = cluster.rootCa;
  const tokens = root?.joinTokens;
  const unlockKeys = unlockKeysFor(spec, cluster.unlockKeys, rotation.unlockKey);
  if (!root || !tokens) return { ...cluster, spec, unlockKeys };
  const joinTokens = create(JoinTokensSchema, {
    worker: rotation.worker ? makeToken(root.caCert) : tokens.worker,
    manager: rotation.manager ? makeToken(root.caCert) : tokens.manager,
  });
  return { ...cluster, spec, unlockKeys, rootCa: { ...root, joinTokens } };
}
