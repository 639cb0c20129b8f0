/**
 * Attach over WebSocket, for clients that are no more than a browser: the process's bytes as messages, both ways, raw
 * even without a terminal. A WebSocket has no half-close: the client's closing is the end of its input and of the session.
 */
import type { IncomingMessage } from "node:http";
import { type Duplex, Readable } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import { invalid } from "../../base/errors.ts";
import type { Hijacked } from "./hijack.ts";

/** Bytes of one message from a client. */
const MAX_MESSAGE = 1024 * 1024;
/** Bytes that may wait for a client before its process is held up. */
const HIGH = 64 * 1024;

const server = new WebSocketServer({ noServer: true, clientTracking: false, maxPayload: MAX_MESSAGE });

export const wantsWebSocket = (request: IncomingMessage): boolean => /^websocket$/i.test(request.headers.upgrade ?? "");

/** Shakes hands on a socket that was handed over; a client that does it wrongly gets its 400 here. */
export async function acceptWebSocket(request: IncomingMessage, socket: Duplex | undefined): Promise<WebSocket> {
  if (!socket || !wantsWebSocket(request))
    throw invalid("this is spoken over WebSocket: the request must ask for an upgrade");
  return await new Promise((resolve, reject) => {
    socket.once("close", () => reject(new Error("the client went away")));
    server.handleUpgrade(request, socket, Buffer.alloc(0), resolve);
  });
}

/** `binary`: messages are bytes; clients before API 1.28 expect text. */
export function hijackedWebSocket(socket: WebSocket, binary: boolean, signal: AbortSignal): Hijacked {
  const input = new Readable({ read: () => socket.resume() });
  socket.on("message", (data: Buffer) => {
    if (!input.destroyed && !input.push(data)) socket.pause();
  });
  socket.on("close", () => input.push(null));
  // It is followed by the connection's end, which whoever reads must know, and no more.
  socket.on("error", () => {});
  return {
    input,
    signal,
    write(data) {
      if (signal.aborted || socket.readyState !== socket.OPEN) return Promise.resolve();
      return new Promise((resolve) => {
        const sent = () => resolve();
        socket.send(data, { binary }, sent);
        if (socket.bufferedAmount < HIGH) resolve();
      });
    },
  };
}
