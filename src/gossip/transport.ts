/** Packets on UDP and streams on TCP, same port, with bounds on what strangers may hold open. */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { createConnection, createServer, isIPv6, type Server, type Socket } from "node:net";
import type { Clock } from "../base/clock.ts";
import { systemClock } from "../base/clock.ts";
import type { GossipStream, Transport } from "./types.ts";

const maxConnections = 256;
/** An accepted connection may stay silent, or last, for so long at most. */
const connectionTimeoutMs = 15_000;
const receiveBuffer = 2 << 20;

export interface SocketTransport extends Transport {
  /** Errors of sending and receiving so far. */
  readonly errors: () => number;
}

/** Binds both sockets. `port` 0 picks one that is free for both. */
export async function openTransport(
  address: string,
  port: number,
  clock: Clock = systemClock,
): Promise<SocketTransport> {
  const server = createServer({ pauseOnConnect: true });
  server.maxConnections = maxConnections;
  server.listen({ host: address, port });
  await once(server, "listening");
  const bound = server.address();
  if (bound === null || typeof bound === "string") throw new Error("gossip: no TCP address");
  const udp = createSocket({ type: isIPv6(address) ? "udp6" : "udp4" });
  try {
    udp.bind({ address, port: bound.port });
    await once(udp, "listening");
  } catch (error) {
    server.close();
    udp.close();
    throw error;
  }
  try {
    udp.setRecvBufferSize(receiveBuffer);
  } catch {
    // The kernel's own limit stays.
  }
  return new Sockets(udp, server, address, bound.port, clock);
}

class Sockets implements SocketTransport {
  readonly address: string;
  readonly port: number;
  readonly #udp: UdpSocket;
  readonly #server: Server;
  readonly #clock: Clock;
  readonly #open = new Set<Socket>();
  #errors = 0;
  #closed = false;

  constructor(udp: UdpSocket, server: Server, address: string, port: number, clock: Clock) {
    this.#udp = udp;
    this.#server = server;
    this.address = address;
    this.port = port;
    this.#clock = clock;
    udp.on("error", () => this.#errors++);
    server.on("error", () => this.#errors++);
  }

  errors = () => this.#errors;

  send(address: string, port: number, packet: Uint8Array): void {
    if (this.#closed) return;
    try {
      this.#udp.send(packet, port, address, (error) => {
        if (error) this.#errors++;
      });
    } catch {
      this.#errors++;
    }
  }

  onPacket(listener: (packet: Buffer, address: string, port: number) => void): void {
    this.#udp.on("message", (packet, from) => listener(packet, from.address, from.port));
  }

  async dial(address: string, port: number, timeoutMs: number): Promise<GossipStream> {
    if (this.#closed) throw new Error("gossip: transport is closed");
    const abort = new AbortController();
    const socket = createConnection({ host: address, port, noDelay: true });
    this.#track(socket);
    const cancel = this.#clock.after(timeoutMs, () => abort.abort(new Error("gossip: dial timed out")));
    try {
      await once(socket, "connect", { signal: abort.signal });
      return new SocketStream(socket);
    } catch (error) {
      socket.destroy();
      throw abort.signal.aborted ? abort.signal.reason : error;
    } finally {
      cancel();
    }
  }

  onStream(listener: (stream: GossipStream, address: string) => void): void {
    this.#server.on("connection", (socket) => {
      if (this.#closed) {
        socket.destroy();
        return;
      }
      this.#track(socket);
      listener(new SocketStream(socket), socket.remoteAddress ?? "");
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const closed = Promise.all([once(this.#udp, "close"), once(this.#server, "close")]);
    this.#udp.close();
    this.#server.close();
    for (const socket of this.#open) socket.destroy();
    await closed;
  }

  #track(socket: Socket): void {
    this.#open.add(socket);
    const cancel = this.#clock.after(connectionTimeoutMs, () => socket.destroy());
    socket.on("error", () => socket.destroy());
    socket.once("close", () => {
      cancel();
      this.#open.delete(socket);
    });
  }
}

/** Reads exactly as much as asked for; what was not asked for waits in the kernel. */
class SocketStream implements GossipStream {
  readonly #socket: Socket;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      const onClose = () => reject(new Error("gossip: stream closed"));
      this.#socket.once("close", onClose);
      this.#socket.write(bytes, (error) => {
        this.#socket.off("close", onClose);
        if (error) reject(error);
        else resolve();
      });
    });
  }

  read(length: number): Promise<Buffer> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      if (length === 0) {
        resolve(Buffer.alloc(0));
        return;
      }
      const chunks: Buffer[] = [];
      let missing = length;
      const finish = (error?: Error) => {
        socket.off("readable", take);
        socket.off("end", ended);
        socket.off("close", ended);
        if (error) reject(error);
        else resolve(chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks, length));
      };
      const ended = () => finish(new Error("gossip: stream ended early"));
      const take = () => {
        while (missing > 0) {
          const chunk: Buffer | null = socket.read(Math.min(missing, socket.readableLength || 1));
          if (chunk === null) return;
          chunks.push(chunk);
          missing -= chunk.length;
        }
        finish();
      };
      socket.on("readable", take);
      socket.on("end", ended);
      socket.on("close", ended);
      if (socket.destroyed || socket.readableEnded) ended();
      else take();
    });
  }

  close(): void {
    // What was written still goes out; a peer that does not read it is cut by the connection's time-out.
    this.#socket.end();
    this.#socket.resume();
  }
}
