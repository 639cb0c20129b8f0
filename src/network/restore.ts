/** After a start: the state is read back, what is pinned is opened again, what nobody knows is swept. */
import { messageOf } from "../base/errors.ts";
import { parseIp, plainIp } from "./address.ts";
import type { Core } from "./core.ts";
import { hasPools } from "./networks.ts";
import { overlayPin } from "./overlays.ts";
import { overlayKey, type SandboxState, sandboxKey } from "./state.ts";

export class Restore {
  readonly #core: Core;

  constructor(core: Core) {
    this.#core = core;
  }

  /** Reads the state; leases are the addresses of endpoints. */
  load(): void {
    const core = this.#core;
    const pinned = new Set(core.namespaces.pinned());
    for (const network of core.store.networks()) {
      core.networks.set(network.spec.id, network);
      if (hasPools(network.spec)) core.pools.add(network.spec);
      const pin = overlayPin(network.spec.id);
      if (network.spec.driver === "overlay" && pinned.has(pin))
        core.namespaces.ensure(overlayKey(network.spec.id), pin);
    }
    for (const sandbox of core.store.sandboxes()) this.#adopt(sandbox, pinned);
  }

  #adopt(sandbox: SandboxState, pinned: ReadonlySet<string>): void {
    const core = this.#core;
    const file = sandbox.path?.split("/").at(-1);
    if (file && !pinned.has(file)) {
      // The machine was started anew: nothing of it is left but the file.
      core.store.deleteSandbox(sandbox.id);
      return;
    }
    sandbox.endpoints = sandbox.endpoints.filter((endpoint) => core.networks.has(endpoint.networkId));
    core.sandboxes.set(sandbox.id, sandbox);
    if (file) core.namespaces.ensure(sandboxKey(sandbox.id), file);
    for (const endpoint of sandbox.endpoints) {
      const network = core.networks.get(endpoint.networkId);
      if (!network || !hasPools(network.spec)) continue;
      for (const cidr of [endpoint.ipv4, endpoint.ipv6]) {
        const ip = parseIp(plainIp(cidr));
        if (!ip) continue;
        try {
          core.pools.allocate(network.spec, ip.family, endpoint.id, core.clock.steady(), plainIp(cidr));
        } catch (error) {
          // It goes on with what it has; nobody else is given it as long as its first holder lives.
          core.log.error("an address is leased twice", { address: cidr, sandbox: sandbox.id, error: messageOf(error) });
        }
      }
    }
  }

  /** Removes pins that belong to nothing. The directory is ours alone. */
  sweepPins(): void {
    const core = this.#core;
    const known = new Set<string>();
    for (const { path } of core.sandboxes.values()) if (path) known.add(path.split("/").at(-1) ?? "");
    for (const { spec } of core.networks.values()) if (spec.driver === "overlay") known.add(overlayPin(spec.id));
    for (const file of core.namespaces.pinned()) if (!known.has(file)) core.namespaces.unpin(file);
  }
}
