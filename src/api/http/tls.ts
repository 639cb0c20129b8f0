/**
 * The API on TCP: TLS with certificates on both sides, nothing else.
 *
 *   connection -> first byte 0x16 (a TLS record)? -> handshake, client's certificate signed by our CA -> HTTP
 *                 anything else: the words that Docker has for a plain client, in plain text
 *
 * A client without a certificate, or with somebody else's, is disconnected in the handshake: no byte of HTTP is read.
 */
import { readFileSync } from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import { createServer as createTlsServer, type ServerOptions, type Server as TlsServer } from "node:https";
import { createServer as createNetServer, type Server as NetServer, type Socket } from "node:net";
import { createSecureContext, type TLSSocket } from "node:tls";
import { errnoOf, invalid, messageOf, unavailable } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { TlsFiles } from "../../engine/daemon/endpoint.ts";

const TLS_RECORD = 0x16;
/** For the first byte and for the handshake. */
const HANDSHAKE_MS = 10_000;
const PLAIN_REFUSAL =
  "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" +
  "Client sent an HTTP request to an HTTPS server.\n";

/** Reads the three files, and finds out now whether they fit together. */
export function tlsOptions(files: TlsFiles): ServerOptions {
  const read = (what: string, path: string): Buffer => {
    try {
      return readFileSync(path);
    } catch (error) {
      throw invalid(`cannot read the ${what} of the API: ${messageOf(error)}`);
    }
  };
  const ca = read("CA certificate", files.ca);
  const cert = read("certificate", files.cert);
  const key = read("key", files.key);
  try {
    createSecureContext({ ca, cert, key });
  } catch (error) {
    throw invalid(`${files.cert}, ${files.key} and ${files.ca} are of no use for TLS: ${messageOf(error)}`);
  }
  return { ca, cert, key, requestCert: true, rejectUnauthorized: true, minVersion: "TLSv1.2" };
}

export interface TlsFront extends AsyncDisposable {
  readonly port: number;
}

/** Listens, and hands connections that speak TLS to `server`. */
export async function listenTls(
  server: HttpServer | TlsServer,
  address: { readonly host: string; readonly port: number },
  log: Logger,
): Promise<TlsFront> {
  const open = new Set<Socket>();
  // Half-open: attach and exec go on with their output after the client's input has ended.
  const front = createNetServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    // The connection's errors are the TLS socket's to tell, once there is one.
    socket.on("error", () => socket.destroy());
    socket.setTimeout(HANDSHAKE_MS, () => socket.destroy());
    socket.once("readable", () => receive(socket));
  });
  const receive = (socket: Socket) => {
    const first: Buffer | null = socket.read();
    if (!first) {
      socket.destroy();
      return;
    }
    socket.setTimeout(0);
    if (first[0] !== TLS_RECORD) {
      log.warn("refused a client without TLS", { client: socket.remoteAddress });
      socket.end(PLAIN_REFUSAL, () => socket.destroy());
      return;
    }
    socket.unshift(first);
    server.emit("connection", socket);
  };
  server.on("tlsClientError", (error: Error, socket: TLSSocket) => {
    log.warn("refused a client of the API", { client: socket.remoteAddress, error: messageOf(error) });
    socket.destroy();
  });
  await listening(front, address);
  const bound = front.address();
  return {
    port: typeof bound === "object" && bound ? bound.port : address.port,
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => front.close(() => resolve()));
      for (const socket of open) socket.destroy();
      await closed;
    },
  };
}

async function listening(front: NetServer, { host, port }: { host: string; port: number }): Promise<void> {
  const ready = Promise.withResolvers<void>();
  front.once("error", ready.reject);
  front.listen({ host, port, ipv6Only: false }, ready.resolve);
  try {
    await ready.promise;
  } catch (error) {
    throw unavailable(`cannot listen on ${host}:${port}: ${errnoOf(error) ?? messageOf(error)}`);
  }
  front.off("error", ready.reject);
}

/** A server of HTTP over plain connections or, with files, over TLS. It listens nowhere yet. */
export function httpServer(options: ServerOptions, tls: TlsFiles | undefined): HttpServer {
  return tls
    ? createTlsServer({ ...options, ...tlsOptions(tls), handshakeTimeout: HANDSHAKE_MS })
    : createServer(options);
}
