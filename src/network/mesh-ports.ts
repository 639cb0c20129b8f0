/**
 * The routing mesh's ports on this host's sockets. A socket keeps a port from other programs; at IPv6 addresses it is
 * also where clients come in, whom the daemon carries to the mesh's door (`balancer/relay.ts`): the ingress network has
 * IPv4 only. Each address is had or not had on its own: a host without IPv6, or a program that has the port already at
 * one address, takes nothing away from the others.
 */
import { contains, parseCidr, parseIp } from "../base/address.ts";
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
  readonly #ports: Pick<HostPorts, "take" | "release">;
  readonly #log: Logger;
  readonly #held = new Set<string>();
  /** Not to be had; tried again, but told only once. */
  readonly #missed = new Set<string>();

  constructor(ports: Pick<HostPorts, "take" | "release">, log: Logger) {
    this.#ports = ports;
    this.#log = log;
  }

  /** Makes the sockets those of these ports, on a host with these addresses. */
  follow(ports: readonly MeshPort[], host: readonly { readonly address: string }[]): void {
    const wanted = new Map(ports.flatMap((port) => placesOf(port, host)).map((place) => [ownerOf(place), place]));
    for (const owner of this.#held) {
      if (wanted.has(owner)) continue;
      this.#ports.release(owner);
      this.#held.delete(owner);
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

function placesOf(port: MeshPort, host: readonly { readonly address: string }[]): Place[] {
  const { protocol, publishedPort, bound = ["0.0.0.0/0", "::/0"] } = port;
  const hasIpv6 = protocol !== "sctp" && host.some(({ address }) => address.includes(":"));
  const families = hasIpv6 ? ([4, 6] as const) : ([4] as const);
  return families.flatMap((family) =>
    subnetsOf(bound, family)
      .flatMap((subnet) => addressesIn(subnet, host, protocol === "udp" && family === 6))
      .map((address) => ({ port: { protocol, publishedPort }, address })),
  );
}

/**
 * The addresses of this host in a subnet. `each`: one by one even where one socket would do for all, because datagrams
 * from such a socket leave by the address that the kernel prefers, not by the one that was asked.
 */
function addressesIn(subnet: string, host: readonly { readonly address: string }[], each: boolean): string[] {
  if (subnet === "0.0.0.0/0" && !each) return ["0.0.0.0"];
  if (subnet === "::/0" && !each) return ["::"];
  const [address = "", prefix] = subnet.split("/");
  if (prefix === (address.includes(":") ? "128" : "32")) return [address];
  const parsed = parseCidr(subnet)?.subnet;
  return host.flatMap((one) => {
    const ip = parseIp(one.address);
    return ip && parsed && contains(parsed, ip) && !isLinkLocal(one.address) ? [one.address] : [];
  });
}

/** Means nothing without its device. */
const isLinkLocal = (address: string): boolean => /^fe[89ab]/i.test(address);
