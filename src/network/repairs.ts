/** How often what was mended since the start, by kind of thing. */

const kinds = ["sysctl", "table", "link", "address", "route", "rule", "neighbour", "fdb", "namespace"] as const;
export type RepairKind = (typeof kinds)[number];
/** The first of these words in a difference tells what it is about. */
const known = new Map<string, RepairKind>([...kinds.map((kind) => [kind, kind] as const), ["fwmark", "rule"]]);

/** So many are remembered one by one. */
const mostRecent = 200;

export interface Mended {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly namespace: string;
  readonly difference: string;
}

export class Repairs {
  readonly #counts = new Map<RepairKind, number>();
  #recent: Mended[] = [];

  /** Takes differences as the reconciler tells them: "set fdb 02:42:… to 192.0.2.1 on vxlan0". */
  add(namespace: string, differences: readonly string[], at: number): void {
    const added = differences.map((difference) => ({ at, namespace, difference }));
    this.#recent = [...this.#recent, ...added].slice(-mostRecent);
    for (const text of differences) {
      const word = text.split(" ").find((one) => known.has(one)) ?? "";
      const kind = known.get(word);
      if (kind) this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
    }
  }

  counts(): Partial<Record<RepairKind, number>> {
    return Object.fromEntries(this.#counts);
  }

  /** The last ones, oldest first. */
  recent(): readonly Mended[] {
    return this.#recent;
  }

  get total(): number {
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }
}
