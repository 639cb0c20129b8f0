/**
 * Published ports of this host: who has which. A port is also kept on a socket, so that no other program
 * takes it and one that has it already is found out. Most traffic never reaches that socket, it is translated before;
 * what cannot be translated, IPv6 for a container without it, is carried from there by the daemon.
 */
import { errnoOf, invalid, messageOf, SkeinError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { bindHostPort } from "../kernel/socket.ts";
import { parseIp } from "./address.ts";
import { openRelay } from "./balancer/relay.ts";
import type { RelayedPort } from "./balancer/user.ts";
import type { End, Route } from "./carrier/types.ts";
import type { PortBinding, PublishedPort } from "./types.ts";

/** Where ports are chosen from when none was asked for; Linux's own range for local ports. */
const ephemeral = { first: 32768, last: 60999 };

/** Plain addresses at which an owner of ports is reached from the host, "" where it has none. */
export interface Reach {
  readonly ipv4: string;
  readonly ipv6: string;
  /** Others stand behind it, who end their connections themselves: those outlive the port. */
  readonly lingers?: boolean;
  /** A way to the port on which is said who the client is; undefined where that is not wanted. */
  readonly routeOf?: (port: PublishedPort, client: End, at: End) => Route | undefined;
}

/** How a network publishes. */
export interface Publishing {
  /** Stands in for a binding without address; "" for all. */
  readonly defaultIp: string;
  /** The container is reached at its own address: no port of the host is taken, and what is shown is port 0. */
  readonly routed4: boolean;
  readonly routed6: boolean;
}

export interface HostPortsOptions {
  /** Where an owner's ports lead at this moment. */
  readonly reach: (owner: string) => Reach;
  /** Ports that the daemon carries itself: told before the first client can come. */
  readonly relaying: (ports: readonly RelayedPort[]) => void;
  readonly log: Logger;
}

interface Held {
  readonly owner: string;
  readonly port: PublishedPort;
  readonly relayed: boolean;
  release(): void;
}

const anyAddress = new Set(["", "0.0.0.0", "::"]);

const words: Record<string, string> = {
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "cannot assign requested address",
  EACCES: "permission denied",
};

export class HostPorts {
  readonly #options: HostPortsOptions;
  #held: Held[] = [];
  /** Relayed ports that were told of. */
  #told = new Set<string>();
  #next = ephemeral.first;

  constructor(options: HostPortsOptions) {
    this.#options = options;
  }

  /** Takes the ports of a container, all or none. */
  take(owner: string, bindings: readonly PortBinding[], how: Publishing): PublishedPort[] {
    const before = this.#held.length;
    try {
      return bindings.flatMap((binding) => this.#takeOne(owner, binding, how));
    } catch (error) {
      this.#give(this.#held.splice(before));
      throw error;
    }
  }

  /** Ports of a container that outlived the daemon. One that was lost meanwhile is still translated. */
  adopt(owner: string, ports: readonly PublishedPort[]): void {
    for (const port of ports) {
      if (port.hostPort === 0) continue;
      try {
        this.#held.push(this.#keep(owner, port));
      } catch (error) {
        // Someone else listens there now: the translation goes first, as it did.
        this.#options.log.warn("a published port is in use by another program", {
          port: `${port.hostIp}:${port.hostPort}/${port.protocol}`,
          error: messageOf(error),
        });
        this.#held.push({ owner, port, relayed: false, release: () => {} });
      }
    }
  }

  release(...owners: readonly string[]): void {
    const ending = new Set(owners);
    const gone = this.#held.filter((held) => ending.has(held.owner));
    this.#held = this.#held.filter((held) => !ending.has(held.owner));
    this.#give(gone);
  }

  /** Ports that will be taken: many of them are told of as one change, not one by one. */
  announce(ports: readonly RelayedPort[]): void {
    if (ports.some((port) => !this.#told.has(keyOf(port)))) this.#tell([...this.relayed(), ...ports]);
  }

  #tell(ports: readonly RelayedPort[]): void {
    this.#options.relaying(ports);
    this.#told = new Set(ports.map(keyOf));
  }

  relayed(): RelayedPort[] {
    return this.#held
      .filter(({ relayed }) => relayed)
      .map(({ port: { protocol, hostPort } }) => ({ protocol, port: hostPort }));
  }

  close(): void {
    for (const held of this.#held.splice(0)) held.release();
  }

  #give(gone: readonly Held[]): void {
    for (const held of gone) held.release();
    if (gone.some(({ relayed }) => relayed)) this.#tell(this.relayed());
  }

  #takeOne(owner: string, binding: PortBinding, how: Publishing): PublishedPort[] {
    const hostIp = binding.hostIp || how.defaultIp;
    const wanted = hostIp ? [hostIp] : this.#everywhere(owner, binding);
    const routed = (address: string) => (address.includes(":") ? how.routed6 : how.routed4);
    const { protocol, containerPort } = binding;
    const open = wanted.filter(routed).map((address) => ({ protocol, containerPort, hostIp: address, hostPort: 0 }));
    const addresses = wanted.filter((address) => !routed(address));
    return [...open, ...(addresses.length > 0 ? this.#takeAt(owner, binding, addresses) : [])];
  }

  #takeAt(owner: string, binding: PortBinding, addresses: readonly string[]): PublishedPort[] {
    const last = Math.max(binding.hostPort, binding.hostPortEnd);
    if (binding.hostPort !== 0) {
      for (let port = binding.hostPort; ; port++) {
        try {
          return this.#hold(owner, binding, addresses, port);
        } catch (error) {
          if (port >= last || !(error instanceof SkeinError)) throw error;
        }
      }
    }
    const span = ephemeral.last - ephemeral.first + 1;
    for (let tries = 0; tries < span; tries++) {
      const port = this.#next;
      this.#next = port >= ephemeral.last ? ephemeral.first : port + 1;
      try {
        return this.#hold(owner, binding, addresses, port);
      } catch (error) {
        if (!(error instanceof SkeinError) || error.code === "invalid") throw error;
      }
    }
    throw new SkeinError("internal", "all ports are allocated");
  }

  /** All addresses of both families. What is not translated is relayed, and SCTP cannot be. */
  #everywhere(owner: string, { protocol }: PortBinding): string[] {
    const { ipv4, ipv6 } = this.#options.reach(owner);
    const four = ipv4 !== "" || protocol !== "sctp";
    const six = (ipv6 !== "" || protocol !== "sctp") && hasIpv6();
    return [...(four ? ["0.0.0.0"] : []), ...(six ? ["::"] : [])];
  }

  #hold(owner: string, binding: PortBinding, addresses: readonly string[], hostPort: number): PublishedPort[] {
    const { protocol, containerPort } = binding;
    const taken: Held[] = [];
    try {
      for (const hostIp of addresses) {
        const rival = this.#held.find(
          (held) =>
            held.port.protocol === protocol && held.port.hostPort === hostPort && meet(held.port.hostIp, hostIp),
        );
        const shown = `${hostIp.includes(":") ? `[${hostIp}]` : hostIp}:${hostPort}`;
        if (rival) throw new SkeinError("internal", `Bind for ${shown} failed: port is already allocated`);
        try {
          taken.push(this.#keep(owner, { protocol, containerPort, hostIp, hostPort }));
        } catch (error) {
          const why = words[errnoOf(error) ?? ""];
          if (!why) throw error;
          const family = hostIp.includes(":") ? 6 : 4;
          throw new SkeinError(
            "internal",
            `Error starting userland proxy: listen ${protocol}${family} ${shown}: bind: ${why}`,
          );
        }
      }
    } catch (error) {
      this.#give(taken);
      throw error;
    }
    this.#held.push(...taken);
    return taken.map((held) => held.port);
  }

  /** The socket behind a port. */
  #keep(owner: string, port: PublishedPort): Held {
    const { protocol, hostIp, hostPort, containerPort } = port;
    const { ipv4, ipv6 } = this.#options.reach(owner);
    const address = hostIp || "0.0.0.0";
    const translated = address.includes(":") ? ipv6 !== "" && address !== "::1" : ipv4 !== "";
    // Linux translates [::1] nowhere else: programs of this host that say so come to the wildcard's socket.
    const relayed = !translated || (address === "::" && protocol !== "sctp");
    if (!relayed) {
      const reservation = reserve(protocol, hostIp, hostPort);
      return { owner, port, relayed, release: () => reservation?.[Symbol.dispose]() };
    }
    if (protocol === "sctp") throw invalid(`port ${hostPort}/sctp at ${hostIp} cannot be translated to the container`);
    this.announce([{ protocol, port: hostPort }]);
    const target = () => {
      const now = this.#options.reach(owner);
      const to = now.ipv4 || now.ipv6;
      return to ? { address: to, port: containerPort } : undefined;
    };
    const { lingers = false, routeOf } = this.#options.reach(owner);
    const relay = openRelay({
      protocol,
      address,
      port: hostPort,
      target,
      lingers,
      routeOf: routeOf && ((client, at) => routeOf(port, client, at)),
      log: this.#options.log,
    });
    return { owner, port, relayed, release: () => void relay[Symbol.asyncDispose]() };
  }
}

const keyOf = ({ protocol, port }: RelayedPort): string => `${protocol} ${port}`;

/** Whether this host speaks IPv6 at all. Asked each time: it can be switched off while the daemon runs. */
function hasIpv6(): boolean {
  try {
    bindHostPort("udp", "::", 0)[Symbol.dispose]();
    return true;
  } catch {
    return false;
  }
}

/** A kernel without SCTP sockets can still translate it. */
function reserve(protocol: "tcp" | "udp" | "sctp", hostIp: string, hostPort: number): Disposable | undefined {
  try {
    return bindHostPort(protocol, hostIp, hostPort);
  } catch (error) {
    if (protocol === "sctp" && errnoOf(error) === "EPROTONOSUPPORT") return undefined;
    throw error;
  }
}

/** Whether two host addresses exclude each other on one port. */
function meet(a: string, b: string): boolean {
  if (a === b) return true;
  if (!anyAddress.has(a) && !anyAddress.has(b)) return false;
  if (a === "" || b === "") return true;
  return parseIp(a)?.family === parseIp(b)?.family;
}
