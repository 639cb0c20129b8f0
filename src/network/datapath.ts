/** What resolver and balancer contribute to plans. */
import type { Cluster } from "./cluster.ts";
import type { Core } from "./core.ts";
import type { Names } from "./names.ts";
import type { SandboxExtras } from "./plan/sandbox.ts";
import type { PlannedTable } from "./plan/table.ts";
import type { NamespaceKey } from "./plan/types.ts";
import { attachedTo } from "./plan/world.ts";
import { type NetworkState, type SandboxState, sandboxKey } from "./state.ts";

export class Datapath {
  readonly #core: Core;

  constructor(core: Core, _cluster: Cluster, _names: Names) {
    this.#core = core;
  }

  sandboxExtras(_sandbox: SandboxState): SandboxExtras {
    return { tables: [] };
  }

  hostTables(): PlannedTable[] {
    return [];
  }

  /** Namespaces whose tables show who serves what on this network. */
  affected(network: NetworkState): NamespaceKey[] {
    return attachedTo(this.#core.world, network.spec.id).map(({ sandbox }) => sandboxKey(sandbox.id));
  }

  forgetDead(_network: NetworkState): void {}
}
