/**
 * The kernel is held to the state: every 30 s all namespaces are compared with their plans, tables of nftables included,
 * and those that somebody touched (`drift.ts`) at once. What differed is mended, counted, logged and told.
 */
import { Mutex } from "../base/async.ts";
import { messageOf } from "../base/errors.ts";
import type { Core } from "./core.ts";
import { Drift, lookMs } from "./drift.ts";
import type { NamespaceKey } from "./plan/types.ts";
import type { Depth } from "./reconcile/snapshot.ts";
import type { Repairs } from "./repairs.ts";

/** How often every namespace is compared with its plan. */
const passMs = 30_000;

export interface UpkeepParts {
  readonly core: Core;
  readonly repairs: Repairs;
  /** First of a pass: what plans are computed from, and what no plan covers. */
  readonly before: () => Promise<void>;
  /** Puts back pins of namespaces that somebody removed, and the namespaces themselves; gives what was missing. */
  readonly repin: (which: "pins" | "all") => readonly (readonly [NamespaceKey, string])[];
  /** Last of a pass. */
  readonly after: () => void;
}

export class Upkeep {
  readonly #parts: UpkeepParts;
  readonly #cancelLook: () => void;
  readonly #cancelPass: () => void;
  readonly #passes = new Mutex();
  /** What was there before the daemon was compared once; only from then on is a difference somebody's doing. */
  #restored = false;

  constructor(parts: UpkeepParts) {
    this.#parts = parts;
    const { clock, log } = parts.core;
    const drift = new Drift(parts.core, (key, depth) =>
      this.#passes.run(() => this.#mend(key, depth, "drift").then(() => {})),
    );
    const look = async () => {
      this.#repin("drift", "pins");
      await drift.look();
    };
    this.#cancelLook = clock.every(lookMs, () => {
      if (!this.#restored) return;
      look().catch((error) => log.error("cannot look for drift", { error: messageOf(error) }));
    });
    this.#cancelPass = clock.every(passMs, () => {
      if (!this.#restored) return;
      this.pass().catch((error) => log.error("the reconciling pass failed", { error: messageOf(error) }));
    });
  }

  /** The first pass. What it finds is no drift: it was never there, or the daemon was away. */
  async restore(): Promise<void> {
    await this.#passes.run(() => this.#pass("restored"));
  }

  /** One pass over every namespace; gives what was mended. */
  pass(): Promise<string[]> {
    return this.#passes.run(() => this.#pass("drift"));
  }

  async #pass(reason: "restored" | "drift"): Promise<string[]> {
    const { core, before, after } = this.#parts;
    core.retryLeg();
    await core.sweep();
    await before();
    const mended = this.#repin(reason, "all");
    // Nothing is known to be loaded yet, so all tables are: a listing would only delay it.
    const depth = reason === "drift" ? "pass" : "quick";
    for (const key of core.namespaces.keys()) mended.push(...(await this.#mend(key, depth, reason)));
    after();
    this.#restored = true;
    return mended;
  }

  #repin(reason: "restored" | "drift", which: "pins" | "all"): string[] {
    const mended = this.#parts.repin(which);
    if (reason === "drift") for (const [namespace, difference] of mended) this.#tell(namespace, [difference]);
    return mended.map(([namespace, difference]) => `${namespace}: ${difference}`);
  }

  async #mend(key: NamespaceKey, depth: Depth, reason: "restored" | "drift"): Promise<string[]> {
    const { core } = this.#parts;
    const mended: string[] = [];
    try {
      for (const [namespace, differences] of await core.settle([key], depth)) {
        if (reason === "drift") this.#tell(namespace, differences);
        mended.push(...differences.map((difference) => `${namespace}: ${difference}`));
      }
    } catch (error) {
      core.log.error("cannot reconcile a namespace", { namespace: key, error: messageOf(error) });
    }
    return mended;
  }

  #tell(namespace: NamespaceKey, differences: string[]): void {
    const { core, repairs } = this.#parts;
    repairs.add(namespace, differences, core.clock.now());
    const text = differences.join("; ");
    core.log.warn("mended drift", { namespace, differences: text, repairs: repairs.counts() });
    core.events.emit({ kind: "drift", namespace, differences, total: repairs.total });
  }

  close(): void {
    this.#cancelPass();
    this.#cancelLook();
  }
}
