/**
 * What an endpoint is made of before the kernel hears of it: its addresses, its MAC, the names of its devices. On
 * overlays the managers decided the address; elsewhere this host's pools do.
 */
import { randomBytes } from "node:crypto";
import { toIpv6 } from "../base/dual-stack.ts";
import { forbidden, invalid } from "../base/errors.ts";
import { hexId } from "../base/id.ts";
import { contains, isMac, macOf, parseCidr, parseIp, plainIp, randomMac } from "./address.ts";
import type { Core } from "./core.ts";
import { parseBridge } from "./drivers/bridge.ts";
import { dualStack } from "./drivers/overlay.ts";
import { attachedTo } from "./plan/world.ts";
import type { EndpointState, NetworkState, SandboxState } from "./state.ts";
import type { EndpointRequest } from "./types.ts";

export class Endpoints {
  readonly #core: Core;
  /** Number of the next port of each overlay's switch. */
  readonly #nextPort = new Map<string, number>();

  constructor(core: Core) {
    this.#core = core;
  }

  /** An endpoint with all it needs, in nobody's state yet; `release` gives back what it holds. */
  make(
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
    try {
      if (spec.driver === "overlay") giveDecided(endpoint, network, request);
      else this.#giveFromPools(endpoint, network, request);
      const ipv4 = parseIp(plainIp(endpoint.ipv4));
      if (request.mac) endpoint.mac = request.mac.toLowerCase();
      // On overlays addresses come back to life on other hosts: a MAC that never does cannot be confused.
      else if (spec.driver === "bridge" && ipv4) endpoint.mac = macOf(ipv4);
      else if (spec.driver !== "ipvlan") endpoint.mac = randomMac(randomBytes);
      endpoint.ifName = freeName(sandbox, spec.driver === "bridge" ? parseBridge(spec).ifPrefix : "eth");
      if (spec.driver === "bridge") endpoint.outerName = this.#outerName();
      if (spec.driver === "overlay") endpoint.outerName = this.#overlayPort(spec.id);
    } catch (error) {
      this.release(endpoint);
      throw error;
    }
    return endpoint;
  }

  /** Gives its addresses back to the pools that they are from. */
  release({ networkId, ipv4, ipv6 }: EndpointState): void {
    const { clock, pools } = this.#core;
    if (ipv4) pools.release(networkId, ipv4, clock.steady());
    if (ipv6) pools.release(networkId, ipv6, clock.steady());
  }

  #giveFromPools(endpoint: EndpointState, { spec, userSubnets }: NetworkState, request: EndpointRequest): void {
    const { clock, pools } = this.#core;
    if ((request.ipv4 || request.ipv6) && !userSubnets) {
      throw invalid(
        "user specified IP address is supported only when connecting to networks with user configured subnets",
      );
    }
    const from = (family: 4 | 6, asked: string | undefined): string => {
      if (pools.has(spec.id, family)) {
        return pools.allocate(spec, family, endpoint.id, clock.steady(), asked && plainIp(asked));
      }
      if (asked) throw invalid("Requested address is out of range");
      return "";
    };
    endpoint.ipv4 = from(4, request.ipv4);
    endpoint.ipv6 = from(6, request.ipv6);
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
}

/** The managers' address, with its twin where the network has IPv6. */
function giveDecided(endpoint: EndpointState, network: NetworkState, request: EndpointRequest): void {
  const { spec } = network;
  if (!request.ipv4) throw invalid(`no address was allocated for ${request.name} on network ${spec.name}`);
  endpoint.ipv4 = withPrefix(network, request.ipv4);
  // What the others take for granted, whatever managers of another make say.
  const dual = dualStack(spec);
  const twin = dual && toIpv6(dual, endpoint.ipv4);
  if (dual && twin !== undefined) endpoint.ipv6 = `${twin}/${dual.v6.prefix}`;
}

/** A plain address or CIDR as CIDR with the prefix of the network's subnet that it lies in. */
function withPrefix({ spec }: NetworkState, address: string): string {
  const ip = parseIp(plainIp(address));
  if (!ip) throw invalid(`invalid address ${address}`);
  for (const pool of spec.ipam.config) {
    const subnet = parseCidr(pool.subnet)?.subnet;
    if (subnet && contains(subnet, ip)) return `${plainIp(address)}/${subnet.prefix}`;
  }
  throw invalid(`address ${address} is in no subnet of network ${spec.name}`);
}

function freeName(sandbox: SandboxState, prefix: string): string {
  const taken = new Set(sandbox.endpoints.map((endpoint) => endpoint.ifName));
  for (let n = 0; ; n++) if (!taken.has(`${prefix}${n}`)) return `${prefix}${n}`;
}
