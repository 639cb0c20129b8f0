/**
 * Connections that the daemon itself carries, in a thread of their own: whatever passes there, and however much, the
 * daemon's loops go on. The thread takes memory and most listeners never see anybody: it is started with the first client,
 * who is handed over with his listener. Should it ever die, its connections are reset and another one takes the listeners.
 */
import { readFileSync } from "node:fs";
import net from "node:net";
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import * as epoll from "../../kernel/epoll.ts";
import type { CarrierData, End, FixedRoute, FromCarrier, Parting, Route, ToCarrier } from "./types.ts";

/** Connections of one listener at once. */
export const MOST_CLIENTS = 10_000;

/** A thread that failed is not replaced at once: what it failed of may still be there. */
const RESTART_MS = 100;

interface ListenOptions {
  /** A listening socket that does not block; the carrier's from now on. */
  readonly fd: number;
  /** Where clients lead to: all to one place, or each to where he is said to at that moment; undefined: he is reset. */
  readonly route: FixedRoute | ((client: End, at: End) => Route | undefined);
  readonly most?: number | undefined;
  readonly log: Logger;
}

export interface CarriedListener {
  /** Nobody new is taken from now on; the port may be taken again at once. */
  close(parting: Parting): void;
}

interface Listener extends ListenOptions {
  readonly id: number;
  /** Until its first client comes; then it is the thread's. */
  sleeping: net.Server | undefined;
}

export class Carrier {
  readonly #listeners = new Map<number, Listener>();
  readonly #most: number;
  readonly #limit: number;
  #thread: { readonly port: MessagePort; readonly wake: number; readonly worker: Worker } | undefined;
  #next = 0;

  constructor() {
    // Two descriptors for each, and at least half of all are others'.
    this.#limit = descriptorLimit();
    this.#most = Math.max(16, this.#limit >> 2);
  }

  listen(options: ListenOptions): CarriedListener {
    const id = ++this.#next;
    epoll.prepareStream(options.fd);
    const listener: Listener = { ...options, id, sleeping: undefined };
    this.#listeners.set(id, listener);
    if (this.#thread) this.#send(handOver(listener));
    else this.#sleep(listener);
    return {
      close: (parting) => {
        if (!this.#listeners.delete(id)) return;
        // Before the thread hears of it: who takes the port next must not wait.
        epoll.endListening(options.fd);
        if (listener.sleeping) {
          this.#stopSleeping(listener);
          epoll.close(options.fd);
          if ("ns" in options.route && options.route.ns !== undefined) epoll.close(options.route.ns);
        } else this.#send({ kind: "close", id, parting });
      },
    };
  }

  #sleep(listener: Listener): void {
    const server = net.createServer({ pauseOnConnect: true });
    listener.sleeping = server;
    server.on("error", (error) => listener.log.warn("cannot listen", { error: messageOf(error) }));
    server.on("connection", (client) => {
      const fd = descriptorOf(client);
      const copy = fd === undefined ? undefined : epoll.duplicate(fd);
      if (copy === undefined) client.resetAndDestroy();
      // What has a copy is not ended by this.
      else client.destroy();
      if (listener.sleeping) {
        this.#stopSleeping(listener);
        if (this.#thread) this.#send(handOver(listener));
        else this.#start();
      }
      if (copy !== undefined) this.#send({ kind: "client", id: listener.id, fd: copy });
    });
    server.listen({ fd: epoll.duplicate(listener.fd) }, epoll.BACKLOG);
    server.unref();
  }

  #stopSleeping(listener: Listener): void {
    listener.sleeping?.close();
    listener.sleeping = undefined;
  }

  /** Ends the thread as a failure of its own would; for tests. */
  async fail(): Promise<void> {
    const { worker, wake } = this.#thread ?? {};
    if (!worker || !wake) return;
    const ended = worker.terminate();
    epoll.wake(wake);
    await ended;
  }

  #start(): void {
    const { port1: port, port2 } = new MessageChannel();
    const wake = epoll.eventfd();
    const held = new Uint8Array(new SharedArrayBuffer(this.#limit));
    const data: CarrierData = { wake, port: port2, held, most: this.#most };
    // Beside this file; in the bundle, beside that.
    const file = import.meta.url.endsWith(".ts") ? "./thread.ts" : "./carrier.js";
    const worker = new Worker(new URL(file, import.meta.url), {
      name: "carrier",
      workerData: data,
      transferList: [port2],
      // It gets descriptors from here and closes them.
      trackUnmanagedFds: false,
      resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 128, stackSizeMb: 1 },
    });
    const thread = { port, wake, worker };
    this.#thread = thread;
    port.on("message", (message: FromCarrier) => this.#hear(message));
    worker.on("error", (error) => this.#log()?.error("the carrier's thread failed", { error: messageOf(error) }));
    const stop = () => this.#send({ kind: "stop" });
    worker.on("exit", () => {
      process.off("exit", stop);
      port.close();
      epoll.close(wake);
      if (this.#thread === thread) this.#thread = undefined;
      for (let fd = held.indexOf(1); fd >= 0; fd = held.indexOf(1, fd + 1)) epoll.resetAndClose(fd);
      const again = () => this.#awake().length > 0 && !this.#thread && this.#start();
      setTimeout(again, RESTART_MS).unref();
    });
    // It waits in the kernel and would keep the process from ending.
    process.once("exit", stop);
    port.unref();
    worker.unref();
    for (const listener of this.#awake()) this.#send(handOver(listener));
  }

  #awake(): Listener[] {
    return [...this.#listeners.values()].filter(({ sleeping }) => !sleeping);
  }

  #send(message: ToCarrier): void {
    if (!this.#thread) return;
    this.#thread.port.postMessage(message);
    epoll.wake(this.#thread.wake);
  }

  #hear(message: FromCarrier): void {
    const listener = this.#listeners.get(message.id);
    switch (message.kind) {
      case "ask":
        this.#send({ kind: "answer", question: message.question, route: listener && routeOf(listener, message) });
        break;
      case "full":
        listener?.log.warn("connections at their limit: further clients wait", { open: message.open });
        break;
      case "trouble":
        listener?.log.warn("a client cannot be carried", { error: message.error });
    }
  }

  #log(): Logger | undefined {
    return this.#listeners.values().next().value?.log;
  }
}

function handOver({ id, fd, route, most = MOST_CLIENTS }: Listener): ToCarrier {
  return { kind: "listen", id, fd, route: typeof route === "function" ? undefined : route, most };
}

/** Of a connection that Node has made; it has no other word for it. */
function descriptorOf(socket: net.Socket): number | undefined {
  const { _handle: handle } = socket as net.Socket & { readonly _handle?: { readonly fd?: unknown } | null };
  return typeof handle?.fd === "number" && handle.fd >= 0 ? handle.fd : undefined;
}

function routeOf({ route, log }: Listener, { client, at }: Extract<FromCarrier, { kind: "ask" }>): Route | undefined {
  try {
    return typeof route === "function" ? route(client, at) : undefined;
  } catch (error) {
    log.warn("a client cannot be carried", { error: messageOf(error) });
    return undefined;
  }
}

/** Of this process. */
function descriptorLimit(): number {
  const found = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
  return Math.min(Number(found ?? 1024), 1 << 20);
}

let shared: Carrier | undefined;

/** The one of this process. */
export function carrier(): Carrier {
  shared ??= new Carrier();
  return shared;
}
