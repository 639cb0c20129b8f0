/** What the agent asks of this host, on top of the engine and its network room. */
import type { Node, Task } from "#proto/docker/swarmkit/objects_pb.js";
import type { EncryptionKey, NodeDescription } from "#proto/docker/swarmkit/types_pb.js";
import { Mutex } from "../../base/async.ts";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { GossipKey } from "../../gossip/types.ts";
import type { ClusterNetworking } from "../../network/types.ts";
import { expandContainerSpec, templateContext } from "../../swarm/expand.ts";
import { type Dependencies, type Executor, type TaskController, TaskRejected } from "../../swarm/types.ts";
import type { Engine } from "../types.ts";
import { checkMounts, TASK_LABEL } from "./container.ts";
import { ContainerController } from "./controller.ts";
import { describeHost } from "./describe.ts";
import type { SwarmNetworks } from "./networks.ts";

const GOSSIP = "networking:gossip";
const IPSEC = "networking:ipsec";

export interface ExecutorOptions {
  readonly engine: Engine;
  readonly networks: SwarmNetworks;
  readonly clock: Clock;
  readonly log: Logger;
  readonly hostname: string;
  /** Labels of the daemon (`skeind --label`). */
  readonly labels: Readonly<Record<string, string>>;
  /** Where this node stands, as soon as it is known; the port comes from the node object. */
  readonly place: () => Omit<ClusterNetworking, "dataPathPort"> | undefined;
}

/** Keys of one subsystem, as the network room takes them. */
export function keysOf(keys: readonly EncryptionKey[], subsystem: string): GossipKey[] {
  return keys
    .filter((key) => key.subsystem === subsystem)
    .map((key) => ({ key: key.key, lamportTime: key.lamportTime }));
}

export class HostExecutor implements Executor {
  readonly #options: ExecutorOptions;
  /** The swarm's network is joined once, by whichever message of the managers comes first. */
  readonly #mutex = new Mutex();
  #cluster: ClusterNetworking | undefined;
  #keys: EncryptionKey[] = [];
  #managers: string[] = [];
  #description: NodeDescription | undefined;

  constructor(options: ExecutorOptions) {
    this.#options = options;
  }

  async describe(): Promise<NodeDescription> {
    const { engine, hostname, labels } = this.#options;
    const version = (await engine.system.version()).Version;
    const description = describeHost({
      hostname,
      labels,
      engineVersion: typeof version === "string" ? version : "",
      networkDrivers: engine.network.drivers(),
    });
    this.#description = description;
    return description;
  }

  configure(node: Node): Promise<void> {
    return this.#mutex.run(async () => {
      await this.#joinCluster(node.VXLANUDPPort || 4789);
      await this.#options.networks.configure(node);
    });
  }

  setNetworkKeys(keys: EncryptionKey[]): Promise<void> {
    return this.#mutex.run(async () => {
      this.#keys = keys;
      if (this.#cluster) await this.#applyKeys();
    });
  }

  setManagers(hosts: string[]): void {
    this.#managers = hosts;
    if (this.#cluster) this.#options.engine.network.setManagers(hosts);
  }

  isSilent(host: string): boolean | undefined {
    return this.#options.engine.network.isSilent(host);
  }

  async #applyKeys(): Promise<void> {
    if (this.#keys.length === 0) return;
    await this.#options.engine.network.setKeys({
      gossip: keysOf(this.#keys, GOSSIP),
      ipsec: keysOf(this.#keys, IPSEC),
    });
  }

  async #joinCluster(dataPathPort: number): Promise<void> {
    const { engine, log, place } = this.#options;
    const here = place();
    if (!here) throw new Error("this node's address in the swarm is not known yet");
    const cluster: ClusterNetworking = { ...here, dataPathPort };
    if (this.#cluster && sameCluster(this.#cluster, cluster)) return;
    if (this.#cluster) {
      log.info("this node's place in the swarm's network changed", { from: this.#cluster, to: cluster });
      await engine.network.stopCluster();
    }
    await engine.network.startCluster(cluster);
    this.#cluster = cluster;
    engine.network.setManagers(this.#managers);
    await this.#applyKeys();
  }

  /** This node is in no swarm any more: containers that its tasks left, its networks and its keys go. */
  left(): Promise<void> {
    return this.#mutex.run(async () => {
      this.#keys = [];
      this.#managers = [];
      this.#options.networks.clear();
      await this.keepOnly(new Set());
      if (!this.#cluster) return;
      this.#cluster = undefined;
      await this.#options.engine.network.stopCluster();
    });
  }

  /** The agent removes its tasks itself; what it could not, or knows nothing of, is removed here by its labels. */
  async keepOnly(taskIds: ReadonlySet<string>): Promise<void> {
    const { engine, log } = this.#options;
    const filters = new Map([["label", [TASK_LABEL]]]);
    for (const { Id: id, Labels: labels } of await engine.containers.list({ all: true, size: false, filters })) {
      const task = (labels as Record<string, string> | undefined)?.[TASK_LABEL] ?? "";
      if (typeof id !== "string" || taskIds.has(task)) continue;
      try {
        log.info("removing the container of a task that is not of this node", { container: id, task });
        await engine.containers.remove(id, { force: true, volumes: true });
      } catch (error) {
        log.warn("a task's container is left", { container: id, error: messageOf(error) });
      }
    }
  }

  async controller(task: Task, dependencies: Dependencies): Promise<TaskController> {
    const { engine, networks, clock, log } = this.#options;
    const runtime = task.spec?.runtime;
    if (runtime?.case !== "container") throw new TaskRejected(`unsupported runtime: ${runtime?.case ?? "none"}`);
    if (runtime.value.image === "") throw new TaskRejected("dockerexec: image required");
    try {
      const context = templateContext(task, this.#description ?? (await this.describe()));
      const spec = expandContainerSpec(runtime.value, context);
      checkMounts(spec.mounts);
      const host = {
        containers: engine.containers,
        images: engine.images,
        events: engine.events,
        network: engine.network,
        networks,
        clock,
        log: log.with({ task: task.id }),
      };
      return new ContainerController(host, task, spec, context, dependencies);
    } catch (error) {
      throw error instanceof TaskRejected ? error : new TaskRejected(messageOf(error), { cause: error });
    }
  }
}

const sameCluster = (a: ClusterNetworking, b: ClusterNetworking): boolean =>
  a.bindAddress === b.bindAddress &&
  a.advertiseAddress === b.advertiseAddress &&
  a.dataPathAddress === b.dataPathAddress &&
  a.dataPathPort === b.dataPathPort;
