/**
 * The state and the one way from it to the kernel: `settle` computes the plans of the named namespaces and
 * reconciles them. Everything that changes the state ends there.
 */
import { Emitter, KeyedMutex } from "../base/async.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { readFileIfAny } from "../base/file.ts";
import type { Logger } from "../base/log.ts";
import { parseResolvConf, type ResolvConf } from "./files.ts";
import { Pools } from "./ipam/pools.ts";
import { planHost } from "./plan/host.ts";
import { legOf, legOnSwitchName } from "./plan/leg.ts";
import { planOverlay, type RemotePeer } from "./plan/overlay.ts";
import { planSandbox, type SandboxExtras } from "./plan/sandbox.ts";
import type { PlannedTable } from "./plan/table.ts";
import type { NamespaceKey, NamespacePlan } from "./plan/types.ts";
import type { World } from "./plan/world.ts";
import { describe, type Step } from "./reconcile/diff.ts";
import { Namespaces } from "./reconcile/namespaces.ts";
import { type Comparison, Reconciler } from "./reconcile/reconciler.ts";
import type { Depth } from "./reconcile/snapshot.ts";
import { type NetworkState, overlayKey, type SandboxState } from "./state.ts";
import { Store } from "./store.ts";
import type { ClusterNetworking, NetworkControllerOptions, NetworkEvent } from "./types.ts";

const ethernetMtu = 1500;
/** How long the kernel is given to take a namespace apart. */
const laterMs = 500;

/** What resolver, balancer and gossip contribute to plans. Set by the controller when it puts the parts together. */
export interface Contributions {
  remotePeers(networkId: string): readonly RemotePeer[];
  sandboxExtras(sandbox: SandboxState): SandboxExtras;
  hostTables(): readonly PlannedTable[];
  hostSysctls(): Record<string, string>;
}

export class Core {
  readonly options: NetworkControllerOptions;
  readonly log: Logger;
  readonly clock: Clock;
  readonly store: Store;
  readonly namespaces: Namespaces;
  readonly events: Emitter<NetworkEvent>;
  readonly networks = new Map<string, NetworkState>();
  readonly sandboxes = new Map<string, SandboxState>();
  readonly pools = new Pools();
  /** Changes of one sandbox, or of one network, one after another. */
  readonly locks = new KeyedMutex();
  cluster: ClusterNetworking | undefined;
  /** Of the device with the data path address, at most that of Ethernet: hosts with smaller devices are not alone. */
  deviceMtu = ethernetMtu;
  /** See `World.pathMtu`. */
  pathMtu = ethernetMtu;
  contributions: Contributions = {
    remotePeers: () => [],
    sandboxExtras: () => ({ tables: [] }),
    hostTables: () => [],
    hostSysctls: () => ({}),
  };
  readonly #reconciler: Reconciler;
  /** The leg could not be made: the host and its other networks must not wait for it. */
  #legless = false;
  readonly #later = new Set<NamespaceKey>();
  #cancelLater: (() => void) | undefined;

  constructor(options: NetworkControllerOptions) {
    this.options = options;
    this.log = options.log;
    this.clock = options.clock ?? systemClock;
    this.store = new Store(options.stateDir, options.log);
    this.namespaces = new Namespaces(options.netnsDir);
    this.events = new Emitter((error) => options.log.error("a listener of network events failed", { error }));
    this.#reconciler = new Reconciler(this.namespaces, options.log);
  }

  get world(): World {
    const { networks, sandboxes, cluster, pathMtu } = this;
    const { meshRouting } = this.options;
    const legless = this.#legless || !this.#hasIngress();
    return { networks, sandboxes, cluster, pathMtu, legless, ...(meshRouting !== undefined && { meshRouting }) };
  }

  /** The switch that the host's leg would lead to is there. */
  #hasIngress(): boolean {
    for (const { spec } of this.networks.values())
      if (spec.ingress) return this.namespaces.find(overlayKey(spec.id)) !== undefined;
    return false;
  }

  /** The host's leg is tried again. */
  retryLeg(): void {
    this.#legless = false;
  }

  planOf(key: NamespaceKey): NamespacePlan | undefined {
    if (key === "host") {
      return planHost(this.world, this.contributions.hostTables(), this.contributions.hostSysctls());
    }
    const slash = key.indexOf("/");
    const id = key.slice(slash + 1);
    if (key.startsWith("overlay/")) {
      const network = this.networks.get(id);
      return network && planOverlay(this.world, network, this.contributions.remotePeers(id));
    }
    const sandbox = this.sandboxes.get(id);
    return sandbox?.path ? planSandbox(this.world, sandbox, this.contributions.sandboxExtras(sandbox)) : undefined;
  }

  /** Reconciles these namespaces: those that make devices first. Gives what was done, as text by namespace. */
  async settle(keys: Iterable<NamespaceKey>, depth: Depth = "quick"): Promise<Map<NamespaceKey, string[]>> {
    const done = new Map<NamespaceKey, string[]>();
    const note = (key: NamespaceKey, steps: readonly Step[]) => {
      if (steps.length > 0) done.set(key, [...(done.get(key) ?? []), ...steps.map(describe)]);
    };
    const ordered = [...new Set(keys)].sort((a, b) => rank(a) - rank(b));
    for (const key of ordered) {
      let steps = await this.#run(key, depth);
      note(key, steps);
      const plan = steps.some((step) => step.do === "await inner") ? this.planOf(key) : undefined;
      if (!plan) continue;
      for (const outer of this.#reconciler.markBroken(plan, steps)) note(outer, await this.#run(outer, "quick"));
      steps = await this.#run(key, depth);
      note(key, steps);
      const lost = steps.filter((step) => step.do === "await inner").map(describe);
      if (lost.length === 0) continue;
      if (key !== "host") throw new Error(`${key}: ${lost.join(", ")}`);
      this.#withoutLeg(lost.join(", "));
      note(key, await this.#run(key, depth));
    }
    return done;
  }

  /** What `settle` would do in a namespace now; nothing is done. */
  compare(key: NamespaceKey): Promise<Comparison | undefined> {
    return this.#reconciler.compare(key, () => this.planOf(key));
  }

  /** The outer half of a pair whose inner half's namespace has just ended: the kernel is given a while to remove it. */
  letGo(key: NamespaceKey, link: string): void {
    this.#later.add(key);
    this.#reconciler.letGo(key, link);
    this.#cancelLater ??= this.clock.after(laterMs, () => {
      this.sweep().catch((error) => this.log.error("cannot sweep leftovers", { error: messageOf(error) }));
    });
  }

  /** Ends the namespace of an overlay network; `file` is its pin. */
  endOverlay(key: NamespaceKey, file: string): Promise<void> {
    return this.#reconciler.end(key, async ({ rtnl }) => {
      // A namespace ends some time after its last user; until then its tunnel would keep the network's number busy.
      // The host's leg would stay under the name that the next ingress network's leg wants.
      for (const link of rtnl.links()) {
        if (link.kind === "vxlan" || link.name === legOnSwitchName) await rtnl.delLink(link.index);
      }
      this.namespaces.destroy(key, file);
    });
  }

  /** Does now what was put off. */
  async sweep(): Promise<void> {
    this.#cancelLater?.();
    this.#cancelLater = undefined;
    const due = [...this.#later];
    this.#later.clear();
    for (const key of due) this.#reconciler.expect(key);
    await this.settle(due);
  }

  close(): void {
    this.#cancelLater?.();
    this.namespaces[Symbol.dispose]();
  }

  async #run(key: NamespaceKey, depth: Depth): Promise<Step[]> {
    const run = () => this.#reconciler.run(key, () => this.planOf(key), depth);
    try {
      return await run();
    } catch (error) {
      // The leg may be what was in the way; all else is tried without it.
      if (!key.startsWith("overlay/") || !legOf(this.world)) throw error;
      this.#withoutLeg(messageOf(error));
      return run();
    }
  }

  #withoutLeg(error: string): void {
    this.#legless = true;
    this.log.error("the host's leg in the ingress network cannot be had: the mesh goes through ingress_sbox", {
      error,
    });
  }

  /** Looks where the data path leads now. `measured`: what the paths to the other hosts allow. */
  measurePath(measured = Number.POSITIVE_INFINITY): void {
    const { rtnl } = this.namespaces.host;
    const address = this.cluster?.dataPathAddress;
    const on = rtnl.addrs().find((addr) => addr.address === address);
    const mtu = on && rtnl.link(on.link)?.mtu;
    this.deviceMtu = Math.min(ethernetMtu, mtu ?? ethernetMtu);
    this.pathMtu = Math.min(this.deviceMtu, measured);
  }

  hostResolvConf(): ResolvConf {
    return parseResolvConf(readFileIfAny(this.options.resolvConf ?? "/etc/resolv.conf") ?? "");
  }
}

const rank = (key: NamespaceKey): number => (key === "host" ? 0 : key.startsWith("overlay/") ? 1 : 2);
