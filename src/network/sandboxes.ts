/** Sandboxes and their endpoints: making, connecting, disconnecting, removing. */
import { randomBytes } from "node:crypto";
import { toIpv6 } from "../base/dual-stack.ts";
import { forbidden, invalid, messageOf, notFound, SkeinError } from "../base/errors.ts";
import { hexId } from "../base/id.ts";
import { openConntrack } from "../kernel/conntrack.ts";
import { contains, isMac, macOf, parseCidr, parseIp, plainIp, randomMac } from "./address.ts";
import type { Core } from "./core.ts";
import { parseBridge } from "./drivers/bridge.ts";
import { dualStack } from "./drivers/overlay.ts";
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
import type { Endpoint, EndpointRequest, SandboxRequest } from "./types.ts";

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
  /** Number of the next port of each overlay's switch. */
  readonly #nextPort = new Map<string, number>();

  constructor(core: Core, ports: HostPorts, hooks: EndpointHooks) {
    this.#core = core;
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
        this.#release(endpoint);
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
    const endpoint = this.#allocate(sandbox, network, request, role);
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
      this.#release(endpoint);
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
    const endpoint = this.#allocate(sandbox, network, { networkId: network.spec.id, name, aliases: [] }, "gateway");
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

  #allocate(
    sandbox: SandboxState,
    network: NetworkState,
    request: EndpointRequest,
    role: EndpointState["role"],
  ): EndpointState {
    const { spec } = network;
    const endpoint: EndpointState = {
      id: hexId(),
      networkId: spec.id,
      name: request.name,
      aliases: [...request.aliases],
      ifName: "",
      outerName: "",
      mac: "",
      ipv4: "",
      ipv6: "",
      service: request.service,
      role,
    };
    if (spec.configOnly) throw forbidden("cannot create endpoint on configuration-only network");
    if (spec.driver === "host" || spec.driver === "null") {
      if (spec.driver === "host" && sandbox.path) throw invalid("a private sandbox cannot join the host's network");
      return endpoint;
    }
    if (!sandbox.path) throw invalid("container sharing the host's network cannot be connected to another network");
    if (request.mac && !isMac(request.mac)) throw invalid(`invalid MAC address: ${request.mac}`);
    this.#addresses(endpoint, network, request);
    try {
      const ipv4 = parseIp(plainIp(endpoint.ipv4));
      if (request.mac) endpoint.mac = request.mac.toLowerCase();
      // On overlays addresses come back to life on other hosts: a MAC that never does cannot be confused.
      else if (spec.driver === "bridge" && ipv4) endpoint.mac = macOf(ipv4);
      else if (spec.driver !== "ipvlan") endpoint.mac = randomMac(randomBytes);
      endpoint.ifName = this.#freeName(sandbox, spec.driver === "bridge" ? parseBridge(spec).ifPrefix : "eth");
      if (spec.driver === "bridge") endpoint.outerName = this.#outerName();
      if (spec.driver === "overlay") endpoint.outerName = this.#overlayPort(spec.id);
    } catch (error) {
      this.#release(endpoint);
      throw error;
    }
    return endpoint;
  }

  #addresses(endpoint: EndpointState, network: NetworkState, request: EndpointRequest): void {
    const core = this.#core;
    const { spec } = network;
    const now = core.clock.now();
    if (spec.driver === "overlay") {
      // The managers decided; the prefix is the subnet's where they gave the address plain.
      endpoint.ipv4 = withPrefix(network, request.ipv4);
      // What the others take for granted, whatever managers of another make say.
      const dual = spec.driver === "overlay" && endpoint.ipv4 ? dualStack(spec) : undefined;
      const twin = dual && toIpv6(dual, endpoint.ipv4);
      if (dual && twin !== undefined) endpoint.ipv6 = `${twin}/${dual.v6.prefix}`;
      if (!endpoint.ipv4) throw invalid(`no address was allocated for ${request.name} on network ${spec.name}`);
      return;
    }
    if ((request.ipv4 || request.ipv6) && !network.userSubnets) {
      throw invalid(
        "user specified IP address is supported only when connecting to networks with user configured subnets",
      );
    }
    if (core.pools.has(spec.id, 4)) {
      endpoint.ipv4 = core.pools.allocate(spec, 4, endpoint.id, now, request.ipv4 && plainIp(request.ipv4));
    } else if (request.ipv4) throw invalid("Requested address is out of range");
    try {
      if (core.pools.has(spec.id, 6)) {
        endpoint.ipv6 = core.pools.allocate(spec, 6, endpoint.id, now, request.ipv6 && plainIp(request.ipv6));
      } else if (request.ipv6) throw invalid("Requested address is out of range");
    } catch (error) {
      this.#release(endpoint);
      throw error;
    }
  }

  #release(endpoint: EndpointState): void {
    const now = this.#core.clock.now();
    if (endpoint.ipv4) this.#core.pools.release(endpoint.networkId, endpoint.ipv4, now);
    if (endpoint.ipv6) this.#core.pools.release(endpoint.networkId, endpoint.ipv6, now);
  }

  #freeName(sandbox: SandboxState, prefix: string): string {
    const taken = new Set(sandbox.endpoints.map((endpoint) => endpoint.ifName));
    for (let n = 0; ; n++) if (!taken.has(`${prefix}${n}`)) return `${prefix}${n}`;
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

  #outerName(): string {
    const taken = new Set([...this.#core.sandboxes.values()].flatMap((s) => s.endpoints.map((e) => e.outerName)));
    for (;;) {
      const name = `veth${randomBytes(4).toString("hex").slice(0, 7)}`;
      if (!taken.has(name) && !this.#core.namespaces.host.rtnl.link(name)) return name;
    }
  }

  /** Never one that was used before: its device may still be on the way out. */
  #overlayPort(networkId: string): string {
    const used = attachedTo(this.#core.world, networkId).map(({ endpoint }) => Number(endpoint.outerName.slice(4)));
    const next = Math.max(this.#nextPort.get(networkId) ?? 0, ...used.map((n) => n + 1));
    this.#nextPort.set(networkId, next + 1);
    return `veth${next}`;
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

/** A plain address or CIDR as CIDR with the prefix of the network's subnet that it lies in. */
export function withPrefix(network: NetworkState, address: string | undefined): string {
  if (!address) return "";
  const ip = parseIp(plainIp(address));
  if (!ip) throw invalid(`invalid address ${address}`);
  for (const pool of network.spec.ipam.config) {
    const subnet = parseCidr(pool.subnet)?.subnet;
    if (subnet && contains(subnet, ip)) return `${plainIp(address)}/${subnet.prefix}`;
  }
  throw invalid(`address ${address} is in no subnet of network ${network.spec.name}`);
}
