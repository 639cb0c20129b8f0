/** What a manager knows that the views show by name: nodes and tasks. */

import type { Node, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeSpec_Availability } from "#proto/docker/swarmkit/specs_pb.js";
import {
  NodeRole,
  NodeStatus_State,
  RaftMemberStatus_Reachability,
  TaskState,
} from "#proto/docker/swarmkit/types_pb.js";
import type { ControlApi, SwarmNode } from "../../swarm/types.ts";
import type { NodeRow, ServiceView } from "./types.ts";

/** The control API where this node is a manager that has one now. */
export function controlIfAny(node: SwarmNode | undefined): ControlApi | undefined {
  const local = node?.local();
  if (!node || local?.state !== "active" || !local.isManager) return undefined;
  try {
    return node.control();
  } catch {
    // Between being promoted and having a store, or without quorum.
    return undefined;
  }
}

const plainHost = (address: string): string => address.replace(/:\d+$/, "").replace(/^\[|\]$/g, "");

export function nodeRows(control: ControlApi): NodeRow[] {
  return control.nodes().map((node) => {
    const { managerStatus, description } = node;
    const version = description?.engine?.engineVersion ?? "";
    return {
      id: node.id,
      hostname: hostnameOf(node),
      address: addressOf(node),
      role: managerStatus?.leader ? "leader" : managerStatus || node.role === NodeRole.MANAGER ? "manager" : "worker",
      state: NodeStatus_State[node.status?.state ?? NodeStatus_State.UNKNOWN].toLowerCase(),
      availability: NodeSpec_Availability[node.spec?.availability ?? NodeSpec_Availability.ACTIVE].toLowerCase(),
      ...(managerStatus && { reachable: managerStatus.reachability === RaftMemberStatus_Reachability.REACHABLE }),
      engine: version,
    } satisfies NodeRow;
  });
}

const hostnameOf = (node: Node): string => node.description?.hostname ?? "";
const addressOf = (node: Node): string => node.status?.addr || plainHost(node.managerStatus?.addr ?? "");

/** Host names by address. */
export function hostnames(control: ControlApi | undefined): Map<string, string> {
  return new Map(control?.nodes().map((node) => [addressOf(node), hostnameOf(node)]));
}

/** The tasks of a service that are wanted, by their names. */
export function taskRows(
  control: ControlApi,
  serviceId: string,
  announced: (task: Task) => boolean,
): NonNullable<ServiceView["tasks"]> {
  const service = control.service(serviceId)?.spec?.annotations?.name ?? serviceId;
  return control
    .tasks()
    .filter((task) => task.serviceId === serviceId && task.desiredState <= TaskState.RUNNING)
    .map((task) => {
      const node = control.node(task.nodeId);
      return {
        id: task.id,
        name: `${service}.${task.slot === 0n ? task.nodeId : task.slot}.${task.id}`,
        node: node ? hostnameOf(node) : task.nodeId,
        state: TaskState[task.status?.state ?? TaskState.NEW].toLowerCase(),
        message: task.status?.err || task.status?.message || "",
        announced: announced(task),
      };
    })
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}
