/**
 * Who waits for which process, fed by containerd's events. The events stream breaks when containerd restarts;
 * what was missed meanwhile is asked for once the stream is back.
 */
import { fromBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { TaskExitSchema, TaskOOMSchema } from "#proto/containerd/events/task_pb.js";
import { Status } from "#proto/containerd/v1/types/task_pb.js";
import { type Deferred, deferred } from "../../base/async.ts";
import { type Clock, sleep, systemClock } from "../../base/clock.ts";
import { errnoOf, messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Containerd } from "../containerd/client.ts";
import { ifFound } from "../containerd/errors.ts";
import type { ExitStatus } from "../types.ts";

export interface RawExit {
  readonly exitCode: number;
  readonly exitedAt: string;
}

interface Waiter {
  readonly id: string;
  readonly execId: string;
  readonly exit: Deferred<RawExit>;
  /** 0 until it has started. */
  pid: number;
  /** Ends that were told before the pid was known. */
  readonly early: { readonly pid: number; readonly exit: RawExit }[];
}

const keyOf = (id: string, execId: string): string => `${id}/${execId || id}`;

export const isoOf = (time: Timestamp | undefined): string => (time ? timestampDate(time) : new Date()).toISOString();

/** An end that nobody can tell the status of any more. */
const lost = (): RawExit => ({ exitCode: 255, exitedAt: new Date().toISOString() });

/** How often is looked whether processes are gone of whose end nothing was told, ms. */
const LOOK_MS = 2_000;

/** So long after a process is gone from containerd's books the event of its end may still come, ms. */
const TOLD_MS = 1_000;
const ANSWER_MS = 10_000;

function isThere(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return errnoOf(error) !== "ESRCH";
  }
}

export class Exits {
  #containerd: Containerd;
  #log: Logger;
  #clock: Clock;
  #waiters = new Map<string, Waiter>();
  #oom = new Set<string>();
  #abort = new AbortController();
  #cancelLook: () => void;
  /** Waiters whose process was gone at the last look. */
  #gone = new Set<Waiter>();

  constructor(containerd: Containerd, log: Logger, clock: Clock = systemClock) {
    this.#containerd = containerd;
    this.#log = log;
    this.#clock = clock;
    this.#cancelLook = clock.every(LOOK_MS, () => this.#look());
    void this.#follow();
  }

  /** To be called before the process is started: its end may be told before its start. */
  expect(id: string, execId = ""): Promise<RawExit> {
    const key = keyOf(id, execId);
    const known = this.#waiters.get(key);
    if (known) return known.exit.promise;
    if (!execId) this.#oom.delete(id);
    const exit = deferred<RawExit>();
    this.#waiters.set(key, { id, execId, exit, pid: 0, early: [] });
    return exit.promise;
  }

  /**
   * The process that is waited for has this pid. Ends of others under its name are not its own: containerd tells that of
   * a dead shim late, when the container may have been started again.
   */
  started(id: string, execId: string, pid: number): void {
    const waiter = this.#waiters.get(keyOf(id, execId));
    if (!waiter) return;
    waiter.pid = pid;
    const told = waiter.early.find((one) => one.pid === pid);
    if (told) this.settle(id, execId, told.exit);
  }

  /** The process never started. */
  forget(id: string, execId = ""): void {
    this.#waiters.delete(keyOf(id, execId));
  }

  settle(id: string, execId: string, exit: RawExit): void {
    const key = keyOf(id, execId);
    this.#waiters.get(key)?.exit.resolve(exit);
    this.#waiters.delete(key);
  }

  /** The container is gone for good. */
  drop(id: string): void {
    this.#oom.delete(id);
  }

  wasOomKilled(id: string): boolean {
    return this.#oom.has(id);
  }

  dispose(): void {
    this.#cancelLook();
    this.#abort.abort();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#abort;
    const filters = ["/tasks/exit", "/tasks/oom"].map(
      (topic) => `namespace==${JSON.stringify(this.#containerd.namespace)},topic==${JSON.stringify(topic)}`,
    );
    for (;;) {
      try {
        const stream = this.#containerd.events.subscribe({ filters }, this.#containerd.call({ signal }));
        const check = this.#clock.after(200, () => void this.#catchUp());
        try {
          for await (const envelope of stream) if (envelope.event) this.#onEvent(envelope.topic, envelope.event.value);
        } finally {
          check();
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#log.warn("events of containerd interrupted", { error: messageOf(error) });
      }
      if (signal.aborted) return;
      await sleep(this.#clock, 100, signal).catch(() => {});
    }
  }

  #onEvent(topic: string, bytes: Uint8Array): void {
    if (topic === "/tasks/oom") {
      this.#oom.add(fromBinary(TaskOOMSchema, bytes).containerId);
      return;
    }
    const event = fromBinary(TaskExitSchema, bytes);
    const execId = event.id === event.containerId ? "" : event.id;
    const waiter = this.#waiters.get(keyOf(event.containerId, execId));
    if (!waiter) return;
    const exit = { exitCode: event.exitStatus, exitedAt: isoOf(event.exitedAt) };
    if (waiter.pid === 0) waiter.early.push({ pid: event.pid, exit });
    else if (waiter.pid === event.pid || event.pid === 0) this.settle(event.containerId, execId, exit);
    else this.#log.info("the end of an earlier process is told late", { container: event.containerId, pid: event.pid });
  }

  /**
   * An end may be told before the stream of events has begun, and a shim gives up telling a containerd that does not listen
   * for long: who has been gone for two looks is asked after.
   */
  #look(): void {
    const gone = [...this.#waiters.values()].filter(({ pid }) => pid !== 0 && !isThere(pid));
    const late = gone.filter((waiter) => this.#gone.has(waiter));
    this.#gone = new Set(gone.filter((waiter) => !late.includes(waiter)));
    for (const waiter of late) void this.#askAfter(waiter);
  }

  /** Asks after every process waited for: its end may have been told while nobody listened. */
  async #catchUp(): Promise<void> {
    await Promise.all([...this.#waiters.values()].map((waiter) => this.#askAfter(waiter)));
  }

  async #askAfter(waiter: Waiter): Promise<void> {
    const { id, execId, pid } = waiter;
    const call = this.#containerd.call({ timeoutMs: ANSWER_MS });
    try {
      const found = await ifFound(this.#containerd.tasks.get({ containerId: id, execId }, call));
      const process = found?.process;
      if (process?.status === Status.STOPPED) {
        this.settle(id, execId, { exitCode: process.exitStatus, exitedAt: isoOf(process.exitedAt) });
      } else if (!process && pid !== 0) {
        // containerd cleared it away: while nobody listened, or just now, and then its event is on its way.
        await sleep(this.#clock, TOLD_MS, this.#abort.signal);
        if (this.#waiters.get(keyOf(id, execId)) === waiter) this.settle(id, execId, lost());
      }
    } catch (error) {
      this.#log.debug("could not ask after a process", { container: id, error: messageOf(error) });
    }
  }
}

/** The end of a container's first process, with what else is known about it. */
export function exitStatus(raw: RawExit | undefined, oomKilled: boolean): ExitStatus {
  return { ...(raw ?? lost()), oomKilled };
}
