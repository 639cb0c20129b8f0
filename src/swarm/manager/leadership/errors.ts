/** What nodes and users are told when nobody leads. (SwarmKit: manager/state/raft) */
import { unavailable } from "../../../base/errors.ts";
import { GrpcError, status } from "../../../base/grpc.ts";

const NO_LEADER =
  "The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

/** For users, as Docker's CLI shows it. */
export const noLeader = () => unavailable(`rpc error: code = Unknown desc = ${NO_LEADER}`);

/** For nodes: try again, or elsewhere. */
export const noLeaderNow = () => new GrpcError(status.UNAVAILABLE, NO_LEADER);
