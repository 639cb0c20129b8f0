/** The namespaces that this host has of ours, held open: a handle, an rtnetlink socket, nftables when first needed. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { errnoOf } from "../../base/errors.ts";
import { bindMount, touch } from "../../kernel/mount.ts";
import { createNetNs, destroyNetNs, isNetNs, openNetNs } from "../../kernel/netns.ts";
import { openNft } from "../../kernel/nft.ts";
import { openRtnl } from "../../kernel/rtnl.ts";
import type { NetNs, Nft, Rtnl } from "../../kernel/types.ts";
import { openWatch, type Touched, type Watch } from "../../kernel/watch.ts";
import type { NamespaceKey } from "../plan/types.ts";

/** What was loaded into nftables here, to tell later whether it is still so. */
export interface LoadedTable {
  readonly body: string;
  /** Of the kernel's listing right after loading; taken at the first deep pass. */
  fingerprint: string | undefined;
  /** How often a pass has come by. */
  looks: number;
  /** Somebody touched nftables since it was listed. */
  suspect: boolean;
}

const untouched: Touched = { routing: false, tables: false };

export class OpenNamespace implements Disposable {
  readonly key: NamespaceKey;
  /** Undefined for the host: the process is in it. */
  readonly ns: NetNs | undefined;
  readonly rtnl: Rtnl;
  readonly loaded = new Map<string, LoadedTable>();
  /** Tables of an earlier life have been looked for. */
  surveyed = false;
  /** Devices for which iptables' own tables were last seen to. */
  passages: string | undefined;
  #nft: Nft | undefined;
  #noticed: Touched = untouched;
  readonly #watch: Watch;

  constructor(key: NamespaceKey, ns: NetNs | undefined) {
    this.key = key;
    this.ns = ns;
    this.rtnl = openRtnl(ns);
    this.#watch = openWatch(ns);
  }

  /** What others touched since the last look. */
  look(): Touched {
    this.aboutToChange();
    const touched = this.#noticed;
    this.#noticed = untouched;
    return touched;
  }

  #suspect(): void {
    for (const [id, table] of this.loaded) {
      table.suspect = true;
      // What was not listed since it was loaded cannot be told from what others made of it.
      if (!table.fingerprint) this.loaded.delete(id);
    }
  }

  /** What was touched up to now was not the reconciler's doing, and will be told by the next look. */
  aboutToChange(): void {
    const { routing, tables } = this.#watch.look();
    if (tables) this.#suspect();
    const before = this.#noticed;
    this.#noticed = { routing: routing || before.routing, tables: tables || before.tables };
  }

  /** What was touched up to now was the reconciler's doing. */
  forget(): void {
    this.#watch.forget();
  }

  get nft(): Nft {
    this.#nft ??= openNft(this.ns);
    return this.#nft;
  }

  /** Gives the memory of libnftables back; it is opened again when needed. */
  closeNft(): void {
    this.#nft?.[Symbol.dispose]();
    this.#nft = undefined;
  }

  [Symbol.dispose](): void {
    this.closeNft();
    this.#watch[Symbol.dispose]();
    this.rtnl[Symbol.dispose]();
    this.ns?.[Symbol.dispose]();
  }
}

export class Namespaces implements Disposable {
  readonly #dir: string;
  readonly #open = new Map<NamespaceKey, OpenNamespace>();

  constructor(dir: string) {
    this.#dir = dir;
    this.#open.set("host", new OpenNamespace("host", undefined));
  }

  get host(): OpenNamespace {
    return this.get("host");
  }

  find(key: NamespaceKey): OpenNamespace | undefined {
    return this.#open.get(key);
  }

  get(key: NamespaceKey): OpenNamespace {
    const open = this.#open.get(key);
    if (!open) throw new Error(`namespace ${key} is not open`);
    return open;
  }

  keys(): NamespaceKey[] {
    return [...this.#open.keys()];
  }

  pathOf(file: string): string {
    return join(this.#dir, file);
  }

  /** Opens the namespace pinned under this name, making it when there is none. Tells whether it was made. */
  ensure(key: NamespaceKey, file: string): boolean {
    const path = this.pathOf(file);
    const there = isNetNs(path);
    const known = this.#open.get(key);
    if (known && there) return false;
    known?.[Symbol.dispose]();
    this.#open.set(key, new OpenNamespace(key, there ? openNetNs(path) : createNetNs(path)));
    return !there;
  }

  /** A namespace that we hold but whose pin somebody removed is pinned again. Tells whether it was. */
  repin(key: NamespaceKey, file: string): boolean {
    const ns = this.#open.get(key)?.ns;
    const path = this.pathOf(file);
    if (!ns || isNetNs(path)) return false;
    touch(path);
    bindMount(`/proc/self/fd/${ns.fd}`, path);
    return true;
  }

  /** Closes and unpins; the kernel frees it and its links with the last process inside. */
  destroy(key: NamespaceKey, file: string): void {
    this.#open.get(key)?.[Symbol.dispose]();
    this.#open.delete(key);
    destroyNetNs(this.pathOf(file));
  }

  /** Names of all pins in the directory, known or not. */
  pinned(): string[] {
    try {
      return readdirSync(this.#dir);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return [];
      throw error;
    }
  }

  unpin(file: string): void {
    destroyNetNs(this.pathOf(file));
  }

  [Symbol.dispose](): void {
    for (const open of this.#open.values()) open[Symbol.dispose]();
    this.#open.clear();
  }
}
