/**
 * The door of the network room; its parts are put together in `assembly.ts`. Start reading here: every call changes the
 * state in `Core`, then settles the namespaces that it concerns; what gossip tells (`following.ts`) and the 30-second pass
 * (`upkeep.ts`) end in the same place.
 */
import { notFound } from "../base/errors.ts";
import { hasFeature } from "../kernel/feature.ts";
import { tcpSockets } from "../kernel/sockdiag.ts";
import { assemble, ensureUserChain, type Parts } from "./assembly.ts";
import type { FullTable } from "./connection-tables.ts";
import { busyConnections, isListening } from "./connections.ts";
import { Core } from "./core.ts";
import { verboseOf } from "./discovery.ts";
import { explain } from "./plan/explain.ts";
import { attachedTo } from "./plan/world.ts";
import { Restore } from "./restore.ts";
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
  readonly #parts: Parts;

  constructor(core: Core) {
    this.#core = core;
    this.#parts = assemble(core);
    this.events = core.events;
    this.view = this.#parts.view;
  }

  async load(): Promise<void> {
    new Restore(this.#core).load();
    this.#parts.cluster.restore();
    await this.#parts.networks.ensureDefaults();
    ensureUserChain(this.#core, this.#parts.ports);
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
    if (spec.scope === "local") return (await this.#parts.networks.createLocal(spec)).spec;
    const state = await this.#parts.networks.createSwarm(spec, options.lbAddress);
    if (spec.driver === "overlay") await this.#parts.overlays.bringUp(state, options.lbAddress);
    return state.spec;
  }

  async remove(id: string): Promise<void> {
    const state = this.#core.networks.get(id);
    if (!state) throw notFound(`network ${id} not found`);
    this.#parts.networks.checkRemovable(state);
    if (state.spec.driver === "overlay") await this.#parts.overlays.tearDown(state);
    await this.#parts.networks.remove(state);
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
    return this.#parts.cluster.peers(networkId);
  }

  services(networkId: string): VerboseService[] {
    return verboseOf(this.#parts.cluster.participants(networkId));
  }

  async createSandbox(request: SandboxRequest): Promise<Sandbox> {
    const file = request.mode === "private" ? request.id.slice(0, 12) : undefined;
    const sandbox = await this.#parts.sandboxes.create(request, "container", file);
    return { id: sandbox.id, path: sandbox.path };
  }

  removeSandbox(id: string): Promise<void> {
    return this.#parts.sandboxes.remove(id);
  }

  sandbox(id: string): Sandbox | undefined {
    const sandbox = this.#core.sandboxes.get(id);
    return sandbox && { id, path: sandbox.path };
  }

  async connect(sandboxId: string, request: EndpointRequest): Promise<Endpoint> {
    const endpoint = await this.#parts.sandboxes.connect(sandboxId, request);
    return this.#parts.sandboxes.shown(this.#parts.sandboxes.get(sandboxId), endpoint);
  }

  disconnect(sandboxId: string, networkId: string): Promise<void> {
    return this.#parts.sandboxes.disconnect(sandboxId, networkId);
  }

  sandboxEndpoints(sandboxId: string): Endpoint[] {
    const sandbox = this.#core.sandboxes.get(sandboxId);
    if (!sandbox) return [];
    return sandbox.endpoints
      .filter((endpoint) => endpoint.role === "user")
      .map((endpoint) => this.#parts.sandboxes.shown(sandbox, endpoint));
  }

  publishedPorts(sandboxId: string): PublishedPort[] {
    return [...(this.#core.sandboxes.get(sandboxId)?.ports ?? [])];
  }

  files(sandboxId: string): { hosts: string; resolvConf: string } {
    return this.#parts.names.files(this.#parts.sandboxes.get(sandboxId));
  }

  renameEndpoints(sandboxId: string, name: string): Promise<void> {
    return this.#parts.presence.rename(sandboxId, name);
  }

  setActivity(sandboxId: string, activity: Activity): Promise<void> {
    return this.#parts.presence.setActivity(sandboxId, activity);
  }

  async told(sandboxId: string, signal?: AbortSignal): Promise<string[]> {
    const core = this.#core;
    const sandbox = this.#parts.sandboxes.get(sandboxId);
    const wanted = sandbox.activity === "active" ? "serving" : "withdrawn";
    const overlays = sandbox.endpoints.filter(
      ({ role, networkId }) => role === "user" && core.networks.get(networkId)?.spec.driver === "overlay",
    );
    const silent = await Promise.all(
      overlays.map(({ networkId, id }) => this.#parts.announcements.told(networkId, id, wanted, signal)),
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
      if (sandbox.kind === "container" && !alive.has(sandbox.id)) await this.#parts.sandboxes.remove(sandbox.id);
      else this.#parts.ports.adopt(sandbox.id, sandbox.ports);
    }
    restore.sweepPins();
    await Promise.all([...this.#core.sandboxes.values()].map((sandbox) => this.#parts.presence.serve(sandbox)));
    for (const network of this.#core.networks.values()) if (network.spec.ingress) this.#parts.datapath.changed(network);
    await this.#parts.upkeep.restore();
  }

  async startCluster(cluster: ClusterNetworking): Promise<void> {
    await this.#parts.networks.ensureGatewayBridge();
    await this.#parts.cluster.start(cluster);
    this.#gossipMayRun();
    await this.#parts.overlays.bringUpAll();
  }

  async setKeys(keys: Parameters<NetworkController["setKeys"]>[0]): Promise<void> {
    // keys.ipsec waits for encrypted networks, which are refused until then.
    await this.#parts.cluster.setKeys(keys.gossip);
    this.#gossipMayRun();
  }

  #gossipMayRun(): void {
    this.#parts.announcements.attach();
    this.#parts.liveness.attach();
  }

  setManagers(hosts: string[]): void {
    this.#parts.cluster.setManagers(hosts);
  }

  isSilent(host: string): boolean | undefined {
    return this.#parts.liveness.isSilent(host);
  }

  setLoadBalancers(addresses: ReadonlyMap<string, string>): Promise<void> {
    return this.#parts.overlays.setLoadBalancers(addresses);
  }

  /** docker_gwbridge stays, as it does with Docker. */
  async stopCluster(): Promise<void> {
    await this.#parts.overlays.tearDownAll();
    await this.#parts.networks.sweepUnused(true);
    await this.#parts.cluster.stop();
  }

  reconcile(): Promise<string[]> {
    return this.#parts.upkeep.pass();
  }

  explain(options?: { tables: boolean }): { namespace: string; text: string }[] {
    return this.#core.namespaces.keys().flatMap((key) => {
      const plan = this.#core.planOf(key);
      return plan ? [{ namespace: key, text: explain(plan, options) }] : [];
    });
  }

  paths(): { host: string; mtu: number | undefined; expected: number }[] {
    return this.#parts.pathMtu.list();
  }

  fullConnectionTables(): FullTable[] {
    return this.#parts.tables.full();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#parts.upkeep.close();
    this.#parts.tables[Symbol.dispose]();
    this.#parts.ports.close();
    this.#parts.pathMtu.close();
    this.#parts.datapath.close();
    this.#parts.proxies.close();
    await this.#parts.cluster.close();
    await this.#parts.names.close();
    this.#core.close();
  }
}
