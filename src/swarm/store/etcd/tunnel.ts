/**
 * How the etcd members of different hosts reach each other with no port open but the managers' own.
 *
 *     etcd A ──> socket "<node B>:2380" of A's skeind ══ TLS, ALPN "skein-etcd", to B's 2377 ══> skeind B ──> socket "<node B>:2380" of etcd B
 *
 * A member's peer URL is `unixs://<node id>:2380`: the same on every host. For etcd that is a unix socket in its working
 * directory, on the member's own host etcd's, on every other host one of ours that leads there; and it is the name that
 * the member's certificate is for, so etcd's own mutual TLS goes from member to member unbroken, inside of the tunnel.
 * (A DNS name would be looked up before a member joins, an address would have to be in the certificate.)
 */
import { rmSync } from "node:fs";
import { connect as connectLocal, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { connect as connectTls, createSecureContext, type SecureContext, type TLSSocket } from "node:tls";
import { messageOf } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import { chainOf, identityOf, MANAGER_OU, verifyChain } from "../../ca/certificates.ts";
import type { NodeCredentials } from "../../ca/files.ts";

/** The protocol name under which a manager's port takes such tunnels. */
export const TUNNEL_ALPN = "skein-etcd";
const DIAL_TIMEOUT_MS = 3_000;

/** A member's socket in etcd's directory: a host and a port, because etcd wants to see them in a URL. */
const socketName = (nodeId: string): string => `${nodeId}:2380`;

/** The address under which the members know each other. */
export const peerUrl = (nodeId: string): string => `unixs://${socketName(nodeId)}`;

/** The node of a member's peer URL. */
export function nodeOfPeerUrl(url: string): string | undefined {
  return /^unixs:\/\/([0-9a-z]+):2380$/.exec(url)?.[1];
}

export interface PeerSocketsOptions {
  /** etcd's working directory. */
  readonly dir: string;
  /** This host's node. */
  readonly self: string;
  /** "host:port" of a manager; undefined when nobody knows. */
  readonly addrOf: (nodeId: string) => string | undefined;
  readonly credentials: () => NodeCredentials;
  readonly log: Logger;
}

/** The sockets through which the local etcd reaches the other members. */
export class PeerSockets {
  readonly #options: PeerSocketsOptions;
  readonly #servers = new Map<string, Server>();
  readonly #sockets = new Set<Duplex>();
  #context: { readonly of: NodeCredentials; readonly secure: SecureContext } | undefined;

  constructor(options: PeerSocketsOptions) {
    this.#options = options;
  }

  /** Has a socket for each of these nodes but this one, and no other. */
  set(nodeIds: readonly string[]): void {
    const { dir, log, self } = this.#options;
    const wanted = new Set(nodeIds.filter((nodeId) => nodeId !== self));
    for (const [nodeId, server] of this.#servers) {
      if (wanted.has(nodeId)) continue;
      server.close();
      this.#servers.delete(nodeId);
    }
    for (const nodeId of wanted) {
      if (this.#servers.has(nodeId)) continue;
      const path = join(dir, socketName(nodeId));
      rmSync(path, { force: true });
      const server = createServer((socket) => this.#connect(nodeId, socket));
      server.on("error", (error) => log.error("no socket for another manager's etcd", { path, error }));
      server.listen(path);
      this.#servers.set(nodeId, server);
    }
  }

  close(): void {
    this.set([]);
    for (const socket of this.#sockets) socket.destroy();
  }

  #track(socket: Duplex): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.on("error", () => {});
  }

  /** Made once: etcd tries to reach a member that is away dozens of times a second. */
  #secureContext(own: NodeCredentials): SecureContext {
    if (this.#context?.of !== own) {
      const secure = createSecureContext({ cert: own.certPem, key: own.keyPem, minVersion: "TLSv1.2" });
      this.#context = { of: own, secure };
    }
    return this.#context.secure;
  }

  #connect(nodeId: string, socket: Socket): void {
    const { addrOf, credentials, log } = this.#options;
    this.#track(socket);
    const addr = addrOf(nodeId);
    if (addr === undefined) {
      socket.destroy();
      return;
    }
    const own = credentials();
    const tunnel = dialTunnel(addr, nodeId, own, this.#secureContext(own));
    this.#track(tunnel);
    tunnel.once("error", (error) => {
      log.debug("no tunnel to another manager's etcd", { peer: nodeId, addr, reason: messageOf(error) });
    });
    tunnel.once("close", () => socket.destroy());
    tunnel.once("verified", () => splice(socket, tunnel));
  }
}

/** A connection to the etcd of a manager; emits "verified" once the other side proved to be it. */
function dialTunnel(
  addr: string,
  nodeId: string,
  credentials: NodeCredentials,
  secureContext: SecureContext,
): TLSSocket {
  const at = addr.lastIndexOf(":");
  const socket = connectTls({
    host: addr.slice(0, at).replace(/^\[|\]$/g, ""),
    port: Number(addr.slice(at + 1)),
    secureContext,
    servername: MANAGER_OU,
    ALPNProtocols: [TUNNEL_ALPN],
    // Judged below by our own rules.
    rejectUnauthorized: false,
  });
  socket.setNoDelay(true);
  socket.setTimeout(DIAL_TIMEOUT_MS, () => socket.destroy(new Error("the manager does not answer")));
  socket.once("secureConnect", () => {
    socket.setTimeout(0);
    const reason = refusal(socket, nodeId, credentials);
    if (reason) socket.destroy(new Error(reason));
    else socket.emit("verified");
  });
  return socket;
}

function refusal(socket: TLSSocket, nodeId: string, { identity, rootPem }: NodeCredentials): string | undefined {
  const chain = chainOf(socket);
  const [leaf] = chain;
  if (!leaf) return "no certificate";
  const bad = verifyChain(chain, rootPem, Date.now(), "server");
  if (bad) return bad;
  const peer = identityOf(leaf);
  if (peer.cn !== nodeId || peer.ou !== MANAGER_OU || peer.o !== identity.o) return `it is ${peer.ou} ${peer.cn}`;
  return socket.alpnProtocol === TUNNEL_ALPN ? undefined : "it takes no tunnels";
}

/** The other end: bytes of a tunnel go to the local etcd in `dir`. The caller knows that a manager sent them. */
export function acceptTunnel(tunnel: TLSSocket, dir: string, self: string): void {
  tunnel.setNoDelay(true);
  splice(connectLocal(join(dir, socketName(self))), tunnel);
}

/** What comes in on one side goes out on the other; they end together. */
function splice(a: Duplex, b: Duplex): void {
  a.on("error", () => b.destroy());
  b.on("error", () => a.destroy());
  a.once("close", () => b.destroy());
  b.once("close", () => a.destroy());
  a.pipe(b);
  b.pipe(a);
}
