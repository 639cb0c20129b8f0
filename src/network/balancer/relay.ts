/**
 * A published port for those who cannot be translated: IPv6 clients of containers that have only IPv4, and local
 * programs that say [::1]. What Docker's userland proxy is for; everybody else is translated in the kernel and never
 * comes here. The listening socket also keeps the port from other programs.
 *
 * The container sees this host's address: that of the client cannot be told in the other family.
 */
import dgram from "node:dgram";
import net from "node:net";
import { type Clock, systemClock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { hostSocket } from "../../kernel/socket.ts";
import { carrier } from "../carrier/carrier.ts";
import type { End, Route } from "../carrier/types.ts";

export interface RelayOptions {
  readonly protocol: "tcp" | "udp";
  /** "::" for every IPv6 address. */
  readonly address: string;
  readonly port: number;
  /** Where it goes to, from the daemon's namespace; asked for each client. Nowhere: the client is turned away. */
  readonly target: () => { readonly address: string; readonly port: number } | undefined;
  /** TCP: another way for this client, if there is one. */
  readonly routeOf?: ((client: End, at: End) => Route | undefined) | undefined;
  /** Connections go on when the relay is closed, until one of their ends ends them. */
  readonly lingers?: boolean;
  readonly log: Logger;
  readonly clock?: Clock;
}

export interface Relay extends AsyncDisposable {
  readonly port: number;
}

/** Datagram clients at once; what further ones send is dropped. */
const MOST_CLIENTS = 1024;
/** A datagram client that says nothing for so long is forgotten; Docker's proxy has the same. */
const UDP_IDLE_MS = 90_000;

/** Throws EADDRINUSE and its kin when the port is not to be had. */
export function openRelay(options: RelayOptions): Relay {
  return options.protocol === "tcp" ? relayTcp(options) : relayUdp(options);
}

/** Carried in a thread of its own (../carrier), which asks for each client. */
function relayTcp({ address, target, routeOf, lingers, log, ...options }: RelayOptions): Relay {
  const { fd, port } = hostSocket("tcp", address, options.port);
  const route = (client: End, at: End) => routeOf?.(client, at) ?? target();
  const listener = carrier().listen({ fd, route, log: log.with({ port }) });
  return {
    port,
    async [Symbol.asyncDispose]() {
      listener.close(lingers ? "linger" : "reset");
    },
  };
}

interface UdpClient {
  readonly socket: dgram.Socket;
  forget: () => void;
}

function relayUdp(options: RelayOptions): Relay {
  const { target, log, clock = systemClock } = options;
  const { fd, port } = hostSocket("udp", options.address, options.port);
  const server = dgram.createSocket(net.isIPv6(options.address) ? "udp6" : "udp4");
  const clients = new Map<string, UdpClient>();
  const drop = (key: string) => {
    const client = clients.get(key);
    if (!client) return;
    clients.delete(key);
    client.forget();
    client.socket.close();
  };

  const admit = (key: string, from: dgram.RemoteInfo, to: { address: string; port: number }): UdpClient => {
    const socket = dgram.createSocket(net.isIPv6(to.address) ? "udp6" : "udp4");
    socket.on("message", (data) => {
      touch(key);
      server.send(data, from.port, from.address);
    });
    // The target's refusal; the client may try again.
    socket.on("error", () => drop(key));
    const client = { socket, forget: () => {} };
    clients.set(key, client);
    return client;
  };
  const touch = (key: string) => {
    const client = clients.get(key);
    if (!client) return;
    client.forget();
    client.forget = clock.after(UDP_IDLE_MS, () => drop(key));
  };

  server.on("message", (data, from) => {
    const key = `${from.address} ${from.port}`;
    const known = clients.get(key);
    const to = target();
    if (!to || (!known && clients.size >= MOST_CLIENTS)) return;
    const { socket } = known ?? admit(key, from, to);
    touch(key);
    socket.send(data, to.port, to.address);
  });
  server.on("error", (error) => log.warn("relay failed", { port, error: messageOf(error) }));
  server.bind({ fd });
  return {
    port,
    async [Symbol.asyncDispose]() {
      for (const key of [...clients.keys()]) drop(key);
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}
