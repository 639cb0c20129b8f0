/**
 * epoll, and stream sockets that do not wait: what a thread needs that carries bytes for others and does nothing else. Calls
 * that may "not now" say so by a number instead of an error; they are made hundreds of thousands of times a second.
 */
import { readSync, writeSync } from "node:fs";
import { isIP } from "node:net";
import { KernelError } from "./error.ts";
import { fromBytes, sockaddr } from "./inet.ts";
import * as libc from "./libc.ts";

const { rawStream: raw } = libc;

export const EPOLLIN = 1;
export const EPOLLOUT = 4;
export const EPOLLERR = 8;
export const EPOLLHUP = 0x10;
export const EPOLLRDHUP = 0x2000;
export const EPOLLET = 0x8000_0000;
const ADD = 1;
const DELETE = 2;

/** struct epoll_event is packed on x86-64 only. */
const [EVENT_SIZE, DATA_AT] = process.arch === "x64" ? [12, 4] : [16, 8];
const MOST_EVENTS = 256;

/** Watches descriptors; one thread's. */
export class Epoll implements Disposable {
  readonly #fd = libc.epollCreate();
  readonly #events = Buffer.alloc(MOST_EVENTS * EVENT_SIZE);
  readonly #event = Buffer.alloc(EVENT_SIZE);

  add(fd: number, events: number): void {
    this.#event.writeUInt32LE(events, 0);
    this.#event.writeUInt32LE(fd, DATA_AT);
    libc.epollChange(this.#fd, ADD, fd, this.#event);
  }

  delete(fd: number): void {
    libc.epollChange(this.#fd, DELETE, fd, this.#event);
  }

  /** Calls `ready` for each descriptor with events; waits for one at most so long, -1 for ever. */
  wait(timeoutMs: number, ready: (fd: number, events: number) => void): void {
    const count = raw.epollWait(this.#fd, this.#events, MOST_EVENTS, timeoutMs);
    for (let at = 0; at < count * EVENT_SIZE; at += EVENT_SIZE) {
      ready(this.#events.readUInt32LE(at + DATA_AT), this.#events.readUInt32LE(at));
    }
  }

  [Symbol.dispose](): void {
    libc.close(this.#fd);
  }
}

/** Not now: wait for the event. */
export const AGAIN = -1;
/** Broken: the connection is over. */
export const BROKEN = -2;

const EINTR = 4;
const EAGAIN = 11;
const EINPROGRESS = 115;
const MSG_NOSIGNAL = 0x4000;

/** At most `most` bytes into `buffer`: how many came, 0 at the end of the stream. */
export function receive(fd: number, buffer: Buffer, most: number): number {
  for (;;) {
    const count = raw.recv(fd, buffer, most, 0);
    if (count >= 0) return count;
    const errno = libc.errno();
    if (errno !== EINTR) return errno === EAGAIN ? AGAIN : BROKEN;
  }
}

/** The first `length` bytes of `buffer`: how many went. */
export function transmit(fd: number, buffer: Buffer, length: number): number {
  for (;;) {
    const count = raw.send(fd, buffer, length, MSG_NOSIGNAL);
    if (count >= 0) return count;
    const errno = libc.errno();
    if (errno !== EINTR) return errno === EAGAIN ? AGAIN : BROKEN;
  }
}

const name = Buffer.alloc(128);
const length = Buffer.alloc(4);

interface End {
  readonly address: string;
  readonly port: number;
}

export interface Accepted extends End {
  readonly fd: number;
}

function endOf(sockaddr: Buffer): End {
  const four = sockaddr.readUInt16LE(0) === libc.AF_INET;
  const address = fromBytes(four ? sockaddr.subarray(4, 8) : sockaddr.subarray(8, 24));
  return { address, port: sockaddr.readUInt16BE(2) };
}

/** How many may wait in a listener's queue; the kernel holds it to net.core.somaxconn. */
export const BACKLOG = 4096;

/** The next connection of a listener; undefined where none waits. Throws what keeps it from being had: EMFILE. */
export function accept(listener: number): Accepted | undefined {
  for (;;) {
    length.writeUInt32LE(name.length);
    const fd = raw.accept4(listener, name, length, libc.SOCK_NONBLOCK | libc.SOCK_CLOEXEC);
    if (fd >= 0) return { fd, ...endOf(name) };
    const errno = libc.errno();
    if (errno === EAGAIN) return undefined;
    const failure = new KernelError(errno, "accept");
    // It gave up while it waited; the next one counts.
    if (errno !== EINTR && failure.code !== "ECONNABORTED") throw failure;
  }
}

/** A connection being made, from the thread's present namespace. Throws where it cannot even be begun. */
export function beginConnection(address: string, port: number): number {
  const family = isIP(address) === 6 ? libc.AF_INET6 : libc.AF_INET;
  const fd = libc.socket(family, libc.SOCK_STREAM | libc.SOCK_NONBLOCK, 0);
  const to = sockaddr(address, port);
  if (raw.connect(fd, to, to.length) < 0) {
    const errno = libc.errno();
    if (errno !== EINPROGRESS) {
      libc.close(fd);
      throw new KernelError(errno, `connect ${address}:${port}`);
    }
  }
  return fd;
}

const value = Buffer.alloc(4);
const SOL_SOCKET = 1;

/** Whether the socket has failed; it is told once. */
export function hasFailed(fd: number): boolean {
  const SO_ERROR = 4;
  length.writeUInt32LE(4);
  return raw.getsockopt(fd, SOL_SOCKET, SO_ERROR, value, length) < 0 || value.readInt32LE(0) !== 0;
}

/** No more is sent; what was sent still arrives, and the other direction stays open. */
export function endSending(fd: number): void {
  const SHUT_WR = 1;
  raw.shutdown(fd, SHUT_WR);
}

/** Closes with a reset instead of an end. */
export function resetAndClose(fd: number): void {
  const SO_LINGER = 13;
  const atOnce = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);
  raw.setsockopt(fd, SOL_SOCKET, SO_LINGER, atOnce, atOnce.length);
  libc.close(fd);
}

/** After so long without a word an end is asked whether it is still there: nobody else would notice. */
const KEEPALIVE_S = 60;

/** No delay for small segments, and no dead end is waited for. What a listener accepts has this of it. */
export function prepareStream(fd: number): void {
  const IPPROTO_TCP = 6;
  const [TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, SO_KEEPALIVE] = [1, 4, 5, 6, 9];
  libc.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  libc.setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  libc.setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_S);
  libc.setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  libc.setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, 10);
}

/** The socket's own end. */
export const localEnd = (fd: number): End => endOf(libc.getsockname(fd));

/** The other one; undefined when it has gone. */
export function remoteEnd(fd: number): End | undefined {
  length.writeUInt32LE(name.length);
  return raw.getpeername(fd, name, length) < 0 ? undefined : endOf(name);
}

const one = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]);

/** Counts an eventfd up. */
export function wake(fd: number): void {
  writeSync(fd, one);
}

/** Takes its count back. */
export function takeWake(fd: number): void {
  readSync(fd, Buffer.alloc(8));
}

export { close, duplicate, eventfd, shutdown as endListening } from "./libc.ts";
