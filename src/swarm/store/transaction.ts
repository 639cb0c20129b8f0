/**
 * A store transaction: reads see the store with the transaction's own writes on top; nothing is visible to others until
 * the whole is committed. Several transactions share one overlay when they are committed together; a failed one is
 * rolled back to where it began.
 */

import type { Task } from "#proto/docker/swarmkit/objects_pb.js";
import { conflict, notFound } from "../../base/errors.ts";
import type { Reader, Tables } from "./memory.ts";
import { type AnyObject, KINDS, type Kind, nameOf, type ObjectOf, stamped, versionOf } from "./objects.ts";

export interface Transaction extends Reader {
  /** Adds an object; its id and name must be free. */
  create<K extends Kind>(kind: K, object: ObjectOf<K>): ObjectOf<K>;
  /** Replaces an object; throws `update out of sequence` when it changed since it was read. */
  update<K extends Kind>(kind: K, object: ObjectOf<K>): ObjectOf<K>;
  remove(kind: Kind, id: string): void;
}

/** One write of a finished overlay. `base` is the version the store had, 0 = no such object. */
export interface Write {
  readonly kind: Kind;
  readonly id: string;
  readonly base: bigint;
  /** undefined = removed. */
  readonly object: AnyObject | undefined;
}

interface Undo {
  kind: Kind;
  id: string;
  had: boolean;
  previous: AnyObject | undefined;
}

export class Overlay implements Transaction {
  readonly #base: Tables;
  readonly #now: number;
  /** What the commit will probably be numbered; only has to differ from every version before. */
  readonly #version: bigint;
  #writes = new Map<Kind, Map<string, AnyObject | undefined>>(KINDS.map((kind) => [kind, new Map()]));
  #journal: Undo[] = [];

  constructor(base: Tables, now: number, version: bigint) {
    this.#base = base;
    this.#now = now;
    this.#version = version;
  }

  get<K extends Kind>(kind: K, id: string): ObjectOf<K> | undefined {
    const writes = this.#writesOf(kind);
    return writes.has(id) ? (writes.get(id) as ObjectOf<K> | undefined) : this.#base.get(kind, id);
  }

  all<K extends Kind>(kind: K): ObjectOf<K>[] {
    return this.#merge(kind, this.#base.all(kind), () => true);
  }

  byName<K extends Kind>(kind: K, name: string): ObjectOf<K> | undefined {
    const wanted = name.toLowerCase();
    for (const object of this.#writesOf(kind).values()) {
      if (object && nameOf(kind, object) === wanted) return object as ObjectOf<K>;
    }
    const stored = this.#base.byName(kind, name);
    return stored && !this.#writesOf(kind).has(stored.id) ? stored : undefined;
  }

  tasksOfService(serviceId: string): Task[] {
    return this.#merge("task", this.#base.tasksOfService(serviceId), (task) => task.serviceId === serviceId);
  }

  tasksOfNode(nodeId: string): Task[] {
    return this.#merge("task", this.#base.tasksOfNode(nodeId), (task) => task.nodeId === nodeId);
  }

  create<K extends Kind>(kind: K, object: ObjectOf<K>): ObjectOf<K> {
    if (this.get(kind, object.id)) throw conflict("object already exists");
    const name = nameOf(kind, object);
    if (name !== undefined && this.byName(kind, name)) throw conflict("name conflicts with an existing object");
    return this.#write(kind, stamped(object, this.#now, this.#version, true));
  }

  update<K extends Kind>(kind: K, object: ObjectOf<K>): ObjectOf<K> {
    const current = this.get(kind, object.id);
    if (!current) throw notFound("object does not exist");
    if (versionOf(current) !== versionOf(object)) throw conflict("update out of sequence");
    const name = nameOf(kind, object);
    if (name !== undefined && name !== nameOf(kind, current) && this.byName(kind, name)) {
      throw conflict("name conflicts with an existing object");
    }
    return this.#write(kind, stamped(object, this.#now, this.#version, false));
  }

  remove(kind: Kind, id: string): void {
    if (!this.get(kind, id)) throw notFound("object does not exist");
    this.#remember(kind, id);
    this.#writesOf(kind).set(id, undefined);
  }

  /** Where the next transaction begins; for `rollback`. */
  mark(): number {
    return this.#journal.length;
  }

  rollback(mark: number): void {
    for (const { kind, id, had, previous } of this.#journal.splice(mark).reverse()) {
      if (had) this.#writesOf(kind).set(id, previous);
      else this.#writesOf(kind).delete(id);
    }
  }

  /** How many writes were made, for bounding a commit. */
  get size(): number {
    return this.#journal.length;
  }

  /** The net effect: one write per object. */
  writes(): Write[] {
    const result: Write[] = [];
    for (const kind of KINDS) {
      for (const [id, object] of this.#writesOf(kind)) {
        const stored = this.#base.get(kind, id);
        if (!stored && !object) continue;
        result.push({ kind, id, object, base: stored ? versionOf(stored) : 0n });
      }
    }
    return result;
  }

  #write<K extends Kind>(kind: K, object: ObjectOf<K>): ObjectOf<K> {
    this.#remember(kind, object.id);
    this.#writesOf(kind).set(object.id, object);
    return object;
  }

  #remember(kind: Kind, id: string): void {
    const writes = this.#writesOf(kind);
    this.#journal.push({ kind, id, had: writes.has(id), previous: writes.get(id) });
  }

  #writesOf(kind: Kind): Map<string, AnyObject | undefined> {
    return this.#writes.get(kind) ?? new Map();
  }

  #merge<K extends Kind>(kind: K, stored: ObjectOf<K>[], keep: (object: ObjectOf<K>) => boolean): ObjectOf<K>[] {
    const writes = this.#writesOf(kind);
    if (writes.size === 0) return stored;
    const result = stored.filter((object) => !writes.has(object.id));
    for (const object of writes.values()) if (object && keep(object as ObjectOf<K>)) result.push(object as ObjectOf<K>);
    return result;
  }
}
