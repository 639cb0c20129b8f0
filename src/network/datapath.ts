/** What resolver and balancer contribute to plans. */
import type { Cluster } from "./cluster.ts";
import type { Core } from "./core.ts";
import type { Names } from "./names.ts";
import type { SandboxExtras } from "./plan/sandbox.ts";
import type { PlannedTable } from "./plan/table.ts";
import type { NamespaceKey } from "./plan/types.ts";
import { attachedTo } from "./plan/world.ts";
import { resolverTable } from "./resolver/table.ts";
import { type NetworkState, type SandboxState, sandboxKey } from "./state.ts";

export class Datapath {
  readonly #core: Core;
  readonly #names: Names;

  constructor(core: Core, _cluster: Cluster, names: Names) {
    this.#core = core;
    this.#names = names;
  }

  sandboxExtras(sandbox: SandboxState): SandboxExtras {
    const resolver = this.#names.resolver(sandbox.id);
    return { tables: resolver ? [resolverTable(resolver.ports)] : [] };
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
