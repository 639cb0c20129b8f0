/** Who may become a manager, and who may cease to be one. */
import type { Node } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeRole, RaftMemberStatus_Reachability } from "#proto/docker/swarmkit/types_pb.js";
import type { Reader } from "../../store/memory.ts";
import { rpcError } from "./errors.ts";

/** The plugin by which an engine tells that it can run a manager of this swarm. */
export const MANAGER_PLUGIN = { type: "Manager", name: "skein" } as const;

/** Whether the node runs an engine of ours, going by what it told of itself. */
export function isOurs(node: Node | undefined): boolean {
  const { name, type } = MANAGER_PLUGIN;
  return node?.description?.engine?.plugins.some((plugin) => plugin.type === type && plugin.name === name) ?? false;
}

export function checkPromotable(node: Node): void {
  if (isOurs(node)) return;
  throw rpcError(
    "FailedPrecondition",
    `node ${node.id} cannot be promoted: this swarm is managed by Skein, whose managers keep their state in etcd, and the node runs another engine`,
  );
}

export function checkDemotable(node: Node, view: Reader): void {
  const managers = view.all("node").filter((other) => other.spec?.desiredRole === NodeRole.MANAGER);
  if (managers.length === 1) {
    throw rpcError("FailedPrecondition", "attempting to demote the last manager of the swarm");
  }
  const rest = managers.filter(({ id, managerStatus }) => id !== node.id && managerStatus);
  const active = rest.filter(
    ({ managerStatus }) => managerStatus?.reachability === RaftMemberStatus_Reachability.REACHABLE,
  );
  if (node.managerStatus && active.length < Math.floor(rest.length / 2) + 1) {
    throw rpcError("FailedPrecondition", "can't remove member from the raft: this would result in a loss of quorum");
  }
}
