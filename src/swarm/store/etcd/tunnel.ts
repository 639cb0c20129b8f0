/**
 * How the etcd members of different hosts reach each other with no port open but the managers' own.
 *
 *     etcd A ── CONNECT <node B>:2380 ──> proxy on A's loopback ══ TLS, ALPN "skein-etcd", to B's 2377 ══> B ── loopback ──> etcd B
 *
 * A member's peer URL is `https://<node id>:2380`: the same on every host, and the name that its certificate is for, so
 * etcd's own mutual TLS goes from member to member unbroken, inside of the tunnel. etcd finds the way because it is
 * started with this proxy in its environment.
 */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { connect as connectTcp, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { messageOf } from "../../../base/errors.ts";
import type { Logger } from "../../../base/log.ts";
import { chainOf, identityOf, MANAGER_OU, verifyChain } from "../../ca/certificates.ts";
import type { NodeCredentials } from "../../ca/files.ts";

/** The protocol name under which a manager's port takes such tunnels. */
export const TUNNEL_ALPN = "skein-etcd";
const DIAL_TIMEOUT_MS = 3_000;
/** Only the name matters: the proxy knows where the member is. */
const PEER_PORT = 2380;

/** The address under which the members know each other. */
export const peerUrl = (nodeId: string): string => `https://${nodeId}:${PEER_PORT}`;

/** The node of a member's peer URL. */
export function nodeOfPeerUrl(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).hostname : undefined;
}

export interface PeerProxyOptions {
  /** "host:port" of a manager; undefined when nobody knows. */
  readonly addrOf: (nodeId: string) => string | undefined;
  readonly credentials: () => NodeCredentials;
  readonly log: Logger;
  /** As it was for an etcd that is still running; default: a free port, a new secret. */
  readonly port?: number;
  readonly secret?: string;
}

export class PeerProxy {
  readonly #options: PeerProxyOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Duplex>();
  readonly secret: string;

  private constructor(options: PeerProxyOptions) {
    this.#options = options;
    this.secret = options.secret ?? randomBytes(16).toString("hex");
    this.#server = createServer((_request, response) => response.writeHead(405).end());
    this.#server.on("connect", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      this.#track(socket);
      this.#connect(request, socket, head);
    });
    this.#server.on("connection", (socket) => this.#track(socket));
  }

  static async listen(options: PeerProxyOptions): Promise<PeerProxy> {
    const proxy = new PeerProxy(options);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once("error", reject);
      proxy.#server.listen(options.port ?? 0, "127.0.0.1", resolve);
    });
    return proxy;
  }

  get port(): number {
    const address = this.#server.address();
    return address && typeof address === "object" ? address.port : 0;
  }

  /** For etcd's HTTPS_PROXY. The secret keeps other users of this host out. */
  get url(): string {
    return `http://skein:${this.secret}@127.0.0.1:${this.port}`;
  }

  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #track(socket: Duplex): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    socket.on("error", () => {});
  }

  #connect(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    if (!this.#mayUse(request)) {
      socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
      return;
    }
    const nodeId = request.url?.replace(/:\d+$/, "") ?? "";
    const addr = this.#options.addrOf(nodeId);
    const refuse = (reason: string) => {
      this.#options.log.debug("no tunnel to a manager's etcd", { peer: nodeId, addr, reason });
      socket.end(`HTTP/1.1 502 ${reason.replace(/[^ -~]/g, "?")}\r\n\r\n`);
    };
    if (addr === undefined) {
      refuse("the manager's address is not known");
      return;
    }
    const tunnel = dialTunnel(addr, nodeId, this.#options.credentials());
    this.#track(tunnel);
    let open = false;
    tunnel.once("close", () => (open ? socket.destroy() : refuse("the connection was closed")));
    tunnel.once("error", (error) => {
      if (!open) refuse(messageOf(error));
    });
    tunnel.once("verified", () => {
      open = true;
      socket.write("HTTP/1.1 200 Connection established\r\n\r\n");
      if (head.length > 0) tunnel.write(head);
      join(socket, tunnel);
    });
  }

  #mayUse(request: IncomingMessage): boolean {
    const expected = Buffer.from(`Basic ${Buffer.from(`skein:${this.secret}`).toString("base64")}`);
    const given = Buffer.from(request.headers["proxy-authorization"] ?? "");
    return given.length === expected.length && timingSafeEqual(given, expected);
  }
}

/** A connection to the etcd of a manager; emits "verified" once the other side proved to be it. */
function dialTunnel(addr: string, nodeId: string, credentials: NodeCredentials): TLSSocket {
  const at = addr.lastIndexOf(":");
  const socket = connectTls({
    host: addr.slice(0, at).replace(/^\[|\]$/g, ""),
    port: Number(addr.slice(at + 1)),
    cert: credentials.certPem,
    key: credentials.keyPem,
    servername: MANAGER_OU,
    ALPNProtocols: [TUNNEL_ALPN],
    // Judged below by our own rules.
    rejectUnauthorized: false,
    minVersion: "TLSv1.2",
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

/** The other end: bytes of a tunnel go to the local etcd's peer port. The caller knows that a manager sent them. */
export function acceptTunnel(tunnel: TLSSocket, peerPort: number): void {
  const socket = connectTcp(peerPort, "127.0.0.1");
  tunnel.setNoDelay(true);
  join(socket, tunnel);
}

/** What comes in on one side goes out on the other; they end together. */
function join(a: Duplex, b: Duplex): void {
  for (const socket of [a, b]) if (isTcp(socket)) socket.setNoDelay(true);
  a.on("error", () => b.destroy());
  b.on("error", () => a.destroy());
  a.once("close", () => b.destroy());
  b.once("close", () => a.destroy());
  a.pipe(b);
  b.pipe(a);
}

const isTcp = (socket: Duplex): socket is Socket => "setNoDelay" in socket;
