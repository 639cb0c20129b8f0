/**
 * Swarm networks on this host. The managers decide everything; here the decisions are made real when a task needs
 * them, and unmade when this node's load balancer address on a network is taken back.
 */
import type { Network, Node, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { deferred, KeyedMutex } from "../../base/async.ts";
import { type Clock, sleep } from "../../base/clock.ts";
import { notFound, SkeinError, unavailable } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { NetworkController, NetworkSpec } from "../../network/types.ts";
import type { ControlApi, SwarmNode } from "../../swarm/types.ts";
import type { NetworkCreate } from "../shapes.ts";
import type { SwarmNetworkSource, SwarmNetworkView, TaskAttachment } from "../types.ts";
import { taskAttachments } from "./attachments.ts";
import { fromNetworkCreate, isIngress, isPredefined, toNetworkSpec } from "./network-spec.ts";

/** How long a task waits for this node's address on its networks before it is refused. */
const ATTACHMENT_WAIT_MS = 30_000;

const ALLOCATION_WAIT_MS = 1_000;

export interface SwarmNetworksOptions {
  readonly network: NetworkController;
  readonly node: () => SwarmNode | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/** The load balancer addresses that a node object carries, by network id. */
export function loadBalancersOf(node: Node): Map<string, string> {
  const out = new Map<string, string>();
  // Before 18.09 a node had one attachment, for ingress.
  const attachments = node.attachments.length ? node.attachments : node.attachment ? [node.attachment] : [];
  for (const { network, addresses } of attachments) {
    const [address] = addresses;
    if (network && address) out.set(network.id, address);
  }
  return out;
}

export class SwarmNetworks implements SwarmNetworkSource {
  readonly #options: SwarmNetworksOptions;
  #loadBalancers: ReadonlyMap<string, string> = new Map();
  #changed = deferred<void>();
  readonly #creating = new KeyedMutex();

  constructor(options: SwarmNetworksOptions) {
    this.#options = options;
  }

  /** The managers' word, where this node is one; else undefined. */
  #control(): ControlApi | undefined {
    const node = this.#options.node();
    const local = node?.local();
    if (!node || local?.state !== "active" || !local.isManager) return undefined;
    try {
      return node.control();
    } catch {
      return undefined;
    }
  }

  list(): SwarmNetworkView[] {
    const control = this.#control();
    if (!control) {
      return this.#options.network
        .list()
        .filter((spec) => spec.scope === "swarm")
        .map((spec) => ({ spec }));
    }
    return control
      .networks()
      .filter((network) => !isPredefined(network))
      .flatMap(viewOf);
  }

  predefined(ref: string): SwarmNetworkView | undefined {
    return (this.#control()?.networks() ?? [])
      .filter((network) => isPredefined(network))
      .flatMap(viewOf)
      .find(({ spec }) => spec.id === ref || spec.name === ref);
  }

  async create(request: NetworkCreate): Promise<string> {
    const node = this.#options.node();
    if (!node || node.local().state === "inactive") {
      throw unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
      );
    }
    const control = node.control();
    const network = await control.createNetwork(fromNetworkCreate(request));
    await this.#allocated(control, network.id);
    return network.id;
  }

  /** Scripts ask for a new network's subnet at once: it is there when `create` answers, unless the allocator is busy. */
  async #allocated(control: ControlApi, id: string): Promise<void> {
    const done = deferred<void>();
    const look = () => {
      if (control.network(id)?.driverState) done.resolve();
    };
    const stopWatching = control.onChange(look);
    const patience = new AbortController();
    try {
      look();
      await Promise.race([done.promise, sleep(this.#options.clock, ALLOCATION_WAIT_MS, patience.signal)]);
    } finally {
      stopWatching();
      patience.abort();
    }
  }

  /** On a manager from the swarm, on a worker from this host only. */
  async remove(id: string): Promise<void> {
    const control = this.#control();
    if (control) {
      await control.removeNetwork(id);
      // Other drivers' networks are this node's own matter, and nobody tells it when to remove them.
      const here = this.#options.network.get(id);
      if (here && here.driver !== "overlay" && this.#options.network.endpoints(id).length === 0) {
        await this.#options.network.remove(id);
      }
      return;
    }
    if (!this.#options.network.get(id)) throw notFound(`network ${id} not found`);
    await this.#options.network.remove(id);
  }

  /** This node's addresses changed: waiters look again, ingress is made or renewed, what lost its address goes. */
  async configure(node: Node): Promise<void> {
    const { network } = this.#options;
    const next = loadBalancersOf(node);
    // Known before it is done: a task whose network cannot be made then tells why, instead of waiting for an address.
    this.#loadBalancers = next;
    this.#changed.resolve();
    this.#changed = deferred();
    await network.setLoadBalancers(next);
    for (const attachment of node.attachments.length ? node.attachments : node.attachment ? [node.attachment] : []) {
      if (attachment.network && isIngress(attachment.network)) await this.#realize(toNetworkSpec(attachment.network));
    }
  }

  /** No swarm, no networks of one. */
  clear(): void {
    this.#loadBalancers = new Map();
  }

  async attachments(task: Task, signal?: AbortSignal): Promise<TaskAttachment[]> {
    await this.#waitForAddresses(task, signal);
    const attachments = taskAttachments(task, this.#loadBalancers);
    for (const { network } of attachments) {
      signal?.throwIfAborted();
      await this.#realize(network);
    }
    return attachments;
  }

  /** Creates the network on this host unless it is there. */
  async #realize(spec: NetworkSpec): Promise<void> {
    const { network } = this.#options;
    await this.#creating.run(spec.id, async () => {
      // One of another driver is told that it is wanted, or it might go for want of users.
      if (network.get(spec.id) && spec.driver === "overlay") return;
      const lbAddress = this.#loadBalancers.get(spec.id);
      try {
        await network.create(spec, lbAddress === undefined ? {} : { lbAddress });
      } catch (error) {
        // Somebody else was faster (a standalone container on the same network).
        if (error instanceof SkeinError && error.code === "conflict" && network.get(spec.id)) return;
        throw error;
      }
    });
  }

  async #waitForAddresses(task: Task, signal: AbortSignal | undefined): Promise<void> {
    const wanted = task.networks.flatMap(({ network }) =>
      network && !isPredefined(network) && toNetworkSpec(network).driver === "overlay" ? [network.id] : [],
    );
    const missing = () => wanted.some((id) => !this.#loadBalancers.has(id));
    if (!missing()) return;
    const { clock } = this.#options;
    const done = new AbortController();
    const timeout = sleep(
      clock,
      ATTACHMENT_WAIT_MS,
      signal ? AbortSignal.any([signal, done.signal]) : done.signal,
    ).then(() => {
      throw unavailable("node is missing network attachments, ip addresses may be exhausted");
    });
    timeout.catch(() => {});
    try {
      while (missing()) await Promise.race([this.#changed.promise, timeout]);
    } finally {
      done.abort();
    }
  }
}

/** A network whose driver this host does not know is not shown, rather than hiding all others behind an error. */
function viewOf(network: Network): SwarmNetworkView[] {
  try {
    const version = network.meta?.version;
    return [{ spec: toNetworkSpec(network), ...(version && { version: version.index }) }];
  } catch {
    return [];
  }
}
