/**
 * The embedded DNS of one sandbox: sockets around `answer` and the forwarder. It listens on 127.0.0.11 inside the
 * sandbox, on ports that the kernel chooses; the table of `table.ts` leads port 53 there.
 */
import type dgram from "node:dgram";
import type net from "node:net";
import { messageOf } from "../../base/errors.ts";
import { tcpListenerIn, udpSocketIn } from "../../kernel/socket.ts";
import { answer } from "./answer.ts";
import { Forwarder } from "./forwarder.ts";
import { Framer, frame } from "./framing.ts";
import { RESOLVER_ADDRESS } from "./table.ts";
import type { AnswerOptions, Resolver, ResolverOptions, ResolverPorts, ResolverStats, Upstream } from "./types.ts";
import { ask } from "./upstream.ts";

/** Connections that say nothing for so long are closed. */
const IDLE_MS = 10_000;
const MOST_CONNECTIONS = 256;
/** Questions of one connection being answered at once; reading pauses beyond. */
const MOST_PIPELINED = 64;

export async function startResolver(options: ResolverOptions): Promise<Resolver> {
  const udp = await udpSocketIn(options.ns, RESOLVER_ADDRESS, 0);
  try {
    return new Server(options, udp, await tcpListenerIn(options.ns, RESOLVER_ADDRESS, 0));
  } catch (error) {
    udp.close();
    throw error;
  }
}

class Server implements Resolver {
  readonly ports: ResolverPorts;
  #options: ResolverOptions;
  #udp: dgram.Socket;
  #tcp: net.Server;
  #forwarder: Forwarder;
  #answering: AnswerOptions;
  #connections = new Set<net.Socket>();
  #queries = 0;
  #closed = false;

  constructor(options: ResolverOptions, udp: dgram.Socket, tcp: net.Server) {
    this.#options = options;
    this.#answering = {
      ...(options.ttl !== undefined && { ttl: options.ttl }),
      ...(options.ndots !== undefined && { ndots: options.ndots }),
    };
    this.#udp = udp;
    this.#tcp = tcp;
    this.#forwarder = new Forwarder(
      (upstream, query, transport, signal) => ask(upstream, query, transport, options.ns, signal),
      options.log,
      options.clock,
    );
    this.#forwarder.setUpstreams(options.upstreams);
    const address = tcp.address();
    this.ports = { udp: udp.address().port, tcp: typeof address === "object" && address ? address.port : 0 };
    udp.on("message", (query, from) => this.#onDatagram(query, from));
    udp.on("error", (error) => options.log.warn("resolver socket failed", { error: messageOf(error) }));
    tcp.on("connection", (socket) => this.#onConnection(socket));
    tcp.on("error", (error) => options.log.warn("resolver listener failed", { error: messageOf(error) }));
  }

  setUpstreams(upstreams: readonly Upstream[]): void {
    this.#forwarder.setUpstreams(upstreams);
  }

  stats(): ResolverStats {
    const { forwarded, failed, pending } = this.#forwarder;
    return { queries: this.#queries, forwarded, failed, pending };
  }

  #onDatagram(query: Buffer, from: dgram.RemoteInfo): void {
    this.#queries++;
    const result = answer(query, this.#options.view, this.#answering);
    if (result.kind === "reply") {
      this.#udp.send(result.message, from.port, from.address);
    } else if (result.kind === "forward") {
      void this.#forwarder.forward(query, "udp").then((message) => {
        if (!this.#closed) this.#udp.send(message, from.port, from.address);
      });
    }
  }

  #onConnection(socket: net.Socket): void {
    if (this.#connections.size >= MOST_CONNECTIONS) {
      socket.destroy();
      return;
    }
    this.#connections.add(socket);
    socket.on("close", () => this.#connections.delete(socket));
    socket.on("error", () => socket.destroy());
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.setNoDelay(true);
    const framer = new Framer();
    let waiting = 0;
    let ended = false;
    const finished = () => {
      waiting--;
      if (socket.isPaused() && waiting < MOST_PIPELINED) socket.resume();
      if (ended && waiting === 0) socket.end();
    };
    socket.on("data", (chunk: Buffer) => {
      for (const query of framer.push(chunk)) {
        waiting++;
        void this.#answerTcp(query)
          .then((message) => message && socket.writable && socket.write(frame(message)))
          .finally(finished);
      }
      if (waiting >= MOST_PIPELINED) socket.pause();
    });
    // The other side may close its half and still wait for answers (the server allows half-open).
    socket.on("end", () => {
      ended = true;
      if (waiting === 0) socket.end();
    });
  }

  async #answerTcp(query: Buffer): Promise<Buffer | undefined> {
    this.#queries++;
    const result = answer(query, this.#options.view, { ...this.#answering, transport: "tcp" });
    switch (result.kind) {
      case "reply":
        return result.message;
      case "forward":
        return this.#forwarder.forward(query, "tcp");
      case "drop":
        return undefined;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#forwarder.close();
    for (const socket of this.#connections) socket.destroy();
    await Promise.all([
      new Promise<void>((resolve) => this.#udp.close(() => resolve())),
      new Promise<void>((resolve) => this.#tcp.close(() => resolve())),
    ]);
  }
}
