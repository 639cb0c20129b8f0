/**
 * A published port for those who cannot be translated: IPv6 clients of containers and of a mesh that have only IPv4,
 * and local programs that say [::1]. What Docker's userland proxy is for; everybody else is translated in the kernel
 * and never comes here. The listening socket also keeps the port from other programs.
 *
 * The container sees this host's address: that of the client cannot be told in the other family.
 */
import dgram from "node:dgram";
import net from "node:net";
import { type Clock, systemClock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";

export interface RelayOptions {
  readonly protocol: "tcp" | "udp";
  /** "::" for every IPv6 address. */
  readonly address: string;
  readonly port: number;
  /** Where it goes to, from the daemon's namespace. */
  readonly target: { readonly address: string; readonly port: number };
  readonly log: Logger;
  readonly clock?: Clock;
}

export interface Relay extends AsyncDisposable {
  readonly port: number;
}

/** Connections, or datagram clients, at once; further ones wait in the kernel's queue or are dropped. */
const MOST_CLIENTS = 1024;
/** A datagram client that says nothing for so long is forgotten; Docker's proxy has the same. */
const UDP_IDLE_MS = 90_000;

/** Rejects with EADDRINUSE and its kin when the port is not to be had. */
export function startRelay(options: RelayOptions): Promise<Relay> {
  return options.protocol === "tcp" ? relayTcp(options) : relayUdp(options);
}

async function relayTcp({ address, port, target, log }: RelayOptions): Promise<Relay> {
  const open = new Set<net.Socket>();
  const server = net.createServer({ allowHalfOpen: true }, (client) => {
    const upstream = net.connect({ host: target.address, port: target.port, allowHalfOpen: true });
    for (const socket of [client, upstream]) {
      open.add(socket);
      socket.setNoDelay(true);
    }
    const end = (one: net.Socket, other: net.Socket) => {
      one.on("error", (error) => log.debug("relay", { port, error: messageOf(error) }));
      // A reset on one side is a reset on the other, not an end that looks regular.
      one.on("close", (failed) => {
        open.delete(one);
        if (failed) other.resetAndDestroy();
      });
    };
    end(client, upstream);
    end(upstream, client);
    client.pipe(upstream).pipe(client);
  });
  server.maxConnections = MOST_CLIENTS;
  await ready(server, () => server.listen({ host: address, port, ipv6Only: true }));
  server.on("error", (error) => log.warn("relay failed", { port, error: messageOf(error) }));
  const bound = server.address();
  return {
    port: typeof bound === "object" && bound ? bound.port : port,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}

interface UdpClient {
  readonly socket: dgram.Socket;
  forget: () => void;
}

async function relayUdp({ address, port, target, log, clock = systemClock }: RelayOptions): Promise<Relay> {
  const server = dgram.createSocket({ type: "udp6", ipv6Only: true });
  const clients = new Map<string, UdpClient>();
  const drop = (key: string) => {
    const client = clients.get(key);
    if (!client) return;
    clients.delete(key);
    client.forget();
    client.socket.close();
  };

  const admit = (key: string, from: dgram.RemoteInfo): UdpClient => {
    const socket = dgram.createSocket(net.isIPv6(target.address) ? "udp6" : "udp4");
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
    if (!known && clients.size >= MOST_CLIENTS) return;
    const { socket } = known ?? admit(key, from);
    touch(key);
    socket.send(data, target.port, target.address);
  });
  await ready(server, () => server.bind({ address, port, exclusive: true }));
  server.on("error", (error) => log.warn("relay failed", { port, error: messageOf(error) }));
  return {
    port: server.address().port,
    async [Symbol.asyncDispose]() {
      for (const key of [...clients.keys()]) drop(key);
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Waits until `start` has led to "listening". */
function ready(emitter: NodeJS.EventEmitter, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    emitter.once("error", reject);
    emitter.once("listening", () => {
      emitter.off("error", reject);
      resolve();
    });
    start();
  });
}
