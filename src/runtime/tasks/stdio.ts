/**
 * Stdio of a process through FIFOs. The shim keeps both ends of each open, so the process neither blocks on a
 * missing reader nor dies of SIGPIPE while the daemon is away; a new daemon opens them again and goes on.
 *
 * Descriptors are non-blocking and polled by epoll (`net.Socket`): reading a FIFO through `fs` would occupy a
 * thread of libuv's pool for as long as the process is silent.
 */
import { closeSync, constants, existsSync, mkdirSync, openSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import type { Writable } from "node:stream";
import { deferred, Emitter } from "../../base/async.ts";
import type { Containerd } from "../containerd/client.ts";
import { ignoreNotFound } from "../containerd/errors.ts";
import { mkfifo } from "../libc.ts";
import type { OutputChunk, ProcessIo } from "../types.ts";

/** How long containerd and the shim may take to begin a process, ms. A shim that is stuck lets go by the same deadline. */
export const BEGIN_MS = 120_000;
/** How long output that children of an ended process still hold open is waited for, ms. */
export const DRAIN_MS = 2_000;
const CLOSE_MS = 10_000;

/** Paths of the FIFOs as containerd gets them; empty where there is none. */
export interface FifoPaths {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
}

/** Makes the FIFOs of one process in its own directory. */
export function makeFifos(dir: string, options: { stdin: boolean; tty: boolean }): FifoPaths {
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const make = (name: string): string => {
    mkfifo(`${dir}/${name}`);
    return `${dir}/${name}`;
  };
  return {
    stdin: options.stdin ? make("stdin") : "",
    stdout: make("stdout"),
    stderr: options.tty ? "" : make("stderr"),
  };
}

/** The outputs that `makeFifos` made in a directory. */
export function outputsIn(dir: string): FifoPaths {
  const known = (name: string) => (existsSync(`${dir}/${name}`) ? `${dir}/${name}` : "");
  return { stdin: "", stdout: known("stdout"), stderr: known("stderr") };
}

/** Our ends of a container's first process, or of a command in it. */
export function taskIo(containerd: Containerd, id: string, execId: string, fifos: FifoPaths): Stdio {
  return new Stdio(fifos, async () => {
    const request = { containerId: id, execId, stdin: true };
    await ignoreNotFound(containerd.tasks.closeIO(request, containerd.call({ timeoutMs: CLOSE_MS })));
  });
}

/** Nobody listens to some processes (a detached exec): after this long their output is read and dropped. */
const listenGrace = 1_000;

/** Our ends of a process's FIFOs. */
export class Stdio implements ProcessIo {
  #outputs = new Emitter<OutputChunk>();
  #readers: Socket[] = [];
  #stdin: Socket | undefined;
  #closeIo: () => Promise<void>;
  #flowing = false;
  #paused = false;
  #grace: NodeJS.Timeout;
  readonly drained: Promise<void>;

  /** `closeIo` tells the shim to close its own end of stdin. */
  constructor(paths: FifoPaths, closeIo: () => Promise<void>) {
    this.#closeIo = closeIo;
    const ends: Promise<void>[] = [];
    try {
      if (paths.stdout) ends.push(this.#read(paths.stdout, "stdout"));
      if (paths.stderr) ends.push(this.#read(paths.stderr, "stderr"));
      // For reading too, else opening fails while the shim's end is not there yet; never read from.
      if (paths.stdin) {
        const fd = openSync(paths.stdin, constants.O_RDWR | constants.O_NONBLOCK);
        this.#stdin = adoptFd(fd, { readable: false, writable: true });
        this.#stdin.on("error", () => {});
      }
    } catch (error) {
      this.destroy();
      throw error;
    }
    this.drained = Promise.all(ends).then(() => clearTimeout(this.#grace));
    this.#grace = setTimeout(() => this.#flow(), listenGrace).unref();
  }

  get stdin(): Writable | undefined {
    return this.#stdin;
  }

  /** Output is held back until the first listener is there. */
  onOutput(listener: (chunk: OutputChunk) => void): () => void {
    const remove = this.#outputs.on(listener);
    this.#flow();
    return remove;
  }

  #read(path: string, stream: OutputChunk["stream"]): Promise<void> {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const socket = adoptFd(fd, { readable: true, writable: false });
    const end = deferred<void>();
    socket.on("data", (data: Buffer) => this.#outputs.emit({ stream, data, at: Date.now() }));
    socket.pause();
    socket.on("error", () => socket.destroy());
    socket.on("close", () => end.resolve());
    this.#readers.push(socket);
    return end.promise;
  }

  #flow(): void {
    if (this.#flowing) return;
    this.#flowing = true;
    clearTimeout(this.#grace);
    if (!this.#paused) for (const reader of this.#readers) reader.resume();
  }

  pause(): void {
    this.#paused = true;
    for (const reader of this.#readers) reader.pause();
  }

  resume(): void {
    this.#paused = false;
    if (this.#flowing) for (const reader of this.#readers) reader.resume();
  }

  /** The process ended: reads what is left, waits at most `ms` for children of it that still hold the pipes. */
  async finish(ms: number): Promise<void> {
    this.#stdin?.destroy();
    const timer = setTimeout(() => this.destroy(), ms);
    await this.drained;
    clearTimeout(timer);
  }

  async closeStdin(): Promise<void> {
    const stdin = this.#stdin;
    if (!stdin || stdin.destroyed) return;
    // Our end goes first, with all that was written in the pipe: the shim then sees end of file behind it.
    await new Promise<void>((resolve) => {
      stdin.once("close", () => resolve());
      stdin.end(() => stdin.destroy());
    });
    await this.#closeIo();
  }

  destroy(): void {
    clearTimeout(this.#grace);
    for (const reader of this.#readers) reader.destroy();
    this.#stdin?.destroy();
  }
}

function adoptFd(fd: number, options: { readable: boolean; writable: boolean }): Socket {
  try {
    return new Socket({ fd, ...options });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
