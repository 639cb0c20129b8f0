/**
 * Gives out what the swarm has only once: subnets and VNIs to networks, virtual addresses and published ports to
 * services, addresses to tasks and load balancers. Commits mark what to look at; a tick plans and writes. What cannot be
 * had now says so in the task's status and is tried again when something is given back.
 */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Node, Task } from "#proto/docker/swarmkit/objects_pb.js";
import { TaskState } from "#proto/docker/swarmkit/types_pb.js";
import type { Clock } from "../../../base/clock.ts";
import type { Logger } from "../../../base/log.ts";
import { type AnyObject, type Kind, type ObjectOf, versionOf } from "../../store/objects.ts";
import type { Change, Store } from "../../store/store.ts";
import { Loop } from "../loop.ts";
import { isAllocated, isIngress } from "./drivers.ts";
import { parseCidr } from "./ipv4.ts";
import { CannotAllocate, type Pools, planNetwork, planNode, planService, planTask } from "./plan.ts";
import { AllocatorState, isDead } from "./state.ts";

const DEBOUNCE_MS = 1;
const RETRY_MS = 30_000;
const DEFAULT_POOL = "10.0.0.0/8";
const DEFAULT_SIZE = 24;
/** Objects planned per commit. */
const CHUNK = 500;

type Allocated = "network" | "service" | "task" | "node";

export class Allocator {
  readonly #store: Store;
  readonly #clusterId: string;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #loop: Loop;
  readonly #stopWatching: () => void;
  #state: AllocatorState;
  #dirty: Record<Allocated, Set<string>> = empty();
  #blocked: Record<Allocated, Set<string>> = empty();
  /** Why each object could not have what it needs, as told last. */
  readonly #reasons = new Map<string, string>();

  constructor(store: Store, clusterId: string, clock: Clock, log: Logger) {
    this.#store = store;
    this.#clusterId = clusterId;
    this.#clock = clock;
    this.#log = log;
    this.#state = AllocatorState.of(store.view, clock);
    this.#loop = new Loop({ name: "allocator", clock, log, debounceMs: DEBOUNCE_MS, work: () => this.#tick() });
    for (const kind of ["network", "service", "node"] as const) {
      for (const { id } of store.view.all(kind)) this.#dirty[kind].add(id);
    }
    for (const task of store.view.all("task")) if (isNew(task)) this.#dirty.task.add(task.id);
    this.#stopWatching = store.onCommit((changes) => this.#onCommit(changes));
    this.#loop.mark();
  }

  close(): void {
    this.#stopWatching();
    this.#loop.close();
  }

  /** What is given out; for validation of requests and for checks. */
  get state(): AllocatorState {
    return this.#state;
  }

  #onCommit(changes: Change[]): void {
    let freed = false;
    for (const change of changes) {
      if (this.#state.apply(change, this.#clock.steady())) freed = true;
      this.#markChange(change);
    }
    if (freed) this.#unblock();
    if (Object.values(this.#dirty).some((set) => set.size > 0)) this.#loop.mark();
  }

  #markChange(change: Change): void {
    const { kind, object } = change;
    if (change.action === "remove") {
      this.#reasons.delete(object.id);
      if (kind === "task" && object.nodeId) this.#dirty.node.add(object.nodeId);
      if (kind === "network") {
        const on = (node: Node) => node.attachments.some(({ network }) => network?.id === object.id);
        for (const node of this.#store.view.all("node")) if (on(node)) this.#dirty.node.add(node.id);
      }
      return;
    }
    if (kind === "network") {
      if (!isAllocated(object)) this.#dirty.network.add(object.id);
      else if (change.action === "update" && !(change.old && isAllocated(change.old))) this.#unblock();
      if (isIngress(object)) for (const node of this.#store.view.all("node")) this.#dirty.node.add(node.id);
    } else if (kind === "service") {
      if (change.old?.spec !== object.spec || !object.endpoint) this.#dirty.service.add(object.id);
      if (change.old && change.old.endpoint !== object.endpoint) {
        for (const task of this.#store.view.tasksOfService(object.id)) if (isNew(task)) this.#dirty.task.add(task.id);
      }
    } else if (kind === "task") {
      if (isNew(object)) this.#dirty.task.add(object.id);
      for (const nodeId of new Set([object.nodeId, change.old?.nodeId])) if (nodeId) this.#dirty.node.add(nodeId);
    } else if (kind === "node" && change.action === "create") {
      this.#dirty.node.add(object.id);
    }
  }

  #unblock(): void {
    for (const kind of ["network", "service", "task", "node"] as const) {
      for (const id of this.#blocked[kind]) this.#dirty[kind].add(id);
      this.#blocked[kind].clear();
    }
    this.#loop.mark();
  }

  async #tick(): Promise<void> {
    await this.#allocate("network", (network) => {
      return isAllocated(network) ? undefined : planNetwork(network, this.#state, this.#pools());
    });
    await this.#allocate("service", (service) =>
      planService(service, this.#store.view, this.#state, this.#clock.steady()),
    );
    // Nodes before tasks: a task without its node's address on the network cannot run.
    await this.#allocate("node", (node) => planNode(node, this.#store.view, this.#state, this.#clock.steady()));
    await this.#allocate("task", (task) => {
      // Its service was removed meanwhile: the orchestrator takes it back.
      if (task.serviceId && !this.#store.view.get("service", task.serviceId)) return undefined;
      if (!isNew(task)) return undefined;
      // It would take over what its service had before: an address that may be somebody else's by now.
      if (this.#blocked.service.has(task.serviceId)) {
        throw new CannotAllocate(this.#reasons.get(task.serviceId) ?? "the service is not allocated yet");
      }
      if (this.#dirty.service.has(task.serviceId)) {
        this.#dirty.task.add(task.id);
        this.#loop.mark();
        return undefined;
      }
      return planTask(task, this.#store.view, this.#state, this.#clock.steady());
    });
    if (Object.values(this.#blocked).some((set) => set.size > 0)) {
      this.#clock.after(RETRY_MS, () => this.#unblock());
    }
  }

  #pools(): Pools {
    const cluster = this.#store.view.get("cluster", this.#clusterId);
    const asked = cluster?.defaultAddressPool.length ? cluster.defaultAddressPool : [DEFAULT_POOL];
    const subnets = asked.flatMap((cidr) => parseCidr(cidr) ?? []);
    return { subnets, size: cluster?.subnetSize || DEFAULT_SIZE, seed: this.#clusterId };
  }

  /** Plans all dirty objects of a kind and writes them, some hundred at a time. */
  async #allocate<K extends Allocated>(kind: K, plan: (object: ObjectOf<K>) => ObjectOf<K> | undefined): Promise<void> {
    const ids = [...this.#dirty[kind]];
    if (kind === "network") ids.sort((a, b) => this.#networkRank(a) - this.#networkRank(b));
    for (let at = 0; at < ids.length; at += CHUNK) {
      const planned: { base: bigint; next: ObjectOf<K> }[] = [];
      for (const id of ids.slice(at, at + CHUNK)) {
        this.#dirty[kind].delete(id);
        const object = this.#store.view.get(kind, id);
        const next = object && this.#plan(kind, object, plan);
        if (object && next) {
          planned.push({ base: versionOf(object), next });
          // So that the next plan of this tick sees the network's subnet as taken.
          if (kind === "network")
            this.#state.apply({ action: "update", kind, object: next } as Change, this.#clock.steady());
        }
      }
      if (planned.length > 0) await this.#write(kind, planned);
    }
  }

  /** Those that ask for a subnet come before those that take any; of these ingress has the first of the pool. */
  #networkRank(id: string): number {
    const network = this.#store.view.get("network", id);
    if (network?.spec?.ipam?.configs.some(({ subnet }) => subnet !== "")) return 0;
    return network && isIngress(network) ? 1 : 2;
  }

  #plan<K extends Allocated>(
    kind: K,
    object: ObjectOf<K>,
    plan: (object: ObjectOf<K>) => ObjectOf<K> | undefined,
  ): ObjectOf<K> | undefined {
    try {
      const planned = plan(object);
      this.#reasons.delete(object.id);
      return planned;
    } catch (error) {
      this.#blocked[kind].add(object.id);
      if (!(error instanceof CannotAllocate)) {
        // One broken object must not keep the others from theirs.
        this.#log.error("the allocator stumbled", { kind, id: object.id, error });
        return undefined;
      }
      if (this.#reasons.get(object.id) !== error.message) {
        this.#log.warn("cannot allocate", { kind, id: object.id, reason: error.message });
        this.#reasons.set(object.id, error.message);
      }
      if (kind === "service") this.#explain(this.#store.view.tasksOfService(object.id), error.message);
      if (kind === "task") this.#explain([object as Task], error.message);
      return undefined;
    }
  }

  /** Tells in the status of waiting tasks what they wait for. */
  #explain(tasks: Task[], reason: string): void {
    const waiting = tasks.filter((task) => isNew(task) && task.status?.err !== reason);
    if (waiting.length === 0) return;
    void this.#store
      .batch(waiting, (tx, { id }) => {
        const task = tx.get("task", id);
        if (!task?.status || !isNew(task)) return;
        const timestamp = timestampFromMs(this.#clock.now());
        tx.update("task", { ...task, status: { ...task.status, err: reason, timestamp } });
      })
      .catch((error) => this.#log.warn("a reason could not be written", { error }));
  }

  async #write<K extends Allocated>(kind: K, planned: { base: bigint; next: ObjectOf<K> }[]): Promise<void> {
    let skipped: string[] = [];
    try {
      await this.#store.update((tx) => {
        skipped = [];
        for (const { base, next } of planned) {
          const current = tx.get(kind as Kind, next.id);
          if (!current) skipped.push(next.id);
          else if (kind === "node") tx.update("node", withAttachments(current, next));
          else if (versionOf(current) !== base) skipped.push(next.id);
          else tx.update(kind as Kind, next as never);
        }
      });
    } catch (error) {
      // What was taken from the state was not written: begin again from the store.
      this.#state = AllocatorState.of(this.#store.view, this.#clock, this.#state);
      for (const { next } of planned) this.#dirty[kind].add(next.id);
      throw error;
    }
    if (skipped.length === 0) return;
    this.#state = AllocatorState.of(this.#store.view, this.#clock, this.#state);
    for (const id of skipped) this.#dirty[kind].add(id);
    this.#loop.mark();
  }
}

/** Only the allocator writes attachments, so they fit on any version of the node. */
function withAttachments(current: AnyObject, planned: AnyObject): Node {
  return { ...(current as Node), attachments: (planned as Node).attachments };
}

function empty(): Record<Allocated, Set<string>> {
  return { network: new Set(), service: new Set(), task: new Set(), node: new Set() };
}

function isNew(task: Task): boolean {
  return (
    (task.status?.state ?? TaskState.NEW) === TaskState.NEW && !isDead(task) && task.desiredState <= TaskState.COMPLETE
  );
}
