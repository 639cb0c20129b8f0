/**
 * Names in each sandbox: the embedded DNS (which sandboxes have one, what it sees, where it forwards to) and the files
 * that the container's programs read first.
 */
import { plainIp } from "./address.ts";
import type { Core } from "./core.ts";
import { namesOf, type ServicePort } from "./discovery.ts";
import { effectiveDns, hostsFile, isLoopback, resolvConf } from "./files.ts";
import type { Participant } from "./overlay/records.ts";
import { gatewayOf } from "./plan/world.ts";
import { lookup } from "./resolver/lookup.ts";
import { startResolver } from "./resolver/resolver.ts";
import type { NameNetwork, Resolver, Upstream } from "./resolver/types.ts";
import { A } from "./resolver/wire.ts";
import { type SandboxState, sandboxKey } from "./state.ts";

export class Names {
  readonly #core: Core;
  readonly #participants: (networkId: string) => readonly Participant[];
  readonly #cache = new Map<string, NameNetwork>();
  readonly #resolvers = new Map<string, Resolver>();

  constructor(core: Core, participants: (networkId: string) => readonly Participant[]) {
    this.#core = core;
    this.#participants = participants;
  }

  /** What is published is told on the ingress network, and is part of the answers on all others. */
  changed(networkId: string): void {
    if (this.#core.networks.get(networkId)?.spec.ingress) this.#cache.clear();
    else this.#cache.delete(networkId);
  }

  /**
   * Containers have a resolver, on the default bridge alone they have none: names do not resolve there. On ingress alone
   * it only forwards, as with Docker.
   */
  wants(sandbox: SandboxState): boolean {
    return (
      sandbox.kind === "container" &&
      sandbox.endpoints.some(({ networkId, role, ifName }) => {
        const spec = this.#core.networks.get(networkId)?.spec;
        return role === "user" && ifName !== "" && spec !== undefined && spec.name !== "bridge";
      })
    );
  }

  network(networkId: string): NameNetwork | undefined {
    const spec = this.#core.networks.get(networkId)?.spec;
    if (!spec) return undefined;
    const known = this.#cache.get(networkId) ?? namesOf(spec, this.#participants(networkId), (id) => this.#portsOf(id));
    this.#cache.set(networkId, known);
    return known;
  }

  /** What a service publishes: told on the ingress network only. */
  #portsOf(serviceId: string): readonly ServicePort[] {
    for (const { spec } of this.#core.networks.values()) {
      if (!spec.ingress) continue;
      const told = this.#participants(spec.id).find(({ service }) => service?.id === serviceId);
      if (told) return told.service?.ingressPorts ?? [];
    }
    return [];
  }

  /** Starts the sandbox's resolver when it wants one and has none. */
  async ensure(sandbox: SandboxState): Promise<void> {
    const core = this.#core;
    if (!this.wants(sandbox)) return;
    const running = this.#resolvers.get(sandbox.id);
    if (running) {
      running.setUpstreams(this.#upstreams(sandbox));
      return;
    }
    const { ns } = core.namespaces.get(sandboxKey(sandbox.id));
    if (!ns) return;
    const { options } = effectiveDns(sandbox.request.dns, core.hostResolvConf());
    const ndots = Number(options.find((option) => option.startsWith("ndots:"))?.slice("ndots:".length) ?? 0);
    const resolver = await startResolver({
      ns,
      view: { networks: () => this.#view(sandbox.id) },
      upstreams: this.#upstreams(sandbox),
      log: core.log.with({ sandbox: sandbox.id.slice(0, 12) }),
      clock: core.clock,
      ...(ndots > 0 ? { ndots } : {}),
    });
    this.#resolvers.set(sandbox.id, resolver);
  }

  /** The networks whose names a sandbox sees: overlays first, then the others. */
  #view(sandboxId: string): NameNetwork[] {
    const core = this.#core;
    const seen = (core.sandboxes.get(sandboxId)?.endpoints ?? []).filter(({ networkId, role }) => {
      const spec = core.networks.get(networkId)?.spec;
      return role === "user" && spec !== undefined && spec.name !== "bridge" && !spec.ingress;
    });
    const rank = (networkId: string) => (core.networks.get(networkId)?.spec.driver === "overlay" ? 0 : 1);
    return seen
      .sort((a, b) => rank(a.networkId) - rank(b.networkId))
      .flatMap(({ networkId }) => this.network(networkId) ?? []);
  }

  /** What the resolver of a sandbox says to a name, in IPv4; undefined for what it would ask others. */
  lookup(sandboxId: string, name: string): readonly string[] | undefined {
    const asked = name.toLowerCase().replace(/\.$/, "");
    return lookup(asked, A, { networks: () => this.#view(sandboxId) })?.ipv4;
  }

  /**
   * Where unknown names are asked for. The host's own servers are asked from the host, wherever the container's
   * routes lead; servers given for the container are asked from inside. Nobody, where there is no way out.
   */
  #upstreams(sandbox: SandboxState): Upstream[] {
    const core = this.#core;
    const inside = sandbox.endpoints.every(({ networkId }) => core.networks.get(networkId)?.spec.internal);
    const own = sandbox.request.dns.servers;
    if (inside && own.length === 0) return [];
    return effectiveDns(sandbox.request.dns, core.hostResolvConf()).servers.map((address) => ({
      address,
      from: own.length > 0 && !isLoopback(address) ? "sandbox" : "host",
    }));
  }

  /** Contents of /etc/hosts and /etc/resolv.conf as they should be now. */
  files(sandbox: SandboxState): { hosts: string; resolvConf: string } {
    const { networks } = this.#core;
    const { request, endpoints } = sandbox;
    const shown = endpoints.filter(({ networkId, role }) => role === "user" && !networks.get(networkId)?.spec.ingress);
    const bridge = [...networks.values()].find(({ spec }) => spec.name === "bridge");
    const devices = endpoints.some(({ ifName }) => ifName !== "");
    const kind = this.wants(sandbox) ? "embedded" : devices ? "direct" : "host";
    return {
      hosts: hostsFile({
        hostname: request.hostname,
        domainname: request.domainname,
        addresses: shown.flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6].filter(Boolean).map(plainIp)),
        extraHosts: request.extraHosts,
        hostGateway: bridge ? gatewayOf(bridge, 4) : "",
      }),
      resolvConf: resolvConf(kind, request.dns, this.#core.hostResolvConf()),
    };
  }

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
