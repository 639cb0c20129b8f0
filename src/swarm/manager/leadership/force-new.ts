/** A swarm begun anew from one manager's data: the managers that are not there any more are managers no more. */

import { create } from "@bufbuild/protobuf";
import { NodeRole, NodeStatus_State, NodeStatusSchema } from "#proto/docker/swarmkit/types_pb.js";
import type { Store } from "../../store/store.ts";

export async function forgetOtherManagers(store: Store, self: string): Promise<void> {
  await store.update((tx) => {
    for (const node of tx.all("node")) {
      if (node.id === self || (node.role !== NodeRole.MANAGER && !node.managerStatus)) continue;
      const next = { ...node, role: NodeRole.WORKER };
      delete next.managerStatus;
      if (node.spec) next.spec = { ...node.spec, desiredRole: NodeRole.WORKER };
      const addr = node.status?.addr ?? "";
      next.status = create(NodeStatusSchema, { state: NodeStatus_State.DOWN, message: "lost its swarm", addr });
      tx.update("node", next);
    }
  });
}
