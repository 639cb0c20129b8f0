/**
 * What an endpoint's coming, standing and going means to the rest of the room: the daemon's own servers inside of the
 * sandbox, what the other nodes are told, what this host's names and balancers show. The endpoint itself is
 * `sandboxes.ts`.
 */
import { messageOf } from "../base/errors.ts";
import type { Cluster } from "./cluster.ts";
import type { Core } from "./core.ts";
import type { Following } from "./following.ts";
import type { Names } from "./names.ts";
import type { Neighbours } from "./neighbours.ts";
import type { Proxies } from "./proxies.ts";
import { type Activity, type EndpointState, type SandboxState, sandboxKey } from "./state.ts";

export interface PresenceParts {
  readonly core: Core;
  readonly cluster: Cluster;
  readonly following: Following;
  readonly names: Names;
  readonly neighbours: Neighbours;
  readonly proxies: Proxies;
  /** Throws notFound. */
  readonly sandbox: (id: string) => SandboxState;
  /** The last endpoint of a network may have gone. */
  readonly emptied: (networkId: string) => Promise<void>;
}

export class Presence {
  readonly #parts: PresenceParts;

  constructor(parts: PresenceParts) {
    this.#parts = parts;
  }

  /** What the daemon itself answers inside of a sandbox; before its tables lead there. */
  async serve(sandbox: SandboxState): Promise<void> {
    await this.#parts.names.ensure(sandbox);
    await this.#parts.proxies.ensure(sandbox);
  }

  /** An endpoint is in the kernel. */
  async joined(sandbox: SandboxState, endpoint: EndpointState): Promise<void> {
    const { core, cluster, following, neighbours } = this.#parts;
    if (core.networks.get(endpoint.networkId)?.spec.driver === "overlay") {
      neighbours.follow(endpoint.networkId);
      cluster.publish(sandbox, endpoint);
    }
    if (sandbox.activity === "inactive") return;
    cluster.own.activity(endpoint, sandbox.activity);
    await following.changed(endpoint.networkId, "endpoints");
  }

  /** An endpoint is about to go. */
  leaving(endpoint: EndpointState): void {
    this.#parts.cluster.own.withdraw(endpoint);
  }

  /** An endpoint is gone; what follows is not waited for. */
  left(sandbox: SandboxState, { networkId }: EndpointState): void {
    const { core, emptied, following } = this.#parts;
    const follow = async () => {
      if (sandbox.activity !== "inactive") await following.changed(networkId, "endpoints");
      await emptied(networkId);
    };
    follow().catch((error) =>
      core.log.error("cannot follow the end of an endpoint", { network: networkId, error: messageOf(error) }),
    );
  }

  async sandboxGone({ id }: SandboxState): Promise<void> {
    this.#parts.proxies.stop(id);
    await this.#parts.names.stop(id);
  }

  /** Whether it takes connections; see `NetworkController.setActivity`. */
  setActivity(sandboxId: string, activity: Activity): Promise<void> {
    const { own } = this.#parts.cluster;
    return this.#change(sandboxId, (sandbox) => {
      if (sandbox.activity === activity) return undefined;
      sandbox.activity = activity;
      return (endpoint) => own.activity(endpoint, activity);
    });
  }

  rename(sandboxId: string, name: string): Promise<void> {
    const { own } = this.#parts.cluster;
    return this.#change(sandboxId, (sandbox) => {
      for (const endpoint of sandbox.endpoints) if (endpoint.role === "user") endpoint.name = name;
      return (endpoint) => {
        // Withdrawn and told anew, as by Docker: an update says nothing of the name that is over.
        own.activity(endpoint, "inactive");
        own.activity(endpoint, sandbox.activity);
      };
    });
  }

  /** `change`: changes the state; gives how the others are told of each endpoint, undefined if there is nothing to tell. */
  async #change(
    sandboxId: string,
    change: (sandbox: SandboxState) => ((endpoint: EndpointState) => void) | undefined,
  ): Promise<void> {
    const { core, following } = this.#parts;
    await core.locks.run(sandboxKey(sandboxId), async () => {
      const sandbox = this.#parts.sandbox(sandboxId);
      const tell = change(sandbox);
      if (!tell) return;
      core.store.saveSandbox(sandbox);
      for (const endpoint of sandbox.endpoints) tell(endpoint);
      for (const { networkId } of sandbox.endpoints) await following.changed(networkId, "endpoints");
    });
  }
}
