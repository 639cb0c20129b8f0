/**
 * What the leading manager does about the set of managers: who joins the vote, who leaves it, who is a manager in name
 * only. Pure; at most one change of the membership at a time, and none that would leave the store without a quorum.
 */
import type { Node } from "#proto/docker/swarmkit/objects_pb.js";
import { NodeRole } from "#proto/docker/swarmkit/types_pb.js";

export interface StoreMember {
  readonly id: bigint;
  readonly nodeId: string;
  readonly learner: boolean;
}

export interface MembershipState {
  readonly nodes: readonly Node[];
  readonly members: readonly StoreMember[];
  /** The leader's own node. */
  readonly self: string;
  /** Whether the manager of this node answers. */
  readonly reachable: (nodeId: string) => boolean;
}

export type Step =
  | { readonly kind: "promoteMember"; readonly member: StoreMember }
  | { readonly kind: "removeMember"; readonly member: StoreMember }
  /** Hand over the lead, so that the new leader can remove this manager. */
  | { readonly kind: "moveLead"; readonly to: StoreMember }
  | { readonly kind: "makeManager"; readonly nodeId: string }
  | { readonly kind: "makeWorker"; readonly nodeId: string }
  /** Not possible now without losing the quorum. */
  | { readonly kind: "wait"; readonly nodeId: string };

/** True when the others keep a quorum without this member. */
export function removable(member: StoreMember, { members, self, reachable }: MembershipState): boolean {
  if (member.learner) return true;
  const rest = members.filter((other) => !other.learner && other.id !== member.id);
  const active = rest.filter(({ nodeId }) => nodeId === self || reachable(nodeId));
  return rest.length > 0 && active.length >= Math.floor(rest.length / 2) + 1;
}

export function planMembership(state: MembershipState): Step[] {
  const { members, nodes, reachable, self } = state;
  const steps: Step[] = [];
  const byNode = new Map(members.map((member) => [member.nodeId, member]));
  const wanted = new Set<string>();
  for (const node of nodes) {
    const member = byNode.get(node.id);
    if (node.spec?.desiredRole === NodeRole.MANAGER) {
      wanted.add(node.id);
      if (node.role !== NodeRole.MANAGER) steps.push({ kind: "makeManager", nodeId: node.id });
      if (member?.learner) steps.push({ kind: "promoteMember", member });
    } else if (!member && (node.role === NodeRole.MANAGER || node.managerStatus)) {
      steps.push({ kind: "makeWorker", nodeId: node.id });
    }
  }
  const leaving = members.find((member) => !wanted.has(member.nodeId));
  if (!leaving) return steps;
  if (!removable(leaving, state)) {
    steps.push({ kind: "wait", nodeId: leaving.nodeId });
  } else if (leaving.nodeId !== self) {
    steps.push({ kind: "removeMember", member: leaving });
  } else {
    const heir = members.find(
      ({ learner, nodeId }) => !learner && nodeId !== self && wanted.has(nodeId) && reachable(nodeId),
    );
    steps.push(heir ? { kind: "moveLead", to: heir } : { kind: "wait", nodeId: self });
  }
  return steps;
}
