/**
 * The network room put together behind its door. Start reading here: every call changes the state in `Core`,
 * then settles the namespaces that it concerns; gossip and the 30-second pass end in the same place.
 */
import { Mutex } from "../base/async.ts";
import { messageOf, notFound } from "../base/errors.ts";
import { echo } from "../kernel/echo.ts";
import { hasFeature } from "../kernel/feature.ts";
import { tcpSockets } from "../kernel/sockdiag.ts";
import { readSysctl } from "../kernel/sysctl.ts";
import { plainIp } from "./address.ts";
import { Announcements } from "./announce.ts";
import { reachOf } from "./balance.ts";
import { isUserChainWhole, relayedScript, userChainScript } from "./balancer/user.ts";
import { Cluster } from "./cluster.ts";
import { ConnectionTables, type TableUse, tablesOf } from "./connection-tables.ts";
import { busyConnections, isListening } from "./connections.ts";
import { Core } from "./core.ts";
import { Datapath } from "./datapath.ts";
import { verboseOf } from "./discovery.ts";
import { Drift, lookMs } from "./drift.ts";
import { isTooLarge } from "./drivers/overlay.ts";
import { hostsFile, resolvConf } from "./files.ts";
import { HostLiveness } from "./liveness.ts";
import { Names } from "./names.ts";
import { Neighbours } from "./neighbours.ts";
import { Networks } from "./networks.ts";
import type { Changed } from "./overlay/tables.ts";
import { Overlays } from "./overlays.ts";
import { type Path, Paths } from "./paths.ts";
import { explain } from "./plan/explain.ts";
import { neighbourSysctls } from "./plan/host.ts";
import type { NamespaceKey } from "./plan/types.ts";
import { attachedTo, gatewayOf } from "./plan/world.ts";
import { HostPorts } from "./ports.ts";
import { Proxies } from "./proxies.ts";
import type { Depth } from "./reconcile/reconciler.ts";
import { Repairs } from "./repairs.ts";
import { Restore } from "./restore.ts";
import { Sandboxes } from "./sandboxes.ts";
import { type EndpointState, ingressSandboxId, overlayKey, type SandboxState, sandboxKey } from "./state.ts";
import type {
  ClusterNetworking,
  DriverName,
  Endpoint,
  EndpointRequest,
  ListedEndpoint,
  NetworkController,
  NetworkControllerOptions,
  NetworkSpec,
  PublishedPort,
  Sandbox,
  SandboxRequest,
  VerboseService,
} from "./types.ts";

import { View } from "./view/view.ts";

/** How often every namespace is compared with its plan. */
const passMs = 30_000;

export async function createNetworkController(options: NetworkControllerOptions): Promise<NetworkController> {
  const core = new Core(options);
  const controller = new Controller(core);
  await controller.load();
  return controller;
}

class Controller implements NetworkController {
  readonly events: NetworkController["events"];
  readonly view: NetworkController["view"];
  readonly #core: Core;
  readonly #networks: Networks;
  readonly #sandboxes: Sandboxes;
  readonly #cluster: Cluster;
  readonly #overlays: Overlays;
  readonly #names: Names;
  readonly #neighbours: Neighbours;
  readonly #tables: ConnectionTables;
  readonly #datapath: Datapath;
  readonly #proxies: Proxies;
  readonly #paths: Paths;
  readonly #ports: HostPorts;
  readonly #passes = new Mutex();
  readonly #cancelPass: () => void;
  readonly #cancelLook: () => void;
  /** What was there before the daemon was compared once; only from then on is a difference somebody's doing. */
  #restored = false;
  readonly #repairs = new Repairs();
  /** Changes by network that wait for their turn. */
  readonly #announcements: Announcements;
  readonly #liveness = new HostLiveness(() => this.#cluster.gossip);
  /** Endpoints of other nodes that the kernel's tables here send connections to, by network. */
  readonly #serving = new Map<string, ReadonlySet<string>>();
  readonly #following = new Map<string, { changed: Set<Changed>; done: Promise<void> }>();

  constructor(core: Core) {
    this.#core = core;
    this.events = core.events;
    this.#ports = new HostPorts({
      reach: (owner) => ({
        ...reachOf(core.world, owner),
        ...(!core.sandboxes.has(owner) && {
          connect: (port, client) => this.#proxies.connect(this.#datapath.meshPort(port), client),
        }),
      }),
      relaying: (ports) => core.namespaces.host.nft.run(relayedScript(ports)),
      log: core.log,
    });
    this.#networks = new Networks(core);
    this.#neighbours = new Neighbours(core);
    this.#tables = new ConnectionTables({ clock: core.clock, log: core.log, read: () => tablesOf(core) });
    const failed = (error: unknown) =>
      core.log.error("cannot follow a change of the network", { error: messageOf(error) });
    this.#cluster = new Cluster(
      core,
      (networkId, changed) => void this.#refresh(networkId, changed).catch(failed),
      () => void core.settle(this.#datapath.tunnelsChanged() ? ["host"] : [], "tables").catch(failed),
    );
    this.#names = new Names(core, (networkId) => this.#cluster.participants(networkId));
    this.#proxies = new Proxies(core);
    this.#datapath = new Datapath(core, this.#cluster, this.#names, this.#ports, this.#proxies);
    this.#sandboxes = new Sandboxes(core, this.#ports, {
      prepareOverlay: (network) => this.#overlays.ensure(network),
      gatewayBridge: () => this.#networks.ensureGatewayBridge(),
      joining: (sandbox) => this.#serve(sandbox),
      joined: (sandbox, endpoint) => this.#joined(sandbox, endpoint),
      leaving: (_sandbox, endpoint) => this.#cluster.own.withdraw(endpoint),
      left: (sandbox, endpoint) => this.#left(sandbox, endpoint),
      sandboxGone: (sandbox) => {
        this.#proxies.stop(sandbox.id);
        return this.#names.stop(sandbox.id);
      },
    });
    this.#paths = new Paths({
      clock: core.clock,
      log: core.log,
      deviceMtu: () => core.deviceMtu,
      echo: (to, size, timeoutMs) =>
        echo({ from: core.cluster?.dataPathAddress ?? "", to, size, timeoutMs, clock: core.clock }),
      changed: (path) => this.#pathChanged(path, failed),
    });
    this.#overlays = new Overlays(core, this.#networks, this.#sandboxes, this.#cluster);
    this.view = new View({
      core,
      cluster: this.#cluster,
      datapath: this.#datapath,
      paths: this.#paths,
      repairs: this.#repairs,
      names: this.#names,
    });
    this.#announcements = new Announcements({
      clock: core.clock,
      log: core.log,
      gossip: () => this.#cluster.gossip,
      isOurs: (peer) => this.#cluster.doors().has(peer),
      standing: (networkId, endpointId) => {
        if (!core.networks.has(networkId)) return "withdrawn";
        const serving = this.#serving.get(networkId);
        if (!serving) return undefined;
        return serving.has(endpointId) ? "serving" : "withdrawn";
      },
    });
    core.events.on((event) => {
      if (event.kind !== "destroy") return;
      this.#serving.delete(event.network.id);
      this.#names.changed(event.network.id);
      this.#datapath.forget(event.network.id);
      this.#neighbours.forget(event.network.id);
    });
    const sysctls = neighbourSysctls((key) => {
      try {
        return Number(readSysctl(key));
      } catch {
        // Only the initial namespace has them.
        return undefined;
      }
    });
    core.contributions = {
      remotePeers: (networkId) => this.#cluster.remotePeers(networkId),
      sandboxExtras: (sandbox) => this.#datapath.sandboxExtras(sandbox),
      hostTables: () => this.#datapath.hostTables(),
      hostSysctls: () => ({ ...sysctls, ...this.#datapath.hostSysctls() }),
    };
    const drift = new Drift(core, (key, depth) =>
      this.#passes.run(() => this.#mend(key, depth, "drift").then(() => {})),
    );
    this.#cancelLook = core.clock.every(lookMs, () => {
      if (!this.#restored) return;
      this.#repin("drift", "pins");
      void drift.look().catch((error) => core.log.error("cannot look for drift", { error: messageOf(error) }));
    });
    this.#cancelPass = core.clock.every(passMs, () => {
      void this.reconcile().catch((error) =>
        core.log.error("the reconciling pass failed", { error: messageOf(error) }),
      );
    });
  }

  async load(): Promise<void> {
    new Restore(this.#core).load();
    this.#cluster.restore();
    await this.#networks.ensureDefaults();
    this.#ensureUserChain();
  }

  drivers(): DriverName[] {
    const found: DriverName[] = ["bridge", "host"];
    if (hasFeature("ipvlan")) found.push("ipvlan");
    if (hasFeature("macvlan")) found.push("macvlan");
    found.push("null");
    if (hasFeature("vxlan")) found.push("overlay");
    return found;
  }

  async create(spec: NetworkSpec, options: { lbAddress?: string } = {}): Promise<NetworkSpec> {
    if (spec.scope === "local") return (await this.#networks.createLocal(spec)).spec;
    const state = await this.#networks.createSwarm(spec, options.lbAddress);
    if (spec.driver === "overlay") await this.#overlays.bringUp(state, options.lbAddress);
    return state.spec;
  }

  async remove(id: string): Promise<void> {
    const state = this.#core.networks.get(id);
    if (!state) throw notFound(`network ${id} not found`);
    this.#networks.checkRemovable(state);
    if (state.spec.driver === "overlay") await this.#overlays.tearDown(state);
    await this.#networks.remove(state);
  }

  get(id: string): NetworkSpec | undefined {
    return this.#core.networks.get(id)?.spec;
  }

  list(): NetworkSpec[] {
    return [...this.#core.networks.values()].map((network) => network.spec);
  }

  endpoints(networkId: string): ListedEndpoint[] {
    const name = this.#core.networks.get(networkId)?.spec.name ?? "";
    return attachedTo(this.#core.world, networkId).map(({ sandbox, endpoint }) => ({
      key: sandbox.kind === "container" ? sandbox.id : sandbox.kind === "ingress" ? ingressSandboxId : `lb-${name}`,
      name: endpoint.name,
      endpointId: endpoint.id,
      mac: endpoint.mac,
      ipv4: endpoint.ipv4,
      ipv6: endpoint.ipv6,
    }));
  }

  peers(networkId: string): { name: string; address: string }[] {
    return this.#cluster.peers(networkId);
  }

  services(networkId: string): VerboseService[] {
    return verboseOf(this.#cluster.participants(networkId));
  }

  async createSandbox(request: SandboxRequest): Promise<Sandbox> {
    const file = request.mode === "private" ? request.id.slice(0, 12) : undefined;
    const sandbox = await this.#sandboxes.create(request, "container", file);
    return { id: sandbox.id, path: sandbox.path };
  }

  removeSandbox(id: string): Promise<void> {
    return this.#sandboxes.remove(id);
  }

  sandbox(id: string): Sandbox | undefined {
    const sandbox = this.#core.sandboxes.get(id);
    return sandbox && { id, path: sandbox.path };
  }

  async connect(sandboxId: string, request: EndpointRequest): Promise<Endpoint> {
    const endpoint = await this.#sandboxes.connect(sandboxId, request);
    return this.#sandboxes.shown(this.#sandboxes.get(sandboxId), endpoint);
  }

  disconnect(sandboxId: string, networkId: string): Promise<void> {
    return this.#sandboxes.disconnect(sandboxId, networkId);
  }

  sandboxEndpoints(sandboxId: string): Endpoint[] {
    const sandbox = this.#core.sandboxes.get(sandboxId);
    if (!sandbox) return [];
    return sandbox.endpoints
      .filter((endpoint) => endpoint.role === "user")
      .map((endpoint) => this.#sandboxes.shown(sandbox, endpoint));
  }

  publishedPorts(sandboxId: string): PublishedPort[] {
    return [...(this.#core.sandboxes.get(sandboxId)?.ports ?? [])];
  }

  files(sandboxId: string): { hosts: string; resolvConf: string } {
    const core = this.#core;
    const { request, endpoints } = this.#sandboxes.get(sandboxId);
    const shown = endpoints.filter(
      ({ networkId, role }) => role === "user" && !core.networks.get(networkId)?.spec.ingress,
    );
    const bridge = [...core.networks.values()].find((n) => n.spec.name === "bridge");
    const devices = endpoints.some((endpoint) => endpoint.ifName !== "");
    const kind = this.#names.wants(this.#sandboxes.get(sandboxId)) ? "embedded" : devices ? "direct" : "host";
    return {
      hosts: hostsFile({
        hostname: request.hostname,
        domainname: request.domainname,
        addresses: shown.flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6].filter(Boolean).map(plainIp)),
        extraHosts: request.extraHosts,
        hostGateway: bridge ? gatewayOf(bridge, 4) : "",
      }),
      resolvConf: resolvConf(kind, request.dns, core.hostResolvConf()),
    };
  }

  async renameEndpoints(sandboxId: string, name: string): Promise<void> {
    const core = this.#core;
    await core.locks.run(sandboxKey(sandboxId), async () => {
      const sandbox = this.#sandboxes.get(sandboxId);
      for (const endpoint of sandbox.endpoints) {
        if (endpoint.role === "user") endpoint.name = name;
      }
      core.store.saveSandbox(sandbox);
      for (const { networkId } of sandbox.endpoints) await this.#refresh(networkId, new Set(["endpoints"]));
    });
  }

  async setActivity(sandboxId: string, activity: SandboxState["activity"]): Promise<void> {
    const core = this.#core;
    await core.locks.run(sandboxKey(sandboxId), async () => {
      const sandbox = this.#sandboxes.get(sandboxId);
      if (sandbox.activity === activity) return;
      sandbox.activity = activity;
      core.store.saveSandbox(sandbox);
      for (const endpoint of sandbox.endpoints) this.#cluster.own.activity(endpoint, activity);
      for (const { networkId } of sandbox.endpoints) await this.#refresh(networkId, new Set(["endpoints"]));
    });
  }

  async told(sandboxId: string, signal?: AbortSignal): Promise<string[]> {
    const core = this.#core;
    const sandbox = this.#sandboxes.get(sandboxId);
    const wanted = sandbox.activity === "active" ? "serving" : "withdrawn";
    const overlays = sandbox.endpoints.filter(
      ({ role, networkId }) => role === "user" && core.networks.get(networkId)?.spec.driver === "overlay",
    );
    const silent = await Promise.all(
      overlays.map(({ networkId, id }) => this.#announcements.told(networkId, id, wanted, signal)),
    );
    return [...new Set(silent.flat())];
  }

  isListening(sandboxId: string, ports: readonly number[]): boolean {
    return isListening(this.#tcpSockets(sandboxId), ports);
  }

  busyConnections(sandboxId: string): number {
    return busyConnections(this.#tcpSockets(sandboxId));
  }

  #tcpSockets(sandboxId: string) {
    const ns = this.#core.namespaces.find(sandboxKey(sandboxId))?.ns;
    return ns ? tcpSockets(ns) : [];
  }

  async restore(alive: ReadonlySet<string>): Promise<void> {
    const restore = new Restore(this.#core);
    for (const sandbox of [...this.#core.sandboxes.values()]) {
      if (sandbox.kind === "container" && !alive.has(sandbox.id)) await this.#sandboxes.remove(sandbox.id);
      else this.#ports.adopt(sandbox.id, sandbox.ports);
    }
    restore.sweepPins();
    await Promise.all([...this.#core.sandboxes.values()].map((sandbox) => this.#serve(sandbox)));
    for (const network of this.#core.networks.values()) if (network.spec.ingress) this.#datapath.changed(network);
    await this.#pass("restored");
  }

  async startCluster(cluster: ClusterNetworking): Promise<void> {
    await this.#networks.ensureGatewayBridge();
    await this.#cluster.start(cluster);
    this.#gossipMayRun();
    await this.#overlays.bringUpAll();
  }

  async setKeys(keys: Parameters<NetworkController["setKeys"]>[0]): Promise<void> {
    // keys.ipsec waits for encrypted networks, which are refused until then.
    await this.#cluster.setKeys(keys.gossip);
    this.#gossipMayRun();
  }

  #gossipMayRun(): void {
    this.#announcements.attach();
    this.#liveness.attach();
  }

  setManagers(hosts: string[]): void {
    this.#cluster.setManagers(hosts);
  }

  isSilent(host: string): boolean | undefined {
    return this.#liveness.isSilent(host);
  }

  setLoadBalancers(addresses: ReadonlyMap<string, string>): Promise<void> {
    return this.#overlays.setLoadBalancers(addresses);
  }

  /** docker_gwbridge stays, as it does with Docker. */
  async stopCluster(): Promise<void> {
    await this.#overlays.tearDownAll();
    await this.#networks.sweepUnused(true);
    await this.#cluster.stop();
  }

  reconcile(): Promise<string[]> {
    return this.#passes.run(() => this.#pass("drift"));
  }

  explain(options?: { tables: boolean }): { namespace: string; text: string }[] {
    return this.#core.namespaces.keys().flatMap((key) => {
      const plan = this.#core.planOf(key);
      return plan ? [{ namespace: key, text: explain(plan, options) }] : [];
    });
  }

  /** What a pass after a start finds is no drift: it was never there, or the daemon was away. */
  async #pass(reason: "restored" | "drift"): Promise<string[]> {
    const core = this.#core;
    await core.sweep();
    this.#ensureUserChain();
    for (const networkId of this.#cluster.resync()) {
      const network = core.networks.get(networkId);
      this.#names.changed(networkId);
      if (network) this.#datapath.changed(network);
    }
    await this.#networks.sweepUnused();
    this.#datapath.reserve();
    await this.#followPaths();
    const mended = this.#repin(reason, "all");
    // Nothing is known to be loaded yet, so all tables are: a listing would only delay it.
    const depth = reason === "drift" ? "pass" : "quick";
    for (const key of core.namespaces.keys()) mended.push(...(await this.#mend(key, depth, reason)));
    for (const { spec } of core.networks.values())
      if (spec.driver === "overlay") this.#neighbours.follow(spec.id, true);
    this.#restored = true;
    return mended;
  }

  #ensureUserChain(): void {
    const { nft } = this.#core.namespaces.host;
    if (!isUserChainWhole(nft.list("table inet operator"))) nft.run(userChainScript(this.#ports.relayed()));
  }

  /** Looks which hosts there are, and what its own device and the paths to them take. */
  async #followPaths(): Promise<void> {
    const core = this.#core;
    if (!core.cluster) return;
    const before = core.pathMtu;
    core.measurePath(this.#paths.smallest());
    this.#paths.follow(this.#cluster.hosts());
    // Another device is no drift.
    if (core.pathMtu !== before) await core.settle(core.namespaces.keys());
  }

  /** Overlay networks take what fits between all hosts; those whose size the user chose are only warned about. */
  #pathChanged({ host, mtu }: Path, failed: (error: unknown) => void): void {
    const core = this.#core;
    const before = core.pathMtu;
    core.measurePath(this.#paths.smallest());
    if (mtu !== undefined && mtu < core.deviceMtu) {
      core.events.emit({ kind: "path", host, mtu, expected: core.deviceMtu });
    }
    if (core.pathMtu === before) return;
    for (const { spec } of core.networks.values()) {
      if (spec.driver !== "overlay" || !isTooLarge(spec, core)) continue;
      core.log.warn("a network's packets are larger than the path takes", { network: spec.name, mtu: core.pathMtu });
    }
    core.log.info("what fits between the hosts changed", { from: before, to: core.pathMtu });
    void core.settle(core.namespaces.keys()).catch(failed);
  }

  paths(): { host: string; mtu: number | undefined; expected: number }[] {
    return this.#paths.list().map((path) => ({ ...path, expected: this.#core.deviceMtu }));
  }

  fullConnectionTables(): TableUse[] {
    return this.#tables.full();
  }

  /** Pins of namespaces that somebody removed. */
  #repin(reason: "restored" | "drift", which: "pins" | "all"): string[] {
    const mended = this.#overlays.repin(which);
    if (reason === "drift") for (const [namespace, difference] of mended) this.#tell(namespace, [difference]);
    return mended.map(([namespace, difference]) => `${namespace}: ${difference}`);
  }

  async #mend(key: NamespaceKey, depth: Depth, reason: "restored" | "drift"): Promise<string[]> {
    const { core, mended } = { core: this.#core, mended: [] as string[] };
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
    const repairs = this.#repairs;
    repairs.add(namespace, differences, this.#core.clock.now());
    const text = differences.join("; ");
    this.#core.log.warn("mended drift", { namespace, differences: text, repairs: repairs.counts() });
    this.#core.events.emit({ kind: "drift", namespace, differences, total: repairs.total });
  }

  /** What the daemon itself answers inside of a sandbox; before its tables lead there. */
  async #serve(sandbox: SandboxState): Promise<void> {
    await this.#names.ensure(sandbox);
    await this.#proxies.ensure(sandbox);
  }

  async #joined(sandbox: SandboxState, endpoint: EndpointState): Promise<void> {
    if (this.#core.networks.get(endpoint.networkId)?.spec.driver === "overlay") {
      this.#neighbours.follow(endpoint.networkId);
      this.#cluster.publish(sandbox, endpoint);
    }
    if (sandbox.activity === "inactive") return;
    this.#cluster.own.activity(endpoint, sandbox.activity);
    await this.#refresh(endpoint.networkId, new Set(["endpoints"]));
  }

  #left(sandbox: SandboxState, endpoint: EndpointState): void {
    const { networkId } = endpoint;
    const follow = async () => {
      if (sandbox.activity !== "inactive") await this.#refresh(networkId, new Set(["endpoints"]));
      await this.#overlays.removeIfVanished(networkId);
    };
    follow().catch((error) =>
      this.#core.log.error("cannot follow the end of an endpoint", { network: networkId, error: messageOf(error) }),
    );
  }

  /**
   * Names, backends or peers of a network changed: everything that shows them follows. Changes that come while an
   * earlier one is being followed are followed together; the promise is for a state that includes the caller's.
   */
  #refresh(networkId: string, changed: ReadonlySet<Changed>): Promise<void> {
    let next = this.#following.get(networkId);
    if (!next) {
      const all = new Set<Changed>();
      const done = this.#core.locks.run(`follow ${networkId}`, () => {
        this.#following.delete(networkId);
        return this.#follow(networkId, all);
      });
      next = { changed: all, done };
      this.#following.set(networkId, next);
    }
    for (const one of changed) next.changed.add(one);
    return next.done;
  }

  async #follow(networkId: string, changed: ReadonlySet<Changed>): Promise<void> {
    const core = this.#core;
    const network = core.networks.get(networkId);
    if (!network) return;
    if (changed.has("peers")) {
      await this.#followPaths();
      const keys: NamespaceKey[] = [overlayKey(networkId)];
      await core.settle(this.#datapath.tunnelsChanged() ? [...keys, "host"] : keys);
      this.#neighbours.follow(networkId);
    }
    if (!changed.has("endpoints")) return;
    this.#names.changed(networkId);
    this.#datapath.changed(network);
    const serving = this.#cluster.participants(networkId).filter(({ local, draining }) => !local && !draining);
    await core.settle(this.#datapath.affected(network), "tables");
    this.#serving.set(networkId, new Set(serving.map(({ endpointId }) => endpointId)));
    this.#announcements.applied(networkId);
    this.#datapath.forgetDead(network);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cancelPass();
    this.#cancelLook();
    this.#tables[Symbol.dispose]();
    this.#ports.close();
    this.#paths.close();
    this.#datapath.close();
    this.#proxies.close();
    await this.#cluster.close();
    await this.#names.close();
    this.#core.close();
  }
}
