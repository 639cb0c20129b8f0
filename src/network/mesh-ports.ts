/**
 * The routing mesh's ports on this host's sockets. A socket keeps a port from other programs; at IPv6 addresses it is
 * also where clients come in, whom the daemon carries to the mesh's door (`balancer/relay.ts`): the ingress network has
 * IPv4 only. Each address is had or not had on its own: a host without IPv6, or a program that has the port already at
 * one address, takes nothing away from the others.
 */
import { contains, formatIp, parseCidr, parseIp, sizeOf } from "../base/address.ts";
import { messageOf } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { subnetsOf } from "../base/publish.ts";
import type { MeshPort } from "./balancer/types.ts";
import type { HostPorts } from "./ports.ts";

const onHost = { defaultIp: "", routed4: false, routed6: false };

interface Place {
  readonly port: Pick<MeshPort, "protocol" | "publishedPort">;
  /** "0.0.0.0" and "::" for all of a family. */
  readonly address: string;
}

export class MeshReservations {
  readonly #ports: Pick<HostPorts, "take" | "release" | "announce">;
  readonly #log: Logger;
  readonly #held = new Set<string>();
  /** Not to be had; tried again, but told only once. */
  readonly #missed = new Set<string>();

  constructor(ports: Pick<HostPorts, "take" | "release" | "announce">, log: Logger) {
    this.#ports = ports;
    this.#log = log;
  }

  /** Makes the sockets those of these ports, on a host with these addresses. */
  follow(ports: readonly MeshPort[], host: readonly { readonly address: string }[]): void {
    const addresses = addressesOf(host);
    const wanted = new Map(ports.flatMap((port) => placesOf(port, addresses)).map((place) => [ownerOf(place), place]));
    const gone = [...this.#held].filter((owner) => !wanted.has(owner));
    for (const owner of gone) this.#held.delete(owner);
    const added = [...wanted].filter(([owner, { address }]) => !this.#held.has(owner) && address.includes(":"));
    try {
      if (gone.length > 0) this.#ports.release(...gone);
      this.#ports.announce(added.map(([, { port }]) => ({ protocol: port.protocol, port: port.publishedPort })));
    } catch (error) {
      // Those that are translated do not depend on it.
      this.#log.error("the operator's chain cannot be told of relayed ports", { error: messageOf(error) });
    }
    for (const owner of this.#missed) if (!wanted.has(owner)) this.#missed.delete(owner);
    for (const [owner, { port, address }] of wanted) {
      if (this.#held.has(owner)) continue;
      try {
        const number = { containerPort: port.publishedPort, hostPort: port.publishedPort, hostPortEnd: 0 };
        this.#ports.take(owner, [{ protocol: port.protocol, hostIp: address, ...number }], onHost);
        this.#held.add(owner);
        this.#missed.delete(owner);
      } catch (error) {
        if (this.#missed.has(owner)) continue;
        this.#missed.add(owner);
        // What is translated is so all the same, as with Docker.
        const what = { port: `${port.protocol} ${port.publishedPort}`, address, error: messageOf(error) };
        this.#log.warn("a port of the routing mesh is in use on this host", what);
      }
    }
  }
}

const ownerOf = ({ port, address }: Place): string => `routing mesh ${port.protocol} ${port.publishedPort} ${address}`;

/** Plain addresses of the host that mean something without their device. */
interface Addresses {
  readonly all: readonly string[];
  readonly ipv6: readonly string[];
}

function addressesOf(host: readonly { readonly address: string }[]): Addresses {
  const all = host.map(({ address }) => address).filter((address) => !/^fe[89ab]/i.test(address));
  return { all, ipv6: all.filter((address) => address.includes(":")) };
}

/**
 * Datagrams over IPv6 have a socket at each address even where one would do for all: they would leave by the address that
 * the kernel prefers, not by the one that was asked.
 */
function placesOf({ protocol, publishedPort, bound }: MeshPort, host: Addresses): Place[] {
  const port = { protocol, publishedPort };
  const everywhere6 = protocol === "udp" ? host.ipv6 : ["::"];
  const ipv4 = bound ? subnetsOf(bound, 4).flatMap((subnet) => addressesIn(subnet, ["0.0.0.0"], host)) : ["0.0.0.0"];
  const ipv6 = bound ? subnetsOf(bound, 6).flatMap((subnet) => addressesIn(subnet, everywhere6, host)) : everywhere6;
  const hasIpv6 = protocol !== "sctp" && host.ipv6.length > 0;
  return [...ipv4, ...(hasIpv6 ? ipv6 : [])].map((address) => ({ port, address }));
}

/** The addresses of this host in a subnet. One that is named itself is taken at its word: 127.0.0.0/8 is all there. */
function addressesIn(subnet: string, everywhere: readonly string[], host: Addresses): readonly string[] {
  const parsed = parseCidr(subnet);
  if (!parsed) return [];
  if (parsed.subnet.prefix === 0) return everywhere;
  if (sizeOf(parsed.subnet) === 1n) return [formatIp(parsed.ip)];
  return host.all.filter((address) => {
    const ip = parseIp(address);
    return ip !== undefined && contains(parsed.subnet, ip);
  });
}
