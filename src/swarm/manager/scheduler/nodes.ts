/** What the scheduler knows of each node, kept up to date change by change. */
import type { Node, Task } from "#proto/docker/swarmkit/objects_pb.js";
import {
  type GenericResource,
  type PortConfig,
  PortConfig_Protocol,
  PortConfig_PublishMode,
  TaskState,
} from "#proto/docker/swarmkit/types_pb.js";
import type { Reader } from "../../store/memory.ts";
import type { Change } from "../../store/store.ts";

/** Failures of one version of a service on a node before it is avoided, and for how long they count. */
const MAX_FAILURES = 5;
const FAILURE_WINDOW_MS = 300_000;

const stateOf = (task: Task) => task.status?.state ?? TaskState.NEW;
/** A task that takes room on its node. */
const isActive = (task: Task) => stateOf(task) <= TaskState.RUNNING && task.nodeId !== "";
const isWanted = (task: Task) => task.desiredState <= TaskState.COMPLETE;

const versionKey = (task: Task) => `${task.serviceId}@${task.specVersion?.index ?? 0n}`;

export function hostPorts(task: Task): string[] {
  return (task.endpoint?.ports ?? [])
    .filter((port: PortConfig) => port.publishMode === PortConfig_PublishMode.HOST && port.publishedPort > 0)
    .map((port) => `${PortConfig_Protocol[port.protocol]}/${port.publishedPort}`);
}

/** Amount of a generic resource by kind. */
export function genericAmounts(resources: readonly GenericResource[]): Map<string, bigint> {
  const amounts = new Map<string, bigint>();
  for (const { resource } of resources) {
    if (resource.case === undefined) continue;
    const amount = resource.case === "discreteResourceSpec" ? resource.value.value : 1n;
    amounts.set(resource.value.kind, (amounts.get(resource.value.kind) ?? 0n) + amount);
  }
  return amounts;
}

export class NodeInfo {
  node: Node;
  readonly tasks = new Map<string, Task>();
  /** Tasks of each service that are wanted to run here. */
  readonly byService = new Map<string, number>();
  wanted = 0;
  nanoCpus = 0n;
  memoryBytes = 0n;
  readonly generic = new Map<string, bigint>();
  readonly ports = new Map<string, number>();
  readonly #failures = new Map<string, number[]>();

  constructor(node: Node) {
    this.node = node;
  }

  add(task: Task): void {
    if (this.tasks.has(task.id) || !isActive(task)) return;
    this.tasks.set(task.id, task);
    this.#count(task, 1);
  }

  remove(id: string): void {
    const task = this.tasks.get(id);
    if (!task) return;
    this.tasks.delete(id);
    this.#count(task, -1);
  }

  #count(task: Task, sign: 1 | -1): void {
    if (isWanted(task)) {
      this.wanted += sign;
      bump(this.byService, task.serviceId, sign);
    }
    const reserved = task.spec?.resources?.reservations;
    this.nanoCpus += (reserved?.nanoCpus ?? 0n) * BigInt(sign);
    this.memoryBytes += (reserved?.memoryBytes ?? 0n) * BigInt(sign);
    for (const [kind, amount] of genericAmounts(reserved?.generic ?? [])) {
      this.generic.set(kind, (this.generic.get(kind) ?? 0n) + amount * BigInt(sign));
    }
    for (const port of hostPorts(task)) bump(this.ports, port, sign);
  }

  failed(task: Task, now: number): void {
    const key = versionKey(task);
    this.#failures.set(key, [...this.#recent(key, now), now]);
  }

  /** True when this version of the service failed here too often lately. */
  isPenalised(task: Task, now: number): boolean {
    return this.#failures.size > 0 && this.#recent(versionKey(task), now).length >= MAX_FAILURES;
  }

  #recent(key: string, now: number): number[] {
    return (this.#failures.get(key) ?? []).filter((at) => now - at < FAILURE_WINDOW_MS);
  }
}

function bump(map: Map<string, number>, key: string, by: number): void {
  const value = (map.get(key) ?? 0) + by;
  if (value === 0) map.delete(key);
  else map.set(key, value);
}

export class NodeSet {
  readonly #nodes = new Map<string, NodeInfo>();

  static of(store: Reader): NodeSet {
    const set = new NodeSet();
    for (const node of store.all("node")) set.#nodes.set(node.id, new NodeInfo(node));
    for (const task of store.all("task")) set.#nodes.get(task.nodeId)?.add(task);
    return set;
  }

  get(id: string): NodeInfo | undefined {
    return this.#nodes.get(id);
  }

  all(): NodeInfo[] {
    return [...this.#nodes.values()];
  }

  /** Follows a change; true when a waiting task may now find a place. */
  apply(change: Change, store: Reader, now: number): boolean {
    if (change.kind === "node") {
      if (change.action === "remove") return !this.#nodes.delete(change.object.id);
      const info = this.#nodes.get(change.object.id);
      if (info) info.node = change.object;
      else {
        const fresh = new NodeInfo(change.object);
        for (const task of store.tasksOfNode(change.object.id)) fresh.add(task);
        this.#nodes.set(change.object.id, fresh);
      }
      return matters(change.old, change.object);
    }
    if (change.kind !== "task") return false;
    const { object: task, old } = change;
    if (old?.nodeId) this.#nodes.get(old.nodeId)?.remove(task.id);
    if (change.action === "remove") return old !== undefined && isActive(old);
    const info = this.#nodes.get(task.nodeId);
    info?.add(task);
    const failed = [TaskState.FAILED, TaskState.REJECTED].includes(stateOf(task));
    if (failed && old && stateOf(old) !== stateOf(task)) info?.failed(task, now);
    return old !== undefined && isActive(old) && !isActive(task);
  }
}

/** Reports that only say "still the same" need no new round. */
function matters(old: Node | undefined, node: Node): boolean {
  return (
    old?.status?.state !== node.status?.state ||
    old?.spec !== node.spec ||
    old?.description !== node.description ||
    old?.role !== node.role
  );
}
