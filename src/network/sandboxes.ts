/** Sandboxes and their endpoints: making, connecting, disconnecting, removing. */
import { forbidden, messageOf, notFound, SkeinError } from "../base/errors.ts";
import { openConntrack } from "../kernel/conntrack.ts";
import { plainIp } from "./address.ts";
import type { Core } from "./core.ts";
import { forgetUntranslated } from "./datagrams.ts";
import { parseBridge } from "./drivers/bridge.ts";
import { Endpoints } from "./endpoints.ts";
import type { NamespaceKey } from "./plan/types.ts";
import { attachedTo, gatewayOf, wayOut } from "./plan/world.ts";
import type { HostPorts } from "./ports.ts";
import {
  type EndpointState,
  type NetworkState,
  overlayKey,
  type SandboxKind,
  type SandboxState,
  sandboxKey,
} from "./state.ts";
import type { Endpoint, EndpointRequest, PublishedPort, SandboxRequest } from "./types.ts";

/** What happens around the life of endpoints; the cluster and the resolver listen. */
export interface EndpointHooks {
  /** The overlay's namespace must exist before a pair is made between it and the sandbox. */
  prepareOverlay(network: NetworkState): Promise<void>;
  /** The endpoint is in the state, not yet in the kernel. */
  joining(sandbox: SandboxState): Promise<void>;
  gatewayBridge(): Promise<NetworkState>;
  /** Attached and in the kernel. */
  joined(sandbox: SandboxState, endpoint: EndpointState): Promise<void>;
  /** About to go: withdraw it from everybody. */
  leaving(sandbox: SandboxState, endpoint: EndpointState): void;
  /** Gone. */
  left(sandbox: SandboxState, endpoint: EndpointState): void;
  sandboxGone(sandbox: SandboxState): Promise<void>;
}

export class Sandboxes {
  readonly #core: Core;
  readonly #ports: HostPorts;
  readonly #hooks: EndpointHooks;
  readonly #endpoints: Endpoints;

  constructor(core: Core, ports: HostPorts, hooks: EndpointHooks) {
    this.#core = core;
    this.#endpoints = new Endpoints(core);
    this.#ports = ports;
    this.#hooks = hooks;
  }

  get(id: string): SandboxState {
    const sandbox = this.#core.sandboxes.get(id);
    if (!sandbox) throw notFound(`sandbox ${id} not found`);
    return sandbox;
  }

  /** `file`: name of the pin; undefined for host mode. */
  async create(request: SandboxRequest, kind: SandboxKind, file: string | undefined): Promise<SandboxState> {
    const core = this.#core;
    return core.locks.run(sandboxKey(request.id), async () => {
      if (core.sandboxes.has(request.id)) throw forbidden(`sandbox ${request.id} exists already`);
      const sandbox: SandboxState = {
        id: request.id,
        kind,
        request,
        activity: "inactive",
        endpoints: [],
        ports: [],
      };
      if (file !== undefined) {
        // A pin of that name without a sandbox is a leftover.
        core.namespaces.unpin(file);
        core.namespaces.ensure(sandboxKey(request.id), file);
        sandbox.path = core.namespaces.pathOf(file);
      }
      core.sandboxes.set(sandbox.id, sandbox);
      try {
        if (sandbox.path) await core.settle([sandboxKey(sandbox.id)]);
        core.store.saveSandbox(sandbox);
      } catch (error) {
        core.sandboxes.delete(sandbox.id);
        if (file !== undefined) core.namespaces.destroy(sandboxKey(sandbox.id), file);
        throw error;
      }
      return sandbox;
    });
  }

  async remove(id: string): Promise<void> {
    const core = this.#core;
    await core.locks.run(sandboxKey(id), async () => {
      const sandbox = core.sandboxes.get(id);
      if (!sandbox) return;
      for (const endpoint of sandbox.endpoints) this.#hooks.leaving(sandbox, endpoint);
      await this.#hooks.sandboxGone(sandbox);
      const endpoints = sandbox.endpoints.splice(0);
      core.sandboxes.delete(id);
      const published = sandbox.ports.length > 0;
      this.#unpublish(sandbox, endpoints);
      core.store.deleteSandbox(id);
      // With its last process gone the kernel takes the namespace apart, both halves of each pair included, without
      // anybody waiting for it. What is left after a while is deleted.
      for (const endpoint of endpoints) {
        this.#endpoints.release(endpoint);
        for (const key of this.#outer(endpoint)) core.letGo(key, endpoint.outerName);
      }
      if (published) await core.settle(["host"], "tables");
      const file = sandbox.path?.split("/").at(-1);
      if (file) core.namespaces.destroy(sandboxKey(id), file);
      for (const endpoint of endpoints) {
        this.#hooks.left(sandbox, endpoint);
        this.#tell("disconnect", sandbox, endpoint);
      }
    });
  }

  async connect(id: string, request: EndpointRequest): Promise<EndpointState> {
    const core = this.#core;
    return core.locks.run(sandboxKey(id), async () => {
      const sandbox = this.get(id);
      const network = core.networks.get(request.networkId);
      if (!network) throw notFound(`network ${request.networkId} not found`);
      const { spec } = network;
      if (sandbox.endpoints.some((endpoint) => endpoint.networkId === spec.id)) {
        throw forbidden(`${request.name} is already attached to network ${spec.name}`);
      }
      if (attachedTo(core.world, spec.id).some(({ endpoint }) => endpoint.name === request.name)) {
        throw forbidden(`endpoint with name ${request.name} already exists in network ${spec.name}`);
      }
      return this.#attach(sandbox, network, request);
    });
  }

  async disconnect(id: string, networkId: string): Promise<void> {
    const core = this.#core;
    await core.locks.run(sandboxKey(id), async () => {
      const sandbox = this.get(id);
      const endpoint = sandbox.endpoints.find((e) => e.networkId === networkId);
      if (!endpoint) {
        const name = core.networks.get(networkId)?.spec.name ?? networkId;
        throw notFound(`container ${id} is not connected to network ${name}`);
      }
      const rest = sandbox.endpoints.filter((e) => e !== endpoint);
      const gateway = rest.find((e) => e.role === "gateway");
      const needs = this.#needsGateway({ ...sandbox, endpoints: rest });
      if (needs && !gateway) {
        const added = await this.#addGateway(sandbox);
        try {
          await this.#settle(sandbox, [added]);
        } catch (error) {
          core.log.error("a sandbox lost its way out", { sandbox: id, error: messageOf(error) });
        }
      }
      await this.#detach(sandbox, gateway && !needs ? [endpoint, gateway] : [endpoint]);
    });
  }

  /** Connects to one network, and to the gateway bridge where that becomes necessary: one change of the kernel. */
  async #attach(sandbox: SandboxState, network: NetworkState, request: EndpointRequest): Promise<EndpointState> {
    const core = this.#core;
    const role = sandbox.kind === "container" ? "user" : "lb";
    const endpoint = this.#endpoints.make(sandbox, network, request, role);
    const added = [endpoint];
    const published = sandbox.ports.length > 0;
    try {
      if (network.spec.driver === "overlay") await this.#hooks.prepareOverlay(network);
      this.#yieldName(sandbox, endpoint, network);
      sandbox.endpoints.push(endpoint);
      const gateway = sandbox.endpoints.find((e) => e.role === "gateway");
      const needs = this.#needsGateway(sandbox);
      if (needs && !gateway) added.push(await this.#addGateway(sandbox));
      if (role === "user" && !published) this.#publish(sandbox, endpoint);
      await this.#hooks.joining(sandbox);
      await this.#settle(sandbox, added);
      if (!published) forgetUntranslated(core, udpPorts(sandbox.ports));
      core.store.saveSandbox(sandbox);
      for (const one of added) await this.#hooks.joined(sandbox, one);
      if (gateway && !needs) await this.#detach(sandbox, [gateway]);
    } catch (error) {
      await this.#detach(sandbox, added).catch((again) =>
        core.log.error("cannot undo a failed connection", { sandbox: sandbox.id, error: messageOf(again) }),
      );
      throw error;
    }
    this.#tell("connect", sandbox, endpoint);
    return endpoint;
  }

  async #detach(sandbox: SandboxState, endpoints: readonly EndpointState[]): Promise<void> {
    const core = this.#core;
    for (const endpoint of endpoints) this.#hooks.leaving(sandbox, endpoint);
    const { rtnl } = sandbox.path ? core.namespaces.get(sandboxKey(sandbox.id)) : { rtnl: undefined };
    sandbox.endpoints = sandbox.endpoints.filter((endpoint) => !endpoints.includes(endpoint));
    for (const endpoint of endpoints) {
      this.#endpoints.release(endpoint);
      // Devices without an outer half (macvlan) have no plan left that would remove them.
      const link = endpoint.outerName === "" && endpoint.ifName ? rtnl?.link(endpoint.ifName) : undefined;
      if (link) await rtnl?.delLink(link.index);
    }
    if (sandbox.ports.length > 0 && !wayOut(core.world, sandbox)) {
      this.#unpublish(sandbox, endpoints);
    }
    await this.#settle(sandbox, endpoints);
    if (core.sandboxes.has(sandbox.id)) core.store.saveSandbox(sandbox);
    for (const endpoint of endpoints) {
      this.#hooks.left(sandbox, endpoint);
      this.#tell("disconnect", sandbox, endpoint);
    }
  }

  /** Whether a sandbox on overlays has no other way out than the gateway bridge. */
  #needsGateway(sandbox: SandboxState): boolean {
    const core = this.#core;
    const others = sandbox.endpoints.filter((endpoint) => endpoint.role !== "gateway");
    return (
      sandbox.kind !== "lb" &&
      !wayOut(core.world, { ...sandbox, endpoints: others }) &&
      others.some(({ networkId }) => {
        const spec = core.networks.get(networkId)?.spec;
        return spec?.driver === "overlay" && !spec.internal;
      })
    );
  }

  /** Adds the endpoint on the gateway bridge to the state. */
  async #addGateway(sandbox: SandboxState): Promise<EndpointState> {
    const network = await this.#hooks.gatewayBridge();
    const name = `gateway_${sandbox.kind === "ingress" ? sandbox.id : sandbox.id.slice(0, 12)}`;
    const endpoint = this.#endpoints.make(
      sandbox,
      network,
      { networkId: network.spec.id, name, aliases: [] },
      "gateway",
    );
    sandbox.endpoints.push(endpoint);
    return endpoint;
  }

  /** Publishes the sandbox's ports as soon as it can be reached from the host. */
  #publish(sandbox: SandboxState, endpoint: EndpointState): void {
    if (sandbox.ports.length > 0 || sandbox.request.ports.length === 0) return;
    const out = wayOut(this.#core.world, sandbox);
    const network = out && this.#core.networks.get(out.endpoint.networkId);
    if (!out || !network || network.spec.driver !== "bridge") return;
    try {
      const { hostBinding, modes } = parseBridge(network.spec);
      const routed = { routed4: modes[4] === "routed", routed6: modes[6] === "routed" };
      sandbox.ports = this.#ports.take(sandbox.id, sandbox.request.ports, { defaultIp: hostBinding, ...routed });
    } catch (error) {
      throw new SkeinError(
        "internal",
        `driver failed programming external connectivity on endpoint ${endpoint.name} (${endpoint.id}): ${messageOf(error)}`,
      );
    }
  }

  /** Gives the ports back. Translations of UDP outlive their rule, and would lead the next user's clients astray. */
  #unpublish(sandbox: SandboxState, endpoints: readonly EndpointState[]): void {
    if (sandbox.ports.length === 0) return;
    this.#ports.release(sandbox.id);
    sandbox.ports = [];
    try {
      using conntrack = openConntrack();
      for (const { ipv4, ipv6 } of endpoints) {
        if (ipv4) conntrack.flush({ family: 4, replySrc: plainIp(ipv4) });
        if (ipv6) conntrack.flush({ family: 6, replySrc: plainIp(ipv6) });
      }
    } catch (error) {
      this.#core.log.warn("cannot forget connections", { sandbox: sandbox.id, error: messageOf(error) });
    }
  }

  /** The way out is the last device: before the container runs, it makes room for those that come later. */
  #yieldName(sandbox: SandboxState, endpoint: EndpointState, network: NetworkState): void {
    const gateway = sandbox.endpoints.find((e) => e.role === "gateway");
    if (!gateway || endpoint.ifName === "" || sandbox.activity !== "inactive" || network.spec.driver === "bridge")
      return;
    const { rtnl } = this.#core.namespaces.get(sandboxKey(sandbox.id));
    const link = rtnl.link(gateway.ifName);
    if (!link) return;
    const freed = gateway.ifName;
    const last = endpoint.ifName;
    // Kernels before 6.2 rename only what is down; routes come back with the reconciliation that follows.
    rtnl.setLink(link.index, { up: false });
    rtnl.setLink(link.index, { name: last });
    gateway.ifName = last;
    endpoint.ifName = freed;
  }

  #outer(endpoint: EndpointState): NamespaceKey[] {
    const driver = this.#core.networks.get(endpoint.networkId)?.spec.driver;
    if (driver === "bridge") return ["host"];
    return driver === "overlay" ? [overlayKey(endpoint.networkId)] : [];
  }

  async #settle(sandbox: SandboxState, endpoints: readonly EndpointState[]): Promise<void> {
    const keys: NamespaceKey[] = endpoints.flatMap((endpoint) => this.#outer(endpoint));
    if (sandbox.request.ports.length > 0) keys.push("host");
    if (sandbox.path) keys.push(sandboxKey(sandbox.id));
    await this.#core.settle(keys);
  }

  #tell(kind: "connect" | "disconnect", sandbox: SandboxState, endpoint: EndpointState): void {
    const network = this.#core.networks.get(endpoint.networkId)?.spec;
    if (!network || sandbox.kind !== "container" || endpoint.role !== "user") return;
    this.#core.events.emit({ kind, network, containerId: sandbox.id });
  }

  /** As the door shows it. */
  shown(sandbox: SandboxState, endpoint: EndpointState): Endpoint {
    const network = this.#core.networks.get(endpoint.networkId);
    const routed = network && network.spec.driver !== "overlay" && !network.spec.internal;
    return {
      id: endpoint.id,
      networkId: endpoint.networkId,
      sandboxId: sandbox.id,
      name: endpoint.name,
      aliases: endpoint.aliases,
      ifName: endpoint.ifName,
      mac: endpoint.mac,
      ipv4: endpoint.ipv4,
      ipv6: endpoint.ipv6,
      gateway: routed && endpoint.ipv4 ? gatewayOf(network, 4) : "",
      gateway6: routed && endpoint.ipv6 ? gatewayOf(network, 6) : "",
    };
  }
}

const udpPorts = (ports: readonly PublishedPort[]): ReadonlySet<number> =>
  new Set(ports.flatMap(({ protocol, hostPort }) => (protocol === "udp" && hostPort !== 0 ? [hostPort] : [])));
