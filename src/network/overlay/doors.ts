/**
 * The doors to the routing mesh that the other nodes told of, by node. A node's door is told anew under another key when
 * its sandbox is made anew or the ingress network is another, and the old one's end may be heard after the new one's
 * beginning: an end is the end of what was told under that very key. A door that is lost here shuts out the clients of
 * that node from this node's tasks, so the database is asked now and then, as for the other tables.
 */
import type { TableEntry, TableEvent } from "../../gossip/types.ts";
import { decodeDoor, encodeDoor, type MeshDoor } from "./mesh.ts";

const same = (a: MeshDoor, b: MeshDoor): boolean =>
  a.address === b.address && a.mac === b.mac && a.returns === b.returns && a.leg === b.leg;

type Heard = Pick<TableEvent, "kind" | "networkId" | "key" | "value" | "owner">;

export class Doors {
  /** By node, then by network and key, the last told last. */
  readonly #told = new Map<string, Map<string, MeshDoor>>();
  #current: ReadonlyMap<string, MeshDoor> | undefined;

  /** Takes one event in; whether anything is different now. */
  apply({ kind, networkId, key, value, owner }: Heard): boolean {
    const path = `${networkId}/${key}`;
    const doors = this.#told.get(owner) ?? new Map<string, MeshDoor>();
    const door = kind === "delete" ? undefined : decodeDoor(value);
    const had = doors.get(path);
    if (!door) {
      if (!doors.delete(path)) return false;
      if (doors.size === 0) this.#told.delete(owner);
    } else {
      if (had && same(had, door)) return false;
      // Deleted first, so that the newest word comes last, among a node's doors and among the nodes.
      doors.delete(path);
      doors.set(path, door);
      this.#told.delete(owner);
      this.#told.set(owner, doors);
    }
    this.#current = undefined;
    return true;
  }

  /** Forgets a node; whether it had a door. */
  drop(owner: string): boolean {
    this.#current = undefined;
    return this.#told.delete(owner);
  }

  clear(): void {
    this.#told.clear();
    this.#current = undefined;
  }

  /** Each node's door; of two that claim one address the later comes last. */
  byNode(): ReadonlyMap<string, MeshDoor> {
    if (!this.#current) {
      const current = new Map<string, MeshDoor>();
      for (const [owner, doors] of this.#told) {
        const last = [...doors.values()].at(-1);
        if (last) current.set(owner, last);
      }
      this.#current = current;
    }
    return this.#current;
  }

  /** What was told on a network, to be kept over a restart. */
  entries(networkId: string): { key: string; owner: string; value: Uint8Array }[] {
    return [...this.#told].flatMap(([owner, doors]) =>
      [...doors].flatMap(([path, door]) => {
        const cut = path.indexOf("/");
        return path.slice(0, cut) === networkId ? [{ key: path.slice(cut + 1), owner, value: encodeDoor(door) }] : [];
      }),
    );
  }

  /**
   * Makes a network's doors equal to the database's; gives the number that differed. Nodes that are not there, or have not
   * told yet what they have, are left alone: they may come back under another name, and whoever judges that drops them.
   */
  resync(networkId: string, entries: readonly TableEntry[], isThere: (owner: string) => boolean): number {
    let differences = 0;
    const real = new Set(entries.filter((entry) => !entry.local).map(({ owner, key }) => `${owner} ${key}`));
    for (const { owner, key, value } of this.entries(networkId)) {
      if (real.has(`${owner} ${key}`) || !isThere(owner)) continue;
      if (this.apply({ kind: "delete", networkId, key, owner, value })) differences++;
    }
    for (const entry of entries) {
      if (!entry.local && this.apply({ ...entry, kind: "create", networkId })) differences++;
    }
    return differences;
  }
}
