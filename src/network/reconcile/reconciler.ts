/** Plan in, kernel changed: dump, difference, steps; one at a time per namespace. */
import { KeyedMutex } from "../../base/async.ts";
import type { Logger } from "../../base/log.ts";
import type { NamespaceKey, NamespacePlan } from "../plan/types.ts";
import { apply } from "./apply.ts";
import { type Actual, describe, diff, diffTables, type Step } from "./diff.ts";
import type { Namespaces, OpenNamespace } from "./namespaces.ts";
import { type Depth, snapshot } from "./snapshot.ts";

/** A namespace as it should be, as it is, and what would be done about the difference. */
export interface Comparison {
  readonly plan: NamespacePlan;
  readonly actual: Actual;
  readonly steps: readonly Step[];
}

export class Reconciler {
  readonly #namespaces: Namespaces;
  readonly #log: Logger;
  readonly #busy = new KeyedMutex();
  /** Outer veth halves by namespace whose inner half was found missing. */
  readonly #broken = new Map<NamespaceKey, Set<string>>();
  /** Links by namespace that the kernel is about to remove by itself: deleting them would only wait for it. */
  readonly #leaving = new Map<NamespaceKey, Set<string>>();

  constructor(namespaces: Namespaces, log: Logger) {
    this.#namespaces = namespaces;
    this.#log = log;
  }

  /**
   * Brings a namespace to its plan. `plan` is called when it is this namespace's turn, so that it is never
   * older than the last one applied. Gives the steps that were taken.
   */
  async run(key: NamespaceKey, plan: () => NamespacePlan | undefined, depth: Depth): Promise<Step[]> {
    return this.#busy.run(key, async () => {
      const open = this.#namespaces.find(key);
      const wanted = open && plan();
      if (!wanted) return [];
      const steps = this.#difference(open, wanted, depth);
      // Nothing can be put on a device that is not there: its pair comes first, then this again.
      if (steps.length > 0 && !steps.some((step) => step.do === "await inner")) {
        open.aboutToChange();
        await apply(open, steps, this.#namespaces);
        open.forget();
        this.#log.debug("reconciled", { namespace: key, steps: steps.map(describe).join("; ") });
      }
      // A context of libnftables is a third of a megabyte and as many milliseconds to open.
      if (key !== "host") open.closeNft();
      return steps;
    });
  }

  /**
   * What `run` would do now, for people who look: nothing is done, and nothing remembered of the look. Tables count as
   * they were loaded: one that was listed while somebody has just changed it would be taken for ours from then on.
   * Undefined where there is nothing to compare (yet).
   */
  async compare(key: NamespaceKey, plan: () => NamespacePlan | undefined): Promise<Comparison | undefined> {
    return this.#busy.run(key, async () => {
      const open = this.#namespaces.find(key);
      const wanted = open?.surveyed ? plan() : undefined;
      if (!open || !wanted) return undefined;
      const actual = snapshot(open, wanted, { depth: "quick", brokenPairs: this.#broken.get(key) ?? new Set() });
      const leaving = this.#leaving.get(key);
      const planned = new Set(wanted.links.map(({ name }) => name));
      const links = actual.links.filter(({ name }) => planned.has(name) || !leaving?.has(name));
      return { plan: wanted, actual, steps: diff(wanted, { ...actual, links }) };
    });
  }

  #difference(open: OpenNamespace, wanted: NamespacePlan, depth: Depth): Step[] {
    if (depth === "tables" && open.surveyed) {
      return diffTables(wanted, { tables: new Map([...open.loaded].map(([id, { body }]) => [id, body])) });
    }
    const brokenPairs = this.#broken.get(open.key) ?? new Set();
    const actual = snapshot(open, wanted, { depth, brokenPairs });
    if (actual.forwarding) open.passages = wanted.passages?.join(" ");
    const leaving = this.#leaving.get(open.key);
    // A name that is wanted again is no longer let go: its old link is deleted, and its new one is not hidden.
    const again = new Set(wanted.links.flatMap(({ name }) => (leaving?.delete(name) ? [name] : [])));
    const staying = leaving ? actual.links.filter((link) => !leaving.has(link.name)) : actual.links;
    const steps = diff(wanted, { ...actual, links: staying, brokenPairs: new Set([...actual.brokenPairs, ...again]) });
    this.#broken.delete(open.key);
    return steps;
  }

  /** Leaves a link alone until `expect` is called: its namespace has just ended. */
  letGo(key: NamespaceKey, link: string): void {
    const links = this.#leaving.get(key) ?? new Set();
    this.#leaving.set(key, links.add(link));
  }

  /** Ends a namespace: nothing is reconciled in it while `job` runs, nor anything remembered of it. */
  async end(key: NamespaceKey, job: (open: OpenNamespace) => Promise<void>): Promise<void> {
    await this.#busy.run(key, async () => {
      const open = this.#namespaces.find(key);
      if (open) await job(open);
      this.#leaving.delete(key);
      this.#broken.delete(key);
    });
  }

  /** From now on what was let go is to be gone. */
  expect(key: NamespaceKey): void {
    this.#leaving.delete(key);
  }

  /** The inner halves that a sandbox waits for have lost their pair: their outer halves are to be made anew. */
  markBroken(plan: NamespacePlan, steps: readonly Step[]): NamespaceKey[] {
    const touched = new Set<NamespaceKey>();
    const missing = new Set(steps.flatMap((step) => (step.do === "await inner" ? [step.name] : [])));
    for (const link of plan.links) {
      if (link.kind !== "inner" || !missing.has(link.name)) continue;
      const set = this.#broken.get(link.outer.namespace) ?? new Set();
      set.add(link.outer.name);
      this.#broken.set(link.outer.namespace, set);
      touched.add(link.outer.namespace);
    }
    return [...touched];
  }
}
