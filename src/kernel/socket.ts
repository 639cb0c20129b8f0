/**
 * Sockets of other namespaces, handed to Node by descriptor: a socket belongs for ever to the namespace in
 * which it was made, while Node makes its own later, outside.
 */
import dgram from "node:dgram";
import net from "node:net";
import { errnoOf } from "../base/errors.ts";
import { BACKLOG } from "./epoll.ts";
import { KernelError } from "./error.ts";
import { familyOf, sockaddr } from "./inet.ts";
import * as libc from "./libc.ts";
import type { NetNs } from "./types.ts";

const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_IP = 0;
const IP_FREEBIND = 15;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const IPPROTO_SCTP = 132;

interface BindOptions {
  readonly reuse?: boolean;
  /** The address may be one that the namespace has not yet. */
  readonly early?: boolean;
}

/** A bound descriptor, made in the thread's present namespace. */
function bound(type: number, protocol: number, address: string, port: number, options: BindOptions = {}): number {
  const family = familyOf(address);
  const fd = libc.socket(family === 4 ? libc.AF_INET : libc.AF_INET6, type | libc.SOCK_NONBLOCK, protocol);
  try {
    if (family === 6) libc.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (options.reuse) libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (options.early) libc.setsockopt(fd, IPPROTO_IP, IP_FREEBIND, 1);
    libc.bind(fd, sockaddr(address, port), `bind ${address}:${port}`);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** A UDP socket of `ns`; port 0 lets the kernel choose. The caller closes it. */
export async function udpSocketIn(ns: NetNs, address: string, port: number): Promise<dgram.Socket> {
  const fd = ns.run(() => bound(libc.SOCK_DGRAM, 0, address, port));
  const socket = dgram.createSocket(familyOf(address) === 4 ? "udp4" : "udp6");
  const ready = Promise.withResolvers<void>();
  socket.once("error", ready.reject);
  socket.bind({ fd }, ready.resolve);
  try {
    await ready.promise;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  socket.off("error", ready.reject);
  return socket;
}

/**
 * A listening TCP server of `ns`; port 0 lets the kernel choose. Connections may be half-open: end them
 * yourself. The caller closes it. `early`: the address may come later.
 */
export async function tcpListenerIn(
  ns: NetNs,
  address: string,
  port: number,
  options: Pick<BindOptions, "early"> = {},
): Promise<net.Server> {
  const fd = ns.run(() => bound(libc.SOCK_STREAM, 0, address, port, { ...options, reuse: true }));
  const server = net.createServer({ allowHalfOpen: true });
  const ready = Promise.withResolvers<void>();
  server.once("error", ready.reject);
  server.listen({ fd }, ready.resolve);
  try {
    await ready.promise;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  server.off("error", ready.reject);
  return server;
}

/** A TCP connection from inside `ns`, being made: as `net.connect`, it tells by events. */
export function tcpConnectIn(
  ns: NetNs,
  address: string,
  port: number,
  options: Pick<net.SocketConstructorOpts, "allowHalfOpen"> = {},
): net.Socket {
  const fd = ns.run(() => bound(libc.SOCK_STREAM, 0, familyOf(address) === 4 ? "0.0.0.0" : "::", 0));
  return new net.Socket({ ...options, fd }).connect(port, address);
}

/**
 * A descriptor for Node to listen on (TCP) or to receive on (UDP), in the thread's present namespace, without the
 * detour through name resolution: an address that is taken is told at once. Whoever gets it closes it.
 */
export function hostSocket(
  protocol: "tcp" | "udp",
  address: string,
  port: number,
  options: Pick<BindOptions, "early"> = {},
): { fd: number; port: number } {
  const tcp = protocol === "tcp";
  const fd = bound(tcp ? libc.SOCK_STREAM : libc.SOCK_DGRAM, 0, address, port, { ...options, reuse: tcp });
  try {
    if (tcp) libc.listen(fd, BACKLOG, `listen ${address}:${port}`);
    return { fd, port: libc.getsockname(fd).readUInt16BE(2) };
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** A descriptor that listens (TCP) in `ns`, at an address that may come later; port 0 lets the kernel choose. */
export function listeningSocketIn(ns: NetNs, address: string, port: number): { fd: number; port: number } {
  return ns.run(() => hostSocket("tcp", address, port, { early: true }));
}

/** A port kept from everybody else until disposed. */
export interface PortReservation extends Disposable {
  readonly port: number;
}

/**
 * Reserves a port at once: EADDRINUSE when somebody has it, EADDRNOTAVAIL when the address is not this host's.
 * `address` "" means all addresses of both families; port 0 lets the kernel choose. Nothing listens:
 * what is not translated away before it comes here is refused.
 */
export function bindHostPort(
  protocol: "tcp" | "udp" | "sctp",
  address: string,
  port: number,
  ns?: NetNs,
): PortReservation {
  const fds: number[] = [];
  const release = () => {
    for (const fd of fds.splice(0)) libc.close(fd);
  };
  const reserve = () => {
    let chosen = port;
    for (const one of address === "" ? ["0.0.0.0", "::"] : [address]) {
      try {
        const fd = reserveOne(protocol, one, chosen);
        fds.push(fd);
        chosen = libc.getsockname(fd).readUInt16BE(2);
      } catch (error) {
        // A host without IPv6 has no IPv6 port to keep.
        if (address === "" && one === "::" && withoutIpv6(error)) continue;
        throw error;
      }
    }
    return chosen;
  };
  try {
    const chosen = ns ? ns.run(reserve) : reserve();
    return { port: chosen, [Symbol.dispose]: release };
  } catch (error) {
    release();
    throw error;
  }
}

function reserveOne(protocol: "tcp" | "udp" | "sctp", address: string, port: number): number {
  if (protocol === "udp") return bound(libc.SOCK_DGRAM, 0, address, port);
  const fd = bound(libc.SOCK_STREAM, protocol === "sctp" ? IPPROTO_SCTP : 0, address, port, { reuse: true });
  try {
    // SO_REUSEADDR gets past lingering TIME_WAIT; then it is listening that finds out a rival. After that the
    // socket only keeps the port, without reuse, and refuses who comes here after all instead of letting him wait.
    libc.listen(fd, 1, `listen ${address}:${port}`);
    libc.shutdown(fd);
    libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 0);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

function withoutIpv6(error: unknown): boolean {
  return error instanceof KernelError && ["EAFNOSUPPORT", "EADDRNOTAVAIL"].includes(errnoOf(error) ?? "");
}
