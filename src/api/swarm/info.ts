/** The swarm's part of `docker info` and of the `Swarm` header. */
import type { SwarmNode } from "../../swarm/types.ts";
import { clusterInfoToJson } from "./convert/cluster.ts";
import { nz } from "./convert/render.ts";

const TWO_MANAGERS =
  "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n" +
  "         no fault tolerance, and poses a high risk to lose control over the cluster.\n" +
  "         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n" +
  "         Swarm for fault-tolerance.";

/** `Swarm` of `GET /info`. */
export function swarmInfo(node: SwarmNode | undefined) {
  const local = node?.local();
  const base = {
    NodeID: local?.nodeId ?? "",
    NodeAddr: local?.nodeAddr ?? "",
    LocalNodeState: local?.state ?? "inactive",
    ControlAvailable: false,
    Error: local?.error ?? "",
    RemoteManagers: local?.remoteManagers.length
      ? local.remoteManagers.map((peer) => ({ NodeID: peer.nodeId, Addr: peer.addr }))
      : null,
  };
  if (!node || local?.state !== "active" || !local.isManager) return base;
  try {
    const control = node.control();
    const nodes = control.nodes();
    const managers = nodes.filter((entry) => entry.managerStatus).length;
    return {
      ...base,
      ControlAvailable: true,
      Nodes: nz(nodes.length),
      Managers: nz(managers),
      Cluster: clusterInfoToJson(control.cluster()),
      Warnings: managers === 2 ? [TWO_MANAGERS] : undefined,
    };
  } catch (error) {
    return { ...base, Error: error instanceof Error ? error.message : String(error) };
  }
}

/** The `Swarm` header of `/_ping`: "active/manager", "inactive". */
export function swarmHeader(node: SwarmNode | undefined): string {
  const local = node?.local();
  if (!local) return "inactive";
  if (local.state !== "active") return local.state;
  return local.isManager ? "active/manager" : "active/worker";
}
