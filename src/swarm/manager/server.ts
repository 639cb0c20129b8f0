/**
 * The manager's port: TLS 1.2+, ALPN h2 (or none), client certificate optional. A peer that shows a certificate is checked against
 * the swarm's root here, before a byte of HTTP/2 is read: one of a foreign CA is hung up on, one of ours is remembered
 * for the calls of its connection. Sockets are then injected into a gRPC server of the measure of who is at the other end.
 */

import { isIP, type Socket } from "node:net";
import { createServer, type TLSSocket, type Server as TlsServer } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import { type CallContext, Server, ServerCredentials } from "../../base/grpc-server.ts";
import type { Logger } from "../../base/log.ts";
import { type Identity, identityOf, MANAGER_OU, splitPem, verifyChain } from "../ca/certificates.ts";
import type { NodeCredentials } from "../ca/files.ts";
import { BoundedWarning, Crowd, STRANGER_STAYS_MS } from "./strangers.ts";

const HANDSHAKE_TIMEOUT_MS = 10_000;
/**
 * Handshakes that are not done yet; one takes milliseconds. But when a leader dies a thousand nodes come at once, to
 * managers that are busy with the same: who is turned out then comes back later each time.
 */
const HANDSHAKES = { max: 1024, perAddress: 512 };
/** Connections without a certificate. */
const STRANGERS = { max: 512, perAddress: 256 };
/** A worker has one connection, two while it renews; what a lost link left behind is not counted out by TCP for minutes. */
const PER_WORKER = 4;

/**
 * How much of this process's memory one connection may take: calls at a time, bytes per message. A worker's calls are
 * its session and one per log that somebody follows. A manager passes on the calls of all its nodes. Go's default for a
 * message is 4 MiB, of which a worker's reports and log lines are a small part and a signing request a tiny one.
 */
const measures = {
  stranger: { "grpc.max_concurrent_streams": 16, "grpc.max_receive_message_length": 64 << 10 },
  worker: { "grpc.max_concurrent_streams": 512, "grpc.max_receive_message_length": 1 << 20 },
  manager: { "grpc.max_receive_message_length": 4 << 20 },
} as const;
type Measure = keyof typeof measures;

export interface ManagerServer {
  /** "ip:port" really bound. */
  readonly address: string;
  /** Who makes the call; undefined when it came without a certificate. */
  identityOf(context: CallContext): Identity | undefined;
  /** New connections use these credentials from now on. */
  setCredentials(credentials: NodeCredentials): void;
  /** Ends the connections of a node that was removed. */
  disconnect(nodeId: string): void;
  close(): Promise<void>;
}

/** Splits "ip:port" or "[ip6]:port". */
export function splitAddress(address: string): { host: string; port: number } {
  const at = address.lastIndexOf(":");
  const host = address.slice(0, at).replace(/^\[|\]$/g, "");
  const port = Number(address.slice(at + 1));
  if (at < 0 || isIP(host) === 0 || !Number.isInteger(port) || port < 0 || port > 65535) {
    throw new Error(`invalid address ${address}: it must be ip:port`);
  }
  return { host, port };
}

/** Joins host and port, with brackets around an IPv6 address. */
export function joinAddress(host: string, port: number): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

const peerOf = (socket: { remoteAddress?: string; remotePort?: number }) =>
  `${socket.remoteAddress}:${socket.remotePort}`;

/** Connections that speak something else than gRPC. */
export interface Tunnels {
  /** The protocol by which they are known. */
  readonly alpn: string;
  /** Takes one of a peer whose certificate is of the swarm's root; destroys it when it is not allowed. */
  accept(socket: TLSSocket, identity: Identity): void;
}

/** `register` is called once for each measure, with the same services. */
export async function listenManager(
  address: string,
  initial: NodeCredentials,
  register: (grpc: Server, identityOf: (context: CallContext) => Identity | undefined) => void,
  clock: Clock,
  log: Logger,
  tunnels?: Tunnels,
): Promise<ManagerServer> {
  const { host, port } = splitAddress(address);
  let credentials = initial;
  /** By peer; an address may be used again before its last connection was heard to close. */
  const members = new Map<string, { readonly socket: TLSSocket; readonly identity: Identity }>();
  const sockets = new Set<TLSSocket>();
  const handshakes = new Crowd(HANDSHAKES.max, HANDSHAKES.perAddress);
  const greeted = new Map<string, () => void>();
  const strangers = new Crowd(STRANGERS.max, STRANGERS.perAddress);
  const workers = new Crowd(Number.POSITIVE_INFINITY, PER_WORKER);
  const refused = new BoundedWarning(log, clock, "refused a connection");
  const identify = (context: CallContext) => members.get(context.peer)?.identity;
  const listen = (measure: Measure) => {
    const grpc = new Server({
      "grpc.max_send_message_length": -1,
      "grpc.enable_channelz": 0,
      ...measures[measure],
    });
    register(grpc, identify);
    return { grpc, injector: grpc.createConnectionInjector(ServerCredentials.createInsecure()) };
  };
  const servers = { stranger: listen("stranger"), worker: listen("worker"), manager: listen("manager") };

  /** Of which measure the peer is; undefined when it is refused. */
  const admit = (socket: TLSSocket, peer: string): Measure | undefined => {
    const crowded = (reason: string) => () => {
      refused.tell({ peer, reason });
      socket.destroy();
    };
    const leaf = socket.getPeerX509Certificate()?.raw;
    if (!leaf) {
      const leave = strangers.enter(socket.remoteAddress ?? "", crowded("too many connections without a certificate"));
      const cancel = clock.after(STRANGER_STAYS_MS, () => socket.destroy());
      socket.once("close", () => {
        cancel();
        leave();
      });
      return "stranger";
    }
    // OpenSSL has judged the chain with all that the peer sent; node does not always hand out its intermediates.
    const refusal = socket.authorized
      ? undefined
      : (verifyChain([leaf], credentials.rootPem, clock.now(), "client") ?? String(socket.authorizationError));
    if (refusal) {
      refused.tell({ peer, reason: refusal });
      return undefined;
    }
    const identity = identityOf(leaf);
    members.set(peer, { socket, identity });
    if (identity.ou === MANAGER_OU) return "manager";
    socket.once("close", workers.enter(identity.cn, crowded(`node ${identity.cn} has too many connections`)));
    return "worker";
  };

  const tls: TlsServer = createServer(
    {
      ...tlsOptions(credentials),
      requestCert: true,
      rejectUnauthorized: false,
      ALPNProtocols: tunnels ? ["h2", tunnels.alpn] : ["h2"],
      minVersion: "TLSv1.2",
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    },
    (socket) => {
      const peer = peerOf(socket);
      greeted.get(peer)?.();
      socket.on("error", (error) => log.debug("a connection broke", { peer, error }));
      members.delete(peer);
      const measure = admit(socket, peer);
      if (measure === undefined) {
        socket.destroy();
        return;
      }
      sockets.add(socket);
      socket.once("close", () => {
        sockets.delete(socket);
        if (members.get(peer)?.socket === socket) members.delete(peer);
      });
      if (tunnels && socket.alpnProtocol === tunnels.alpn) {
        const identity = members.get(peer)?.identity;
        if (identity) tunnels.accept(socket, identity);
        else socket.destroy();
        return;
      }
      // A Docker node offers no ALPN any more once it has renewed its certificate; node's HTTP/2 server would hang up.
      if (!socket.alpnProtocol) socket.alpnProtocol = "h2";
      servers[measure].injector.injectConnection(socket);
    },
  );
  tls.on("connection", (socket: Socket) => {
    const peer = peerOf(socket);
    const leave = handshakes.enter(socket.remoteAddress ?? "", () => {
      refused.tell({ peer, reason: "too many connections that have not finished their handshake" });
      socket.destroy();
    });
    const done = () => {
      leave();
      if (greeted.get(peer) === done) greeted.delete(peer);
    };
    greeted.set(peer, done);
    socket.once("close", done);
  });
  tls.on("tlsClientError", (error, socket) => log.debug("TLS handshake failed", { peer: peerOf(socket), error }));
  await new Promise<void>((resolve, reject) => {
    tls.once("error", reject);
    tls.listen({ port, host, backlog: HANDSHAKES.max }, () => {
      tls.off("error", reject);
      resolve();
    });
  });
  const bound = tls.address();
  const boundPort = bound && typeof bound === "object" ? bound.port : port;

  return {
    address: joinAddress(host, boundPort),
    identityOf: identify,
    setCredentials(next) {
      credentials = next;
      tls.setSecureContext(tlsOptions(next));
    },
    disconnect(nodeId) {
      for (const { identity, socket } of members.values()) if (identity.cn === nodeId) socket.destroy();
    },
    async close() {
      const closed = new Promise<void>((resolve) => tls.close(() => resolve()));
      for (const { injector } of Object.values(servers)) injector.destroy();
      for (const socket of sockets) socket.destroy();
      for (const { grpc } of Object.values(servers)) grpc.forceShutdown();
      await closed;
      refused.close();
    },
  };
}

function tlsOptions({ certPem, keyPem, rootPem }: NodeCredentials) {
  const ca = splitPem(rootPem);
  // Without a root of our own OpenSSL would believe the machine's.
  if (ca.length === 0) throw new Error("the swarm has no root certificate");
  return { cert: certPem, key: keyPem, ca };
}
