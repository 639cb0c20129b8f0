/**
 * What only the leading manager runs: the loops that keep the swarm true, and the answers to nodes and users. It begins
 * with the store as it is, and ends at once when the lead is lost: everything it knew is in the store.
 */
import { CA, NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import { Dispatcher as DispatcherService } from "#proto/docker/swarmkit/dispatcher_pb.js";
import { LogBroker as LogBrokerService, Logs } from "#proto/docker/swarmkit/logbroker_pb.js";
import { RaftMembership } from "#proto/docker/swarmkit/raftmember_pb.js";
import { ResourceAllocator } from "#proto/docker/swarmkit/resource_pb.js";
import { Managers } from "#proto/skein/swarm/managers_pb.js";
import type { Clock } from "../../base/clock.ts";
import { GrpcError, status } from "../../base/grpc.ts";
import type { Handlers } from "../../base/grpc-server.ts";
import type { Logger } from "../../base/log.ts";
import type { DataKeys } from "../store/data-keys.ts";
import type { Store } from "../store/store.ts";
import type { ControlApi } from "../types.ts";
import { Allocator } from "./allocator/allocator.ts";
import { type Authority, guarded, MANAGERS, NODES } from "./auth.ts";
import { ExternalAuthorities } from "./authorities.ts";
import { CaServer } from "./ca-server.ts";
import { createControl } from "./control/control.ts";
import { Dispatcher } from "./dispatcher/dispatcher.ts";
import { refusesConnections } from "./dispatcher/refusal.ts";
import { KeyManager } from "./keys.ts";
import { noLeaderNow } from "./leadership/errors.ts";
import type { FreshKeys } from "./leadership/fresh-key.ts";
import { MembershipKeeper } from "./leadership/keeper.ts";
import type { Members } from "./leadership/members.ts";
import { performWrite } from "./leadership/writes.ts";
import { LogBroker } from "./log-broker.ts";
import { Enforcer } from "./orchestrator/enforcer.ts";
import { Orchestrator } from "./orchestrator/orchestrator.ts";
import { Reaper } from "./orchestrator/reaper.ts";
import { resourceHandlers } from "./resources.ts";
import { RootRotator } from "./root-rotation.ts";
import { Scheduler } from "./scheduler/scheduler.ts";
import { splitAddress } from "./server.ts";
import { Signing } from "./signing.ts";

/** The services that the leader answers. */
export const services = {
  ca: CA,
  nodeCa: NodeCA,
  dispatcher: DispatcherService,
  broker: LogBrokerService,
  logs: Logs,
  resources: ResourceAllocator,
  raft: RaftMembership,
  managers: Managers,
} as const;

export type ReignHandlers = { readonly [K in keyof typeof services]: Handlers<(typeof services)[K]> };

export interface ReignOptions {
  readonly store: Store;
  readonly nodeId: string;
  readonly clusterId: string;
  /** "ip:port" told to others. */
  readonly addr: string;
  readonly authority: Authority;
  readonly members: Members;
  readonly dataKeys: DataKeys;
  readonly freshKeys: () => FreshKeys;
  /** This manager's own certificate and key, as they are now. */
  readonly credentials: () => { certPem: string; keyPem: string };
  readonly probe: (addr: string) => Promise<void>;
  /** Asked before what a user wants is written: false when a quorum does not say that this manager leads. */
  readonly confirmLead: () => Promise<boolean>;
  readonly isSilent?: ((host: string) => boolean | undefined) | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Reign {
  readonly handlers: ReignHandlers;
  readonly control: ControlApi;
  /** Nodes are told to look for another manager. */
  close(): void;
}

export function startReign(options: ReignOptions): Reign {
  const { addr, authority, clock, clusterId, log, members, nodeId, store } = options;
  const ca = new CaServer(store, clusterId, authority, clock, log);
  const authorities = new ExternalAuthorities(options.credentials, clock, log);
  const dispatcher = new Dispatcher({
    ...{ store, clusterId, authority, clock, log },
    managerId: nodeId,
    managerHost: splitAddress(addr).host,
    isSilent: options.isSilent,
    isRestarting: refusesConnections,
  });
  const broker = new LogBroker(store, authority);
  // In the order of a task's way: what is due at once is done in this order.
  const orchestrator = new Orchestrator(store, clusterId, clock, log);
  const allocator = new Allocator(store, clusterId, clock, log);
  const keeper = new MembershipKeeper({ store, members, nodeId, addr, probe: options.probe, clock, log });
  const freshKeys = options.freshKeys();
  const loops = [
    orchestrator,
    allocator,
    new Scheduler(store, clock, log),
    new Reaper(store, clusterId, clock, log),
    new Enforcer(store, clock, log),
    new KeyManager(store, clusterId, clock, log),
    new Signing(store, clusterId, authorities, clock, log),
    new RootRotator(store, clusterId, clock, log),
    keeper,
    freshKeys,
  ];
  const control = createControl({
    ...{ store, clusterId, clock, authorities },
    allocated: () => allocator.state,
    logs: broker,
    underFreshKey: (work) => freshKeys.use(work),
  });
  return {
    control,
    handlers: {
      ca: ca.root(),
      nodeCa: ca.node(),
      dispatcher: guarded<typeof DispatcherService>(authority, NODES, dispatcher.handlers()),
      broker: broker.broker(),
      logs: broker.logs(),
      resources: resourceHandlers(store, authority, clock),
      raft: raftRefusal(authority, store),
      managers: managerHandlers(options, dispatcher, keeper, control),
    },
    close() {
      for (const loop of loops) loop.close();
      dispatcher.close();
      broker.close();
      ca.close();
    },
  };
}

function managerHandlers(
  { authority, confirmLead, dataKeys, store }: ReignOptions,
  dispatcher: Dispatcher,
  keeper: MembershipKeeper,
  control: ControlApi,
): Handlers<typeof Managers> {
  return {
    join: async ({ addr }, context) => {
      const { cn } = authority.require(context, MANAGERS);
      const members = await keeper.join(cn, addr);
      const addrOf = (nodeId: string) => store.view.get("node", nodeId)?.managerStatus?.addr ?? "";
      const keys = dataKeys.list;
      return {
        members: members.map((member) => ({ ...member, addr: addrOf(member.nodeId) })),
        dataKeys: keys,
        dataKey: (!dataKeys.ring && keys.find(({ generation }) => generation === 0)?.key) || new Uint8Array(),
      };
    },
    leave: async ({ node }, context) => {
      if (node) {
        dispatcher.left(authority.require(context, NODES).cn);
        return {};
      }
      await keeper.leave(authority.require(context, MANAGERS).cn, context.signal);
      return {};
    },
    write: async (request, context) => {
      authority.require(context, MANAGERS);
      if (!(await confirmLead())) throw noLeaderNow();
      return performWrite(control, request, () => store.revision);
    },
  };
}

/** Docker's managers replicate a store of their own by Raft: they cannot be managers here. */
function raftRefusal(authority: Authority, store: Store): Handlers<typeof RaftMembership> {
  return {
    join: async (_request, context) => {
      const { cn } = authority.require(context, MANAGERS);
      await store.update((tx) => {
        const node = tx.get("node", cn);
        if (node && !node.managerStatus) tx.remove("node", cn);
      });
      throw new GrpcError(
        status.FAILED_PRECONDITION,
        "this swarm is managed by Skein, whose managers keep their state in etcd: a Docker node can join it as a worker only",
      );
    },
  };
}
