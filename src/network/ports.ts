/**
 * Published ports of this host: who has which. A port is also kept on a socket, so that no other program
 * takes it and one that has it already is found out; traffic never reaches that socket, it is translated before.
 */
import { errnoOf, SkeinError } from "../base/errors.ts";
import { bindHostPort, type PortReservation } from "../kernel/socket.ts";
import { parseIp } from "./address.ts";
import type { PortBinding, PublishedPort } from "./types.ts";

/** Where ports are chosen from when none was asked for; Linux's own range for local ports. */
const ephemeral = { first: 32768, last: 60999 };

interface Held {
  readonly owner: string;
  readonly port: PublishedPort;
  readonly reservation: PortReservation | undefined;
}

const anyAddress = new Set(["", "0.0.0.0", "::"]);

const words: Record<string, string> = {
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "cannot assign requested address",
  EACCES: "permission denied",
};

export class HostPorts {
  #held: Held[] = [];
  #next = ephemeral.first;

  /**
   * Takes the ports of a container, all or none. `families`: of the addresses that the container has.
   * `defaultIp` stands in for a binding without address.
   */
  take(
    owner: string,
    bindings: readonly PortBinding[],
    families: { ipv6: boolean },
    defaultIp: string,
  ): PublishedPort[] {
    const before = this.#held.length;
    try {
      return bindings.flatMap((binding) => this.#takeOne(owner, binding, families, defaultIp));
    } catch (error) {
      for (const held of this.#held.splice(before)) held.reservation?.[Symbol.dispose]();
      throw error;
    }
  }

  /** Ports of a container that outlived the daemon. One that was lost meanwhile is still translated. */
  adopt(owner: string, ports: readonly PublishedPort[]): void {
    for (const port of ports) {
      let reservation: PortReservation | undefined;
      try {
        reservation = bindHostPort(port.protocol, port.hostIp, port.hostPort);
      } catch {
        // Someone else listens there now: the translation goes first, as it did.
      }
      this.#held.push({ owner, port, reservation });
    }
  }

  release(owner: string): void {
    const gone = this.#held.filter((held) => held.owner === owner);
    this.#held = this.#held.filter((held) => held.owner !== owner);
    for (const held of gone) held.reservation?.[Symbol.dispose]();
  }

  #takeOne(owner: string, binding: PortBinding, families: { ipv6: boolean }, defaultIp: string): PublishedPort[] {
    const hostIp = binding.hostIp || defaultIp;
    // An IPv6 client can be translated only to an IPv6 container.
    const addresses = hostIp ? [hostIp] : families.ipv6 ? ["0.0.0.0", "::"] : ["0.0.0.0"];
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
        if (!(error instanceof SkeinError)) throw error;
      }
    }
    throw new SkeinError("internal", "all ports are allocated");
  }

  #hold(owner: string, binding: PortBinding, addresses: readonly string[], hostPort: number): PublishedPort[] {
    const { protocol, containerPort } = binding;
    const taken: Held[] = [];
    for (const hostIp of addresses) {
      const rival = this.#held.find(
        (held) => held.port.protocol === protocol && held.port.hostPort === hostPort && meet(held.port.hostIp, hostIp),
      );
      const shown = hostIp.includes(":") ? `[${hostIp}]` : hostIp;
      if (rival) {
        for (const held of taken) held.reservation?.[Symbol.dispose]();
        throw new SkeinError("internal", `Bind for ${shown}:${hostPort} failed: port is already allocated`);
      }
      try {
        taken.push({
          owner,
          port: { protocol, containerPort, hostIp, hostPort },
          reservation: reserve(protocol, hostIp, hostPort),
        });
      } catch (error) {
        for (const held of taken) held.reservation?.[Symbol.dispose]();
        const why = words[errnoOf(error) ?? ""];
        if (!why) throw error;
        const family = hostIp.includes(":") ? 6 : 4;
        throw new SkeinError(
          "internal",
          `Error starting userland proxy: listen ${protocol}${family} ${shown}:${hostPort}: bind: ${why}`,
        );
      }
    }
    this.#held.push(...taken);
    return taken.map((held) => held.port);
  }
}

/** A kernel without SCTP sockets can still translate it. */
function reserve(protocol: "tcp" | "udp" | "sctp", hostIp: string, hostPort: number): PortReservation | undefined {
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
