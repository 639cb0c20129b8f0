/** Questions about tasks that several loops of the manager ask. */
import type { Node, Service, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeSpec_Availability } from "#proto/docker/swarmkit/specs_pb.js";
import { NodeStatus_State, TaskState } from "#proto/docker/swarmkit/types_pb.js";

export const stateOf = (task: Task): TaskState => task.status?.state ?? TaskState.NEW;

/** Is to run (or, for a job, to finish), as far as its owner is concerned. */
export const isWanted = (task: Task): boolean => task.desiredState <= TaskState.COMPLETE;

/** Ended, one way or another. */
export const isOver = (task: Task): boolean => stateOf(task) > TaskState.RUNNING;

/** Handed to its node and not ended. */
export const isOnNode = (task: Task): boolean => stateOf(task) >= TaskState.ASSIGNED && !isOver(task);

/** A node that runs no tasks: gone, lost or drained. */
export function isInvalid(node: Node | undefined): boolean {
  return isLost(node) || node?.spec?.availability === NodeSpec_Availability.DRAIN;
}

export function isLost(node: Node | undefined): boolean {
  return node === undefined || node.status?.state === NodeStatus_State.DOWN;
}

/** The place a task fills in its service: its slot, or its node in global mode. */
export const slotOf = (task: Task): string => (task.slot > 0n ? String(task.slot) : task.nodeId);

export const isGlobal = (service: Service): boolean =>
  service.spec?.mode.case === "global" || service.spec?.mode.case === "globalJob";
