/**
 * The HTTP server: requests in, `Reply` values out. Knows routing, versions, errors, streaming and hijacking, nothing of
 * containers. Connections that ask for `Upgrade: tcp` come by Node's upgrade event with their body unparsed.
 */
import { type IncomingMessage, type Server, ServerResponse } from "node:http";
import { type Duplex, Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { invalid, messageOf, notFound, SkeinError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { TlsFiles } from "../../engine/daemon/endpoint.ts";
import { hijackedOver, noInput, readUpgradeBody, upgradeHead } from "./hijack.ts";
import type { Reply } from "./reply.ts";
import { ApiRequest, MAX_JSON_BODY } from "./request.ts";
import type { Match, Router } from "./router.ts";
import { httpServer } from "./tls.ts";
import { checkVersion, MAX_API, splitVersion } from "./version.ts";
import { acceptWebSocket, hijackedWebSocket, wantsWebSocket } from "./websocket.ts";

export interface HttpOptions {
  readonly router: Router;
  readonly log: Logger;
  /** Headers of every answer, computed per request (Swarm state). */
  readonly headers?: () => Record<string, string>;
  /** Looks at each request before its handler; throws to refuse it. */
  readonly admit?: (request: ApiRequest) => void;
  /** Speak TLS, with clients that this CA has signed. */
  readonly tls?: TlsFiles | undefined;
}

const MAX_URL = 64 * 1024;

export function createHttpServer(options: HttpOptions): Server {
  const server = httpServer(
    {
      // Only attach and exec leave HTTP; a request for h2c (BuildKit's session) is answered as plain HTTP.
      shouldUpgradeCallback: (request) => /^tcp$/i.test(request.headers.upgrade ?? "") || wantsWebSocket(request),
      maxHeaderSize: MAX_URL,
      requestTimeout: 0,
      headersTimeout: 60_000,
      keepAliveTimeout: 120_000,
    },
    options.tls,
  );
  server.timeout = 0;
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    void serve(options, request, request, response, undefined);
  });
  server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on("error", () => socket.destroy());
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    void upgradeBody(request, socket, head)
      .then((body) => serve(options, request, Readable.from([body]), response, socket))
      .catch((error) => {
        socket.end(
          `HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n${messageOf(error)}\n`,
        );
      });
  });
  server.on("clientError", (_error, socket) => {
    if (socket.writable) socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
  });
  return server;
}

async function upgradeBody(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<Buffer> {
  if (request.headers["transfer-encoding"]) throw invalid("a request that upgrades must carry Content-Length");
  const length = Number(request.headers["content-length"] ?? 0);
  if (!Number.isInteger(length) || length < 0 || length > MAX_JSON_BODY) throw invalid("invalid Content-Length");
  return readUpgradeBody(socket, head, length);
}

/** One request from its line to the end of its answer. Never rejects. */
async function serve(
  options: HttpOptions,
  message: IncomingMessage,
  body: Readable,
  response: ServerResponse,
  socket: Duplex | undefined,
): Promise<void> {
  const gone = new AbortController();
  const leave = () => {
    if (!response.writableFinished) gone.abort(new Error("the client went away"));
  };
  (socket ?? response).on("close", leave);
  response.on("error", leave);
  const method = message.method ?? "GET";
  try {
    for (const [name, value] of Object.entries(options.headers?.() ?? {})) response.setHeader(name, value);
    response.setHeader("Api-Version", MAX_API);
    const { request, match } = understand(options.router, message, body, gone.signal);
    options.admit?.(request);
    await send(await match.route.handle(request), response, message, socket, gone.signal);
  } catch (error) {
    if (gone.signal.aborted) {
      response.destroy();
      return;
    }
    if (!(error instanceof SkeinError)) {
      options.log.error("request failed", { method, path: message.url, error: stackOf(error) });
    }
    sendError(error, response, socket);
  }
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

function understand(
  router: Router,
  message: IncomingMessage,
  body: Readable,
  signal: AbortSignal,
): { request: ApiRequest; match: Match } {
  const method = message.method ?? "GET";
  const target = message.url ?? "/";
  const mark = target.indexOf("?");
  const { version, path } = splitVersion(mark < 0 ? target : target.slice(0, mark));
  checkVersion(version);
  const match = router.match(method, path);
  if (!match) throw notFound("page not found");
  const request = new ApiRequest({
    method,
    path,
    version,
    params: match.params,
    query: new URLSearchParams(mark < 0 ? "" : target.slice(mark + 1)),
    headers: message.headers,
    body,
    signal,
  });
  return { request, match };
}

/** Gives the answer to the wire of an upgraded socket: the response object is bound to it only when HTTP is spoken. */
function bind(response: ServerResponse, socket: Duplex | undefined): void {
  if (!socket) return;
  // @types/node wants a net.Socket; the code uses only what every Duplex has.
  response.assignSocket(socket as Parameters<ServerResponse["assignSocket"]>[0]);
  response.setHeader("Connection", "close");
  response.on("finish", () => socket.end());
}

async function send(
  reply: Reply,
  response: ServerResponse,
  message: IncomingMessage,
  socket: Duplex | undefined,
  signal: AbortSignal,
): Promise<void> {
  if (reply.kind !== "hijack" && reply.kind !== "webSocket") bind(response, socket);
  switch (reply.kind) {
    case "empty":
      response.writeHead(reply.status).end();
      return;
    case "json": {
      const text = `${JSON.stringify(reply.value)}\n`;
      response.writeHead(reply.status, {
        "Content-Type": "application/json",
        "Content-Length": Buffer.byteLength(text),
      });
      response.end(text);
      return;
    }
    case "text":
      response.writeHead(reply.status, { "Content-Type": "text/plain; charset=utf-8" });
      response.end(message.method === "HEAD" ? undefined : reply.text);
      return;
    case "jsonStream":
      await sendJsonStream(reply, response, signal);
      return;
    case "bytes":
      response.writeHead(200, { "Content-Type": reply.contentType, ...reply.headers });
      response.flushHeaders();
      if (message.method === "HEAD") {
        response.end();
        return;
      }
      await pipeline(Readable.from(reply.body), response, { signal });
      return;
    case "hijack":
      await sendHijack(reply, response, message, socket, signal);
      return;
    case "webSocket": {
      const client = await acceptWebSocket(message, socket).catch(async (error) => {
        // What waits for its client is let go.
        await reply.run({ input: noInput(), signal: AbortSignal.abort(), write: async () => {} });
        throw error;
      });
      try {
        await reply.run(hijackedWebSocket(client, reply.binary, signal));
      } finally {
        client.close(1000);
      }
      return;
    }
  }
}

async function sendJsonStream(
  reply: Extract<Reply, { kind: "jsonStream" }>,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const begin = () => {
    response.writeHead(200, { "Content-Type": reply.contentType });
    response.flushHeaders();
  };
  if (!reply.patient) begin();
  try {
    for await (const item of reply.items) {
      if (signal.aborted) return;
      if (!response.headersSent) begin();
      if (!response.write(`${JSON.stringify(item)}\r\n`)) {
        await new Promise<void>((resolve) => {
          response.once("drain", resolve);
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
      }
    }
  } catch (error) {
    if (signal.aborted) return;
    if (!response.headersSent) throw error;
    const message = messageOf(error);
    response.write(`${JSON.stringify({ errorDetail: { message }, error: message })}\r\n`);
  }
  if (!response.headersSent) begin();
  response.end();
}

async function sendHijack(
  reply: Extract<Reply, { kind: "hijack" }>,
  response: ServerResponse,
  message: IncomingMessage,
  socket: Duplex | undefined,
  signal: AbortSignal,
): Promise<void> {
  if (socket) {
    socket.write(upgradeHead(reply.contentType));
    try {
      await reply.run(hijackedOver(socket, socket, signal));
    } finally {
      finish(socket);
    }
    return;
  }
  response.writeHead(200, { "Content-Type": reply.contentType, Connection: "close" });
  response.flushHeaders();
  await reply.run(hijackedOver(message, response, signal));
  response.end();
}

/** Sends what is left, then closes both directions: a client that never half-closes must not keep the socket. */
function finish(socket: Duplex): void {
  socket.resume();
  socket.end(() => socket.destroy());
}

function sendError(error: unknown, response: ServerResponse, socket: Duplex | undefined): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  bind(response, socket);
  const status = error instanceof SkeinError ? error.status : 500;
  if (status === 304) {
    response.writeHead(304).end();
    return;
  }
  const message = error instanceof SkeinError && error.hint ? `${error.message}\n${error.hint}` : messageOf(error);
  const text = `${JSON.stringify({ message })}\n`;
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) });
  response.end(text);
}
