/**
 * This host's half of a swarm, put together:
 *
 *   const host = createSwarmHost({ engine, … });
 *   const node = createSwarmNode({ executor: host.executor, … });
 *   host.attach(node);                              // follows the node's comings and goings
 *   engine.connectSwarm(node, host.networks);
 *   await node.restore();
 */
import { hostname } from "node:os";
import { type Clock, systemClock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { ClusterNetworking } from "../../network/types.ts";
import type { ControlApi, LocalNode, SwarmNode } from "../../swarm/types.ts";
import type { Engine, SwarmNetworkSource } from "../types.ts";
import { type HostInterface, systemAddress } from "./address.ts";
import { forwardEvents } from "./events.ts";
import { HostExecutor } from "./executor.ts";
import { SwarmNetworks } from "./networks.ts";

export interface SwarmHostOptions {
  readonly engine: Engine;
  readonly log: Logger;
  /** The host's interfaces as they are now. */
  readonly interfaces: () => HostInterface[];
  readonly clock?: Clock;
  readonly hostname?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

export interface SwarmHost {
  readonly executor: HostExecutor;
  readonly networks: SwarmNetworkSource;
  /** Called once with the node that uses the executor. The returned function lets go of it. */
  attach(node: SwarmNode): () => void;
}

/** Where gossip binds: the advertised address when it is this host's own, else the host's only one. */
export function placeOf(
  local: LocalNode,
  interfaces: readonly HostInterface[],
): Omit<ClusterNetworking, "dataPathPort"> | undefined {
  if (local.nodeAddr === "") return undefined;
  const own = interfaces.some((entry) => entry.addresses.includes(local.nodeAddr));
  return {
    bindAddress: own ? local.nodeAddr : systemAddress(interfaces),
    advertiseAddress: local.nodeAddr,
    dataPathAddress: local.dataPathAddr || local.nodeAddr,
  };
}

export function createSwarmHost(options: SwarmHostOptions): SwarmHost {
  const { engine, log, interfaces, clock = systemClock } = options;
  let node: SwarmNode | undefined;
  const networks = new SwarmNetworks({ network: engine.network, node: () => node, clock, log });
  const executor = new HostExecutor({
    engine,
    networks,
    clock,
    log,
    hostname: options.hostname ?? hostname(),
    labels: options.labels ?? {},
    place: () => {
      const local = node?.local();
      return local && placeOf(local, interfaces());
    },
  });
  return {
    executor,
    networks,
    attach(swarmNode) {
      node = swarmNode;
      let control: ControlApi | undefined;
      let stopEvents = () => {};
      const follow = (local: LocalNode) => {
        const next = local.isManager && local.state === "active" ? controlOf(swarmNode) : undefined;
        if (next !== control) {
          stopEvents();
          control = next;
          stopEvents = next ? forwardEvents(next, engine.events) : () => {};
        }
      };
      const off = swarmNode.onChange(follow);
      follow(swarmNode.local());
      return () => {
        off();
        stopEvents();
        node = undefined;
      };
    },
  };
}

function controlOf(node: SwarmNode): ControlApi | undefined {
  try {
    return node.control();
  } catch {
    return undefined;
  }
}
