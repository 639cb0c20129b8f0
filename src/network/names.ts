/** The embedded DNS of each sandbox: which sandboxes have one, what it sees, where it forwards to. */
import type { Core } from "./core.ts";
import { namesOf } from "./discovery.ts";
import type { Participant } from "./overlay/records.ts";
import type { NameNetwork, Resolver } from "./resolver/types.ts";
import type { SandboxState } from "./state.ts";

export class Names {
  readonly #core: Core;
  readonly #participants: (networkId: string) => readonly Participant[];
  readonly #cache = new Map<string, NameNetwork>();
  readonly #resolvers = new Map<string, Resolver>();

  constructor(core: Core, participants: (networkId: string) => readonly Participant[]) {
    this.#core = core;
    this.#participants = participants;
  }

  changed(networkId: string): void {
    this.#cache.delete(networkId);
  }

  forget(networkId: string): void {
    this.#cache.delete(networkId);
  }

  /** Containers on a network of the user's own have a resolver; on the default bridge names do not resolve. */
  wants(sandbox: SandboxState): boolean {
    return (
      sandbox.kind === "container" &&
      sandbox.endpoints.some(({ networkId, role, ifName }) => {
        const spec = this.#core.networks.get(networkId)?.spec;
        return role === "user" && ifName !== "" && spec !== undefined && spec.name !== "bridge" && !spec.ingress;
      })
    );
  }

  network(networkId: string): NameNetwork | undefined {
    const spec = this.#core.networks.get(networkId)?.spec;
    if (!spec) return undefined;
    const known = this.#cache.get(networkId) ?? namesOf(spec, this.#participants(networkId));
    this.#cache.set(networkId, known);
    return known;
  }

  async ensure(_sandbox: SandboxState): Promise<void> {}

  resolver(sandboxId: string): Resolver | undefined {
    return this.#resolvers.get(sandboxId);
  }

  async stop(sandboxId: string): Promise<void> {
    const resolver = this.#resolvers.get(sandboxId);
    this.#resolvers.delete(sandboxId);
    await resolver?.[Symbol.asyncDispose]();
  }

  async close(): Promise<void> {
    for (const id of [...this.#resolvers.keys()]) await this.stop(id);
  }
}
