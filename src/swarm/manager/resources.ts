/** Addresses for containers that are no service's: `docker run --network <attachable overlay>` on any node. */
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import type { ResourceAllocator } from "#proto/docker/swarmkit/resource_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
import { GrpcError, status } from "../../base/grpc.ts";
import type { Handlers } from "../../base/grpc-server.ts";
import { swarmId } from "../../base/id.ts";
import type { Store } from "../store/store.ts";
import { askedProblem } from "./allocator/asked.ts";
import { isAllocated } from "./allocator/drivers.ts";
import { type Authority, NODES } from "./auth.ts";

export function resourceHandlers(store: Store, authority: Authority, clock: Clock): Handlers<typeof ResourceAllocator> {
  return {
    attachNetwork: async ({ config, containerId }, context) => {
      const nodeId = authority.require(context, NODES).cn;
      if (!config?.target) throw new GrpcError(status.INVALID_ARGUMENT, "invalid attachment config");
      const id = swarmId();
      await store.update((tx) => {
        const network = tx.get("network", config.target) ?? tx.byName("network", config.target);
        if (!network) throw new GrpcError(status.NOT_FOUND, `network ${config.target} not found`);
        if (!network.spec?.attachable) {
          throw new GrpcError(status.PERMISSION_DENIED, `network ${config.target} not manually attachable`);
        }
        const problem = isAllocated(network) ? askedProblem(network, config.addresses) : undefined;
        if (problem) {
          throw new GrpcError(problem.taken ? status.FAILED_PRECONDITION : status.INVALID_ARGUMENT, problem.message);
        }
        const task = create(TaskSchema, {
          id,
          nodeId,
          desiredState: TaskState.RUNNING,
          annotations: {},
          serviceAnnotations: {},
          spec: {
            runtime: { case: "attachment", value: { containerId } },
            networks: [{ target: network.id, addresses: config.addresses }],
          },
          status: { state: TaskState.NEW, timestamp: timestampFromMs(clock.now()), message: "created" },
        });
        tx.create("task", task);
      });
      return { attachmentId: id };
    },
    detachNetwork: async ({ attachmentId }, context) => {
      const nodeId = authority.require(context, NODES).cn;
      if (!attachmentId) throw new GrpcError(status.INVALID_ARGUMENT, "invalid argument");
      await store.update((tx) => {
        const task = tx.get("task", attachmentId);
        if (!task) throw new GrpcError(status.NOT_FOUND, `attachment ${attachmentId} not found`);
        if (task.nodeId !== nodeId) {
          throw new GrpcError(status.PERMISSION_DENIED, `attachment ${attachmentId} doesn't belong to this node`);
        }
        tx.remove("task", attachmentId);
      });
      return {};
    },
  };
}
