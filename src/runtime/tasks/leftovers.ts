/**
 * What a daemon that was killed, or a containerd that was, leaves between us and the shims.
 *
 * A shim that starts a process opens its FIFOs for writing, which waits until somebody has them open for reading: for ever
 * when the reader died just then. It waits with the container's lock in hand and answers nothing more about the container,
 * so that one which runs well cannot be told from one that does not. Hence the next daemon opens all FIFOs before it asks
 * anything, and nobody lets go of FIFOs whose process may still be in the making.
 */
import { closeSync, constants, existsSync, openSync, readdirSync, rmSync } from "node:fs";
import { Status } from "#proto/containerd/v1/types/task_pb.js";
import { type Clock, sleep, systemClock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Containerd } from "../containerd/client.ts";
import { ifFound, ignoreNotFound } from "../containerd/errors.ts";
import { type Exits, isoOf } from "./exits.ts";
import { DRAIN_MS, type Stdio } from "./stdio.ts";

/** How often what a shim does not say is asked for, ms, and how many times. */
const AGAIN_MS = 1_000;
const TIMES = 120;
const ANSWER_MS = 10_000;

const namesIn = (dir: string): string[] => (existsSync(dir) ? readdirSync(dir) : []);

/** Opens for reading every FIFO of `stdio.ts` below `dir`, and reads nothing. Disposing closes them. */
export function holdFifos(dir: string): Disposable {
  const fds: number[] = [];
  const processes = namesIn(dir).flatMap((name) =>
    name.endsWith("-exec") ? namesIn(`${dir}/${name}`).map((execId) => `${dir}/${name}/${execId}`) : [`${dir}/${name}`],
  );
  for (const path of processes.flatMap((process) => [`${process}/stdout`, `${process}/stderr`])) {
    try {
      fds.push(openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
    } catch {
      // A terminal has no stderr, and what is being removed has neither.
    }
  }
  return {
    [Symbol.dispose]() {
      for (const fd of fds.splice(0)) closeSync(fd);
    },
  };
}

export interface LeftExecsOptions {
  readonly containerd: Containerd;
  readonly exits: Exits;
  readonly log: Logger;
  readonly clock?: Clock;
  /** Opens our ends of the FIFOs in a command's directory. */
  readonly open: (id: string, execId: string, dir: string) => Stdio;
}

/** Commands of `exec` that nobody waits for any more: they run on to their end, what they say is read and dropped. */
export class LeftExecs implements Disposable {
  readonly #options: LeftExecsOptions;
  readonly #clock: Clock;
  readonly #abort = new AbortController();

  constructor(options: LeftExecsOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** Those of a container whose directories are in `dir`. */
  adopt(id: string, dir: string): void {
    for (const execId of namesIn(dir)) void this.follow(id, execId, `${dir}/${execId}`);
  }

  /** `io`: our ends, where they are open already. Never rejects. */
  async follow(id: string, execId: string, dir: string, io?: Stdio): Promise<void> {
    const { containerd, exits, log } = this.#options;
    const call = containerd.call({ timeoutMs: ANSWER_MS });
    const exit = exits.expect(id, execId);
    try {
      io ??= this.#options.open(id, execId, dir);
      io.onOutput(() => {});
      if (await this.#isThere(id, execId)) {
        await exit;
        await ignoreNotFound(containerd.tasks.deleteProcess({ containerId: id, execId }, call));
      }
    } catch (error) {
      if (this.#abort.signal.aborted) return io?.destroy();
      log.info("a command left by an earlier daemon is given up", { container: id, error: messageOf(error) });
    }
    exits.forget(id, execId);
    await io?.finish(DRAIN_MS);
    rmSync(dir, { recursive: true, force: true });
  }

  /** Whether the command has been started; its end, if it is over already, is settled. */
  async #isThere(id: string, execId: string): Promise<boolean> {
    const { containerd, exits } = this.#options;
    const call = containerd.call({ timeoutMs: ANSWER_MS });
    const request = { containerId: id, execId };
    for (let times = 0; times < TIMES; times++) {
      if (times > 0) await sleep(this.#clock, AGAIN_MS, this.#abort.signal);
      try {
        const process = (await ifFound(containerd.tasks.get(request, call)))?.process;
        if (!process) return false;
        if (process.status === Status.STOPPED) {
          exits.settle(id, execId, { exitCode: process.exitStatus, exitedAt: isoOf(process.exitedAt) });
          return true;
        }
        if (process.status === Status.RUNNING || process.status === Status.PAUSED) {
          exits.started(id, execId, process.pid);
          // Who wrote to it is gone.
          await containerd.tasks.closeIO({ ...request, stdin: true }, call).catch(() => {});
          return true;
        }
        // Never started, or just being: then it cannot be deleted.
        if (process.status === Status.CREATED && times > 0) {
          await ignoreNotFound(containerd.tasks.deleteProcess(request, call));
          return false;
        }
      } catch (error) {
        if (times === TIMES - 1) throw error;
      }
    }
    return false;
  }

  [Symbol.dispose](): void {
    this.#abort.abort();
  }
}
