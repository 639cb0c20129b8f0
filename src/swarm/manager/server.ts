/**
 * The manager's port: TLS 1.2+, ALPN h2 (or none), client certificate optional. A peer that shows a certificate is checked against
 * the swarm's root here, before a byte of HTTP/2 is read: one of a foreign CA is hung up on, one of ours is remembered
 * for the calls of its connection. Sockets are then injected into the gRPC server.
 */

import { isIP } from "node:net";
import { createServer, type TLSSocket, type Server as TlsServer } from "node:tls";
import type { Clock } from "../../base/clock.ts";
import { type CallContext, Server, ServerCredentials } from "../../base/grpc.ts";
import type { Logger } from "../../base/log.ts";
import { type Identity, identityOf, splitPem, verifyChain } from "../ca/certificates.ts";
import type { NodeCredentials } from "../ca/files.ts";
import { BoundedWarning, STRANGER_STAYS_MS, Strangers } from "./strangers.ts";

const HANDSHAKE_TIMEOUT_MS = 10_000;

export interface ManagerServer {
  readonly grpc: Server;
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
  const identities = new Map<string, Identity>();
  const sockets = new Set<TLSSocket>();
  const strangers = new Strangers();
  const refused = new BoundedWarning(log, clock, "refused a connection");
  const grpc = new Server({ "grpc.max_receive_message_length": 4 << 20, "grpc.max_send_message_length": -1 });
  const identify = (context: CallContext) => identities.get(context.peer);
  register(grpc, identify);
  const injector = grpc.createConnectionInjector(ServerCredentials.createInsecure());

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
      socket.on("error", (error) => log.debug("a connection broke", { peer, error }));
      const leaf = socket.getPeerX509Certificate()?.raw;
      if (leaf) {
        // OpenSSL has judged the chain with all that the peer sent; node does not always hand out its intermediates.
        const refusal = socket.authorized
          ? undefined
          : (verifyChain([leaf], credentials.rootPem, clock.now(), "client") ?? String(socket.authorizationError));
        if (refusal) {
          refused.tell({ peer, reason: refusal });
          socket.destroy();
          return;
        }
        identities.set(peer, identityOf(leaf));
      } else {
        const leave = strangers.enter(socket.remoteAddress ?? "");
        if (!leave) {
          refused.tell({ peer, reason: "too many connections without a certificate" });
          socket.destroy();
          return;
        }
        const cancel = clock.after(STRANGER_STAYS_MS, () => socket.destroy());
        socket.once("close", () => {
          cancel();
          leave();
        });
      }
      sockets.add(socket);
      socket.once("close", () => {
        sockets.delete(socket);
        identities.delete(peer);
      });
      if (tunnels && socket.alpnProtocol === tunnels.alpn) {
        const identity = identities.get(peer);
        if (identity) tunnels.accept(socket, identity);
        else socket.destroy();
        return;
      }
      // A Docker node offers no ALPN any more once it has renewed its certificate; node's HTTP/2 server would hang up.
      if (!socket.alpnProtocol) socket.alpnProtocol = "h2";
      injector.injectConnection(socket);
    },
  );
  tls.on("tlsClientError", (error, socket) => log.debug("TLS handshake failed", { peer: peerOf(socket), error }));
  await new Promise<void>((resolve, reject) => {
    tls.once("error", reject);
    tls.listen(port, host, () => {
      tls.off("error", reject);
      resolve();
    });
  });
  const bound = tls.address();
  const boundPort = bound && typeof bound === "object" ? bound.port : port;

  return {
    grpc,
    address: joinAddress(host, boundPort),
    identityOf: identify,
    setCredentials(next) {
      credentials = next;
      tls.setSecureContext(tlsOptions(next));
    },
    disconnect(nodeId) {
      for (const socket of sockets) if (identities.get(peerOf(socket))?.cn === nodeId) socket.destroy();
    },
    async close() {
      const closed = new Promise<void>((resolve) => tls.close(() => resolve()));
      injector.destroy();
      for (const socket of sockets) socket.destroy();
      grpc.forceShutdown();
      await closed;
    },
  };
}

function tlsOptions({ certPem, keyPem, rootPem }: NodeCredentials) {
  const ca = splitPem(rootPem);
  // Without a root of our own OpenSSL would believe the machine's.
  if (ca.length === 0) throw new Error("the swarm has no root certificate");
  return { cert: certPem, key: keyPem, ca };
}
