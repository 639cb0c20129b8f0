/**
 * How full the kernel's connection tables are. Each namespace counts its own; the limit, `nf_conntrack_max`, is the
 * machine's. In a full table the kernel makes room by dropping connections that nobody has answered yet, so that a flood
 * of them mostly displaces itself; where it finds none, new connections are lost without a word. So it is said here: in the
 * log when a table fills up and when it is over, and for as long as it lasts by `docker info`, with what was lost meanwhile.
 */
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { openConntrack } from "../kernel/conntrack.ts";
import { KernelError } from "../kernel/error.ts";
import { readSysctl } from "../kernel/sysctl.ts";
import type { NetNs, TrackingLosses } from "../kernel/types.ts";
import type { Core } from "./core.ts";
import { sandboxKey } from "./state.ts";

/** How often the tables are looked at. */
const lookMs = 5_000;
/** Parts of the limit from which a table counts as full, and below which it does not any more. */
const full = 0.9;
const relieved = 0.75;

export interface TableUse {
  /** Whose it is, in words: "this host", "the routing mesh", "container 0123456789ab". */
  readonly owner: string;
  readonly count: number;
  readonly max: number;
}

export interface ConnectionTable extends TableUse {
  /** What it could not keep until now. */
  readonly losses: () => TrackingLosses;
}

/** A table that is full, with what it could not keep since it became so. */
export type FullTable = TableUse & TrackingLosses;

/** The tables of this host and of its sandboxes; none where the kernel tracks nothing. */
export function tablesOf({ namespaces, sandboxes }: Pick<Core, "namespaces" | "sandboxes">): ConnectionTable[] {
  const read = (name: "count" | "max", ns = namespaces.host.ns) =>
    Number(readSysctl(`net.netfilter.nf_conntrack_${name}`, ns));
  try {
    const max = read("max");
    const host = namespaces.host.ns;
    const found = [{ owner: "this host", count: read("count"), max, losses: () => lossesIn(host) }];
    for (const { id, kind } of sandboxes.values()) {
      const ns = namespaces.find(sandboxKey(id))?.ns;
      if (!ns || kind === "lb") continue;
      const owner = kind === "ingress" ? "the routing mesh" : `container ${id.slice(0, 12)}`;
      found.push({ owner, count: read("count", ns), max, losses: () => lossesIn(ns) });
    }
    return found;
  } catch (error) {
    if (error instanceof KernelError && error.code === "ENOENT") return [];
    throw error;
  }
}

function lossesIn(ns: NetNs | undefined): TrackingLosses {
  using conntrack = openConntrack(ns);
  return conntrack.losses();
}

export class ConnectionTables implements Disposable {
  readonly #log: Logger;
  readonly #read: () => readonly ConnectionTable[];
  readonly #full = new Map<string, { readonly before: TrackingLosses; now: FullTable }>();
  readonly #cancel: () => void;

  /** `read` gives all tables as they are now. */
  constructor(options: { clock: Clock; log: Logger; read: () => readonly ConnectionTable[] }) {
    this.#log = options.log;
    this.#read = options.read;
    this.#cancel = options.clock.every(lookMs, () => this.look());
  }

  look(): void {
    const tables = this.#read();
    const seen = new Set(tables.map(({ owner }) => owner));
    for (const owner of this.#full.keys()) if (!seen.has(owner)) this.#full.delete(owner);
    for (const table of tables) {
      const { owner, count, max } = table;
      const known = this.#full.get(owner);
      if (!known && count < max * full) continue;
      const losses = table.losses();
      const before = known?.before ?? losses;
      const refused = losses.refused - before.refused;
      const displaced = losses.displaced - before.displaced;
      if (known && count < max * relieved) {
        this.#full.delete(owner);
        this.#log.info("a connection table has room again", { owner, count, max, refused, displaced });
        continue;
      }
      this.#full.set(owner, { before, now: { owner, count, max, refused, displaced } });
      if (!known) this.#log.warn("a connection table is full: new connections may be lost", { owner, count, max });
      else if (refused > 0 && known.now.refused === 0) {
        this.#log.warn("a connection table is full: new connections are lost", { owner, count, max, refused });
      }
    }
  }

  /** Those that are full. */
  full(): FullTable[] {
    return [...this.#full.values()].map(({ now }) => now);
  }

  [Symbol.dispose](): void {
    this.#cancel();
  }
}
