/** The manager on this host: where it comes from, how it is started, what is told of it and the others. */
import { RaftMemberStatus_Reachability } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { BootstrapCluster, Manager, StartManager } from "../manager/types.ts";
import type { Executor, InitRequest } from "../types.ts";
import type { NodeState } from "./state-file.ts";

/** Where managers come from. */
export interface ManagerFactory {
  readonly bootstrapCluster: BootstrapCluster;
  readonly startManager: StartManager;
}

/** Loaded when needed: workers do without. */
export const ownManagers: ManagerFactory = {
  bootstrapCluster: async (...given) => (await import("../manager/manager.ts")).bootstrapCluster(...given),
  startManager: async (options) => (await import("../manager/manager.ts")).startManager(options),
};

/** Of what a manager on this host is made. */
export interface ManagerParts {
  readonly stateDir: string;
  readonly managers: ManagerFactory;
  readonly executor: Executor;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface ManagerStart {
  /** Of the user who begins a swarm, or begins it anew. */
  readonly init?: InitRequest | undefined;
  /** Managers to ask, "host:port". */
  readonly remotes: () => readonly string[];
  readonly signal?: AbortSignal | undefined;
}

/** Starts the manager of a node with this state; rejects as `StartManager` does. */
export function startOwnManager(
  { clock, executor, log, managers, stateDir }: ManagerParts,
  { advertiseAddr, listenAddr }: NodeState,
  { init, remotes, signal }: ManagerStart,
): Promise<Manager> {
  return managers.startManager({
    ...{ stateDir, listenAddr, advertiseAddr, remotes, log, clock },
    ...(init ? { bootstrap: { ...init, clusterSpec: init.spec } } : {}),
    ...(signal ? { signal } : {}),
    isSilent: (host) => executor.isSilent?.(host),
  });
}

/** Managers that answer and that do not; undefined when this one cannot tell. */
export function managerCounts({ control }: Manager): { reachable: number; unreachable: number } | undefined {
  try {
    const managers = control.nodes().flatMap((node) => node.managerStatus ?? []);
    const { REACHABLE } = RaftMemberStatus_Reachability;
    const reachable = managers.filter(({ reachability }) => reachability === REACHABLE).length;
    return { reachable, unreachable: managers.length - reachable };
  } catch {
    return undefined;
  }
}
