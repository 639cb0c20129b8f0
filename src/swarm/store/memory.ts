/**
 * The store's tables in memory, with their indexes. Objects are never changed in place: a new version is a new object,
 * so a reader may keep what it got.
 */
import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { type AnyObject, KINDS, type Kind, nameOf, type ObjectOf } from "./objects.ts";

/** What can be asked of a state of the store. */
export interface Reader {
  get<K extends Kind>(kind: K, id: string): ObjectOf<K> | undefined;
  all<K extends Kind>(kind: K): ObjectOf<K>[];
  /** By name, case ignored, as SwarmKit does. */
  byName<K extends Kind>(kind: K, name: string): ObjectOf<K> | undefined;
  tasksOfService(serviceId: string): Task[];
  tasksOfNode(nodeId: string): Task[];
}

/** A set of task ids per key, forgotten when empty. */
class TaskIndex {
  #sets = new Map<string, Map<string, Task>>();

  set(key: string, task: Task): void {
    if (!key) return;
    const set = this.#sets.get(key);
    if (set) set.set(task.id, task);
    else this.#sets.set(key, new Map([[task.id, task]]));
  }

  delete(key: string, id: string): void {
    const set = this.#sets.get(key);
    if (set?.delete(id) && set.size === 0) this.#sets.delete(key);
  }

  get(key: string): Task[] {
    return [...(this.#sets.get(key)?.values() ?? [])];
  }
}

export class Tables implements Reader {
  #objects = new Map<Kind, Map<string, AnyObject>>(KINDS.map((kind) => [kind, new Map()]));
  #names = new Map<Kind, Map<string, string>>(KINDS.map((kind) => [kind, new Map()]));
  #byService = new TaskIndex();
  #byNode = new TaskIndex();

  get<K extends Kind>(kind: K, id: string): ObjectOf<K> | undefined {
    return this.#objects.get(kind)?.get(id) as ObjectOf<K> | undefined;
  }

  all<K extends Kind>(kind: K): ObjectOf<K>[] {
    return [...((this.#objects.get(kind)?.values() ?? []) as Iterable<ObjectOf<K>>)];
  }

  byName<K extends Kind>(kind: K, name: string): ObjectOf<K> | undefined {
    const id = this.#names.get(kind)?.get(name.toLowerCase());
    return id === undefined ? undefined : this.get(kind, id);
  }

  tasksOfService(serviceId: string): Task[] {
    return this.#byService.get(serviceId);
  }

  tasksOfNode(nodeId: string): Task[] {
    return this.#byNode.get(nodeId);
  }

  /** Puts an object in its table; returns the one it replaces. */
  put<K extends Kind>(kind: K, object: ObjectOf<K>): ObjectOf<K> | undefined {
    const old = this.get(kind, object.id);
    if (old) this.#unindex(kind, old, object);
    this.#objects.get(kind)?.set(object.id, object);
    const name = nameOf(kind, object);
    if (name !== undefined) this.#names.get(kind)?.set(name, object.id);
    if (kind === "task") {
      const task = object as Task;
      this.#byService.set(task.serviceId, task);
      this.#byNode.set(task.nodeId, task);
    }
    return old;
  }

  remove<K extends Kind>(kind: K, id: string): ObjectOf<K> | undefined {
    const old = this.get(kind, id);
    if (!old) return undefined;
    this.#objects.get(kind)?.delete(id);
    this.#unindex(kind, old, undefined);
    return old;
  }

  #unindex(kind: Kind, old: AnyObject, next: AnyObject | undefined): void {
    const name = nameOf(kind, old);
    const names = this.#names.get(kind);
    if (name !== undefined && names?.get(name) === old.id) names.delete(name);
    if (kind !== "task") return;
    const before = old as Task;
    const after = next as Task | undefined;
    if (before.serviceId !== after?.serviceId) this.#byService.delete(before.serviceId, before.id);
    if (before.nodeId !== after?.nodeId) this.#byNode.delete(before.nodeId, before.id);
  }
}
