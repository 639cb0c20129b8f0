/** Finds networks by name, id or id prefix, those of this host and those of the swarm together. */
import { invalid, notFound } from "../../base/errors.ts";
import type { NetworkController, NetworkSpec } from "../../network/types.ts";
import type { SwarmNetworkSource } from "../types.ts";

export class NetworkDirectory {
  readonly #local: NetworkController;
  readonly #swarm: () => SwarmNetworkSource | undefined;

  constructor(local: NetworkController, swarm: () => SwarmNetworkSource | undefined) {
    this.#local = local;
    this.#swarm = swarm;
  }

  /**
   * Each network once. The managers' word on an overlay goes before this node's copy; of other networks of the swarm
   * only the node knows the addresses.
   */
  all(): NetworkSpec[] {
    const byId = new Map<string, NetworkSpec>();
    for (const spec of this.#local.list()) byId.set(spec.id, spec);
    for (const { spec } of this.#swarm()?.list() ?? []) {
      if (spec.driver === "overlay" || !byId.has(spec.id)) byId.set(spec.id, spec);
    }
    return [...byId.values()];
  }

  /** Docker's order: full id, full name, id prefix. A name that two scopes share means the local one. */
  find(ref: string, scope?: string): NetworkSpec | undefined {
    if (ref === "") return undefined;
    const all = this.all().filter((spec) => !scope || spec.scope === scope);
    const byId = all.find((spec) => spec.id === ref);
    if (byId) return byId;
    const named = all.filter((spec) => spec.name === ref);
    if (named.length > 0) return named.find((spec) => spec.scope === "local") ?? named[0];
    const prefixed = all.filter((spec) => spec.id.startsWith(ref));
    if (prefixed.length > 1)
      throw invalid(`network ${ref} is ambiguous (${prefixed.length} matches found based on ID prefix)`);
    // The CLI looks for a service's network in the swarm: bridge and host have an object of their own there.
    return prefixed[0] ?? (scope === "swarm" ? this.#swarm()?.predefined(ref)?.spec : undefined);
  }

  get(ref: string, scope?: string): NetworkSpec {
    const found = this.find(ref, scope);
    if (!found) throw notFound(`network ${ref} not found`);
    return found;
  }
}
