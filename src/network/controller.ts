/**
 * The network room put together behind its door. Start reading here: every call changes the state in `Core`, then
 * settles the namespaces that it concerns; what gossip tells (`following.ts`) and the 30-second pass (`upkeep.ts`) end in
 * the same place.
 */
import { messageOf, notFound } from "../base/errors.ts";
import { hasFeature } from "../kernel/feature.ts";
import { tcpSockets } from "../kernel/sockdiag.ts";
import { readSysctl } from "../kernel/sysctl.ts";
import { Announcements } from "./announce.ts";
import { reachOf } from "./balance.ts";
import { isUserChainWhole, relayedScript, userChainScript } from "./balancer/user.ts";
import { Cluster } from "./cluster.ts";
import { ConnectionTables, type FullTable, tablesOf } from "./connection-tables.ts";
import { busyConnections, isListening } from "./connections.ts";
import { Core } from "./core.ts";
import { Datapath } from "./datapath.ts";
import { verboseOf } from "./discovery.ts";
import { Following } from "./following.ts";
import { HostLiveness } from "./liveness.ts";
import { Names } from "./names.ts";
import { Neighbours } from "./neighbours.ts";
import { Networks } from "./networks.ts";
import { Overlays } from "./overlays.ts";
import { PathMtu } from "./path-mtu.ts";
import { explain } from "./plan/explain.ts";
import { neighbourSysctls } from "./plan/host.ts";
import { attachedTo } from "./plan/world.ts";
import { HostPorts } from "./ports.ts";
import { Presence } from "./presence.ts";
import { Proxies } from "./proxies.ts";
import { Repairs } from "./repairs.ts";
import { Restore } from "./restore.ts";
import { Sandboxes } from "./sandboxes.ts";
import { type Activity, ingressSandboxId, sandboxKey } from "./state.ts";
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
import { Upkeep } from "./upkeep.ts";
import { View } from "./view/view.ts";

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
  readonly #following: Following;
  readonly #presence: Presence;
  readonly #upkeep: Upkeep;
  readonly #tables: ConnectionTables;
  readonly #datapath: Datapath;
  readonly #proxies: Proxies;
  readonly #pathMtu: PathMtu;
  readonly #ports: HostPorts;
  readonly #announcements: Announcements;
  readonly #liveness = new HostLiveness(() => this.#cluster.gossip);

  constructor(core: Core) {
    this.#core = core;
    this.events = core.events;
    this.#ports = new HostPorts({
      reach: (owner) => ({
        ...reachOf(core.world, owner),
        ...(!core.sandboxes.has(owner) && {
          routeOf: (port, client, at) => this.#proxies.routeOf(this.#datapath.meshPort(port), client, at),
        }),
      }),
      relaying: (ports) => core.namespaces.host.nft.run(relayedScript(ports)),
      log: core.log,
    });
    this.#networks = new Networks(core);
    this.#neighbours = new Neighbours(core);
    this.#tables = new ConnectionTables({ clock: core.clock, log: core.log, read: () => tablesOf(core) });
    this.#cluster = new Cluster(
      core,
      (networkId, changed) => {
        this.#following
          .changed(networkId, ...changed)
          .catch((error) => core.log.error("cannot follow a change of the network", { error: messageOf(error) }));
      },
      () => this.#following.hostCame(),
    );
    this.#names = new Names(core, (networkId) => this.#cluster.participants(networkId));
    this.#proxies = new Proxies(core);
    this.#datapath = new Datapath(core, this.#cluster, this.#names, this.#ports, this.#proxies);
    this.#sandboxes = new Sandboxes(core, this.#ports, {
      prepareOverlay: (network) => this.#overlays.ensure(network),
      gatewayBridge: () => this.#networks.ensureGatewayBridge(),
      joining: (sandbox) => this.#presence.serve(sandbox),
      joined: (sandbox, endpoint) => this.#presence.joined(sandbox, endpoint),
      leaving: (_sandbox, endpoint) => this.#presence.leaving(endpoint),
      left: (sandbox, endpoint) => this.#presence.left(sandbox, endpoint),
      sandboxGone: (sandbox) => this.#presence.sandboxGone(sandbox),
    });
    this.#pathMtu = new PathMtu(core, () => this.#cluster.hosts());
    this.#overlays = new Overlays(core, this.#networks, this.#sandboxes, this.#cluster);
    this.#announcements = new Announcements({
      clock: core.clock,
      log: core.log,
      gossip: () => this.#cluster.gossip,
      isOurs: (peer) => this.#cluster.doors().has(peer),
      standing: (networkId, endpointId) => this.#following.standing(networkId, endpointId),
    });
    this.#following = new Following({
      core,
      cluster: this.#cluster,
      datapath: this.#datapath,
      names: this.#names,
      neighbours: this.#neighbours,
      pathMtu: this.#pathMtu,
      applied: (networkId) => this.#announcements.applied(networkId),
    });
    this.#presence = new Presence({
      core,
      cluster: this.#cluster,
      following: this.#following,
      names: this.#names,
      neighbours: this.#neighbours,
      proxies: this.#proxies,
      sandbox: (id) => this.#sandboxes.get(id),
      emptied: (networkId) => this.#overlays.removeIfVanished(networkId),
    });
    const repairs = new Repairs();
    this.#upkeep = new Upkeep({
      core,
      repairs,
      before: () => this.#compareAll(),
      repin: (which) => this.#overlays.repin(which),
      after: () => {
        for (const { spec } of core.networks.values())
          if (spec.driver === "overlay") this.#neighbours.follow(spec.id, true);
      },
    });
    this.view = new View({
      core,
      cluster: this.#cluster,
      datapath: this.#datapath,
      paths: this.#pathMtu.paths,
      repairs,
      names: this.#names,
    });
    core.events.on((event) => {
      if (event.kind === "destroy") this.#following.forget(event.network.id);
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
    return this.#names.files(this.#sandboxes.get(sandboxId));
  }

  renameEndpoints(sandboxId: string, name: string): Promise<void> {
    return this.#presence.rename(sandboxId, name);
  }

  setActivity(sandboxId: string, activity: Activity): Promise<void> {
    return this.#presence.setActivity(sandboxId, activity);
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
    await Promise.all([...this.#core.sandboxes.values()].map((sandbox) => this.#presence.serve(sandbox)));
    for (const network of this.#core.networks.values()) if (network.spec.ingress) this.#datapath.changed(network);
    await this.#upkeep.restore();
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
    return this.#upkeep.pass();
  }

  explain(options?: { tables: boolean }): { namespace: string; text: string }[] {
    return this.#core.namespaces.keys().flatMap((key) => {
      const plan = this.#core.planOf(key);
      return plan ? [{ namespace: key, text: explain(plan, options) }] : [];
    });
  }

  /** What plans are computed from, and what no plan covers, compared with where it comes from. */
  async #compareAll(): Promise<void> {
    const core = this.#core;
    this.#ensureUserChain();
    for (const networkId of this.#cluster.resync()) {
      const network = core.networks.get(networkId);
      this.#names.changed(networkId);
      if (network) this.#datapath.changed(network);
    }
    await this.#networks.sweepUnused();
    this.#datapath.reserve();
    await this.#pathMtu.follow();
  }

  #ensureUserChain(): void {
    const { nft } = this.#core.namespaces.host;
    if (!isUserChainWhole(nft.list("table inet operator"))) nft.run(userChainScript(this.#ports.relayed()));
  }

  paths(): { host: string; mtu: number | undefined; expected: number }[] {
    return this.#pathMtu.list();
  }

  fullConnectionTables(): FullTable[] {
    return this.#tables.full();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#upkeep.close();
    this.#tables[Symbol.dispose]();
    this.#ports.close();
    this.#pathMtu.close();
    this.#datapath.close();
    this.#proxies.close();
    await this.#cluster.close();
    await this.#names.close();
    this.#core.close();
  }
}
