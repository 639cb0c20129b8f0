/**
 * The carrier's loop: clients are taken, led to where they want, and carried until both ends are done. It waits in the
 * kernel for whatever comes next and does nothing else; each event costs two or three system calls and no memory.
 *
 * Nobody is starved by one who has much to say or by many who come: a direction has its turn (pair.ts), a listener takes
 * a few clients at a time. Who comes when the limit is reached waits in the kernel's queue.
 */
import { errnoOf, messageOf } from "../../base/errors.ts";
import * as epoll from "../../kernel/epoll.ts";
import type { NetNs } from "../../kernel/types.ts";
import { proxyHeader } from "./header.ts";
import { carry, Pair, type Side } from "./pair.ts";
import type { FixedRoute, FromCarrier, Parting, Route, ToCarrier } from "./types.ts";

const CLIENTS_A_TURN = 32;
/** Questions that are not answered yet; until then nobody new is taken. */
const QUESTIONS = 256;
/** Who could not be taken for want of descriptors or memory is tried again. */
const PAUSE_MS = 100;
/** The same is told no more often. */
const QUIET_MS = 10_000;
const CONNECTION = (epoll.EPOLLIN | epoll.EPOLLOUT | epoll.EPOLLRDHUP | epoll.EPOLLET) >>> 0;

interface Listener {
  readonly id: number;
  readonly fd: number;
  readonly route: FixedRoute | undefined;
  readonly ns: NetNs | undefined;
  readonly most: number;
  /** Connections, and clients of whom it was asked. */
  open: number;
  /** It is not watched, until then at least. */
  pausedUntil: number | undefined;
  readonly told: Map<string, number>;
}

interface Question {
  readonly listener: number;
  readonly client: number;
}

export interface LoopOptions {
  /** Counts up when there is something to `read`. */
  readonly wake: number;
  readonly read: () => ToCarrier | undefined;
  readonly tell: (message: FromCarrier) => void;
  /** The namespace of a descriptor, and its owner from then on. */
  readonly namespace: (fd: number) => NetNs;
  readonly held: Uint8Array;
  readonly most: number;
}

export class Loop {
  readonly #options: LoopOptions;
  readonly #epoll = new epoll.Epoll();
  readonly #sides: (Side | undefined)[] = [];
  /** By number and by descriptor. */
  readonly #listeners = new Map<number, Listener>();
  readonly #listening = new Map<number, Listener>();
  readonly #questions = new Map<number, Question>();
  /** Who had his turn and has more to say. */
  #more = new Set<Side>();
  #open = 0;
  #asked = 0;
  #paused = 0;
  #stopped = false;

  constructor(options: LoopOptions) {
    this.#options = options;
    this.#epoll.add(options.wake, epoll.EPOLLIN);
  }

  /** Until it is told to stop. */
  run(): void {
    const ready = (fd: number, events: number) => this.#ready(fd, events);
    while (!this.#stopped) {
      this.#epoll.wait(this.#more.size > 0 ? 0 : this.#paused > 0 ? PAUSE_MS : -1, ready);
      if (this.#more.size > 0) this.#goOn();
      if (this.#paused > 0) this.#resume();
    }
    this.#epoll[Symbol.dispose]();
  }

  #ready(fd: number, events: number): void {
    const side = this.#sides[fd];
    if (side) {
      this.#progress(side, events);
      return;
    }
    const listener = this.#listening.get(fd);
    if (listener) this.#accept(listener);
    else if (fd === this.#options.wake) {
      epoll.takeWake(fd);
      for (let message = this.#options.read(); message; message = this.#options.read()) {
        try {
          this.#obey(message);
        } catch (error) {
          // One listener's misfortune is not that of all.
          if ("id" in message) this.#options.tell({ kind: "trouble", id: message.id, error: messageOf(error) });
        }
      }
    }
  }

  #obey(message: ToCarrier): void {
    switch (message.kind) {
      case "listen":
        this.#listen(message);
        break;
      case "client":
        this.#admit(message.id, message.fd);
        break;
      case "answer":
        this.#answered(message.question, message.route);
        break;
      case "close":
        this.#close(message.id, message.parting);
        break;
      case "stop":
        this.#stopped = true;
    }
  }

  #listen({ id, fd, route, most }: Extract<ToCarrier, { kind: "listen" }>): void {
    const ns = route?.ns === undefined ? undefined : this.#options.namespace(route.ns);
    const listener: Listener = { id, fd, route, ns, most, open: 0, pausedUntil: undefined, told: new Map() };
    this.#epoll.add(fd, epoll.EPOLLIN);
    this.#listeners.set(id, listener);
    this.#listening.set(fd, listener);
  }

  #accept(listener: Listener): void {
    for (let turn = 0; turn < CLIENTS_A_TURN; turn++) {
      if (this.#isFull(listener)) {
        this.#pause(listener, 0);
        return;
      }
      let client: epoll.Accepted | undefined;
      try {
        client = epoll.accept(listener.fd);
      } catch (error) {
        // It listens no more, and will be closed in a moment.
        const over = errnoOf(error) === "EINVAL";
        if (!over) this.#trouble(listener.id, error);
        this.#pause(listener, over ? Number.POSITIVE_INFINITY : performance.now() + PAUSE_MS);
        return;
      }
      if (!client) return;
      this.#take(listener, client);
    }
  }

  #admit(id: number, fd: number): void {
    const listener = this.#listeners.get(id);
    const client = listener && epoll.remoteEnd(fd);
    if (client) this.#take(listener, { fd, ...client });
    else epoll.resetAndClose(fd);
  }

  #take(listener: Listener, { fd, ...end }: epoll.Accepted): void {
    this.#options.held[fd] = 1;
    this.#open++;
    listener.open++;
    const { route, ns } = listener;
    if (route) {
      this.#lead(listener.id, fd, { ...route, preface: route.header && proxyHeader(end, route.header) }, ns);
      return;
    }
    const question = ++this.#asked;
    this.#questions.set(question, { listener: listener.id, client: fd });
    this.#options.tell({ kind: "ask", id: listener.id, question, client: end, at: epoll.localEnd(fd) });
  }

  #answered(number: number, route: Route | undefined): void {
    const question = this.#questions.get(number);
    if (!question) return;
    this.#questions.delete(number);
    const { listener, client } = question;
    using ns = route?.ns === undefined ? undefined : this.#options.namespace(route.ns);
    if (route && this.#listeners.has(listener)) {
      this.#lead(listener, client, route, ns);
    } else {
      this.#give(client, "reset");
      this.#left(listener);
    }
  }

  /** The way to where the client wants; he hears nothing of it that he would not hear there himself. */
  #lead(listener: number, client: number, route: Route, ns: NetNs | undefined): void {
    let upstream: number | undefined;
    try {
      const begin = () => epoll.beginConnection(route.address, route.port);
      upstream = ns ? ns.run(begin) : begin();
      this.#options.held[upstream] = 1;
      epoll.prepareStream(upstream);
      const pair = new Pair(listener, client, upstream, route.preface);
      this.#sides[client] = pair.client;
      this.#sides[upstream] = pair.upstream;
      for (const fd of [client, upstream]) this.#epoll.add(fd, CONNECTION);
    } catch (error) {
      if (errnoOf(error) !== "ECONNREFUSED") this.#trouble(listener, error);
      for (const fd of [client, ...(upstream === undefined ? [] : [upstream])]) {
        this.#sides[fd] = undefined;
        this.#give(fd, "reset");
      }
      this.#left(listener);
    }
  }

  #progress(side: Side, events: number): void {
    // The event may be of a descriptor that had this number before: the socket itself is asked.
    if (events & epoll.EPOLLERR && epoll.hasFailed(side.fd)) {
      this.#end(side.pair, "reset");
      return;
    }
    const over = epoll.EPOLLHUP | epoll.EPOLLERR;
    if (events & (epoll.EPOLLRDHUP | over)) side.closing = true;
    if (events & epoll.EPOLLIN || side.closing) side.readable = true;
    if (events & (epoll.EPOLLOUT | over)) side.writable = true;
    if (side.readable) this.#carry(side);
    if (side.writable && this.#sides[side.fd] === side) this.#carry(side.other);
  }

  #carry(side: Side): void {
    switch (carry(side)) {
      case "waiting":
        break;
      case "more":
        this.#more.add(side);
        break;
      case "over":
        this.#end(side.pair, "linger");
        break;
      case "broken":
        this.#end(side.pair, "reset");
    }
  }

  #goOn(): void {
    const sides = this.#more;
    this.#more = new Set();
    for (const side of sides) if (this.#sides[side.fd] === side) this.#carry(side);
  }

  #end(pair: Pair, how: Parting): void {
    for (const { fd } of [pair.client, pair.upstream]) {
      this.#sides[fd] = undefined;
      this.#give(fd, how);
    }
    this.#left(pair.listener);
  }

  #give(fd: number, how: Parting): void {
    this.#options.held[fd] = 0;
    if (how === "reset") epoll.resetAndClose(fd);
    else epoll.close(fd);
  }

  #left(id: number): void {
    this.#open--;
    const listener = this.#listeners.get(id);
    if (listener) listener.open--;
  }

  #isFull({ open, most, route }: Listener): boolean {
    return open >= most || this.#open >= this.#options.most || (!route && this.#questions.size >= QUESTIONS);
  }

  #pause(listener: Listener, until: number): void {
    if (listener.open >= listener.most || this.#open >= this.#options.most) {
      this.#tell(listener, { kind: "full", id: listener.id, open: listener.open });
    }
    this.#epoll.delete(listener.fd);
    listener.pausedUntil = until;
    this.#paused++;
  }

  #resume(): void {
    const now = performance.now();
    for (const listener of this.#listeners.values()) {
      if (listener.pausedUntil === undefined || listener.pausedUntil > now || this.#isFull(listener)) continue;
      listener.pausedUntil = undefined;
      this.#paused--;
      this.#epoll.add(listener.fd, epoll.EPOLLIN);
    }
  }

  #trouble(id: number, error: unknown): void {
    const listener = this.#listeners.get(id);
    if (listener) this.#tell(listener, { kind: "trouble", id, error: messageOf(error) });
  }

  #tell({ told }: Listener, message: Extract<FromCarrier, { kind: "full" | "trouble" }>): void {
    const now = performance.now();
    if (now < (told.get(message.kind) ?? 0)) return;
    told.set(message.kind, now + QUIET_MS);
    this.#options.tell(message);
  }

  #close(id: number, parting: Parting): void {
    const listener = this.#listeners.get(id);
    if (!listener) return;
    this.#listeners.delete(id);
    this.#listening.delete(listener.fd);
    if (listener.pausedUntil !== undefined) this.#paused--;
    // What is closed is watched no more.
    epoll.close(listener.fd);
    listener.ns?.[Symbol.dispose]();
    if (parting === "linger") return;
    for (const side of this.#sides) if (side?.pair.listener === id) this.#end(side.pair, "reset");
  }
}
