/**
 * Looks twice a second whether somebody else changed one of our namespaces, so that it is mended at once and not only
 * by the next pass. A look is two system calls per namespace; only what was touched is compared with its plan.
 */
import type { Core } from "./core.ts";
import type { NamespaceKey } from "./plan/types.ts";
import type { Depth } from "./reconcile/snapshot.ts";

export const lookMs = 500;
/** A namespace that is touched all the time is compared so often at most. */
const restMs = 1_000;

export class Drift {
  readonly #core: Core;
  readonly #mend: (key: NamespaceKey, depth: Depth) => Promise<void>;
  readonly #touched = new Map<NamespaceKey, Depth>();
  readonly #mendedAt = new Map<NamespaceKey, number>();
  #busy = false;

  constructor(core: Core, mend: (key: NamespaceKey, depth: Depth) => Promise<void>) {
    this.#core = core;
    this.#mend = mend;
  }

  async look(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      const { clock, namespaces } = this.#core;
      const keys = namespaces.keys();
      for (const key of keys) {
        const { routing, tables } = namespaces.get(key).look();
        if (tables) this.#touched.set(key, "deep");
        else if (routing && !this.#touched.has(key)) this.#touched.set(key, "quick");
      }
      for (const key of this.#mendedAt.keys()) if (!keys.includes(key)) this.#mendedAt.delete(key);
      for (const [key, depth] of [...this.#touched]) {
        if (clock.steady() - (this.#mendedAt.get(key) ?? -restMs) < restMs) continue;
        this.#touched.delete(key);
        this.#mendedAt.set(key, clock.steady());
        await this.#mend(key, depth);
      }
    } finally {
      this.#busy = false;
    }
  }
}
