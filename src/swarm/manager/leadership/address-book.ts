/** Where the managers are: from the store, and on disk for the time before the store can be read. */
import { join } from "node:path";
import * as z from "zod";
import { readFileIfAny, writeFileAtomic } from "../../../base/file.ts";
import type { Reader } from "../../store/memory.ts";

const schema = z.record(z.string(), z.string());

export class AddressBook {
  readonly #path: string;
  #addresses: Record<string, string>;

  constructor(stateDir: string) {
    this.#path = join(stateDir, "managers.json");
    const text = readFileIfAny(this.#path);
    const read = text === undefined ? undefined : schema.safeParse(JSON.parse(text));
    this.#addresses = read?.success ? read.data : {};
  }

  /** False while the disk has no room: then it is tried with each look at the store, and the addresses are used all the same. */
  #saved = true;

  /** "host:port" of a node's manager. */
  addrOf(nodeId: string): string | undefined {
    return this.#addresses[nodeId];
  }

  /** The managers' nodes. */
  get nodes(): string[] {
    return Object.keys(this.#addresses);
  }

  /** True when that is something new. */
  set(addresses: Record<string, string>): boolean {
    const next = Object.fromEntries(Object.entries(addresses).sort(([a], [b]) => (a < b ? -1 : 1)));
    const text = JSON.stringify(next);
    if (this.#saved && text === JSON.stringify(this.#addresses)) return false;
    this.#addresses = next;
    try {
      writeFileAtomic(this.#path, `${text}\n`);
      this.#saved = true;
    } catch {
      this.#saved = false;
    }
    return true;
  }

  /** Takes over what the store says; a store that knows no manager yet is not believed. */
  follow(view: Reader): boolean {
    const known = view
      .all("node")
      .flatMap(({ id, managerStatus }) => (managerStatus?.addr ? [[id, managerStatus.addr]] : []));
    return known.length > 0 && this.set(Object.fromEntries(known));
  }
}
