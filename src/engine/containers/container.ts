/** A container in memory: its record, and while it runs its process, its listeners and its timers. */
import { type Deferred, deferred, Emitter } from "../../base/async.ts";
import type { OutputChunk, StartedProcess } from "../../runtime/types.ts";
import type { LogIntake } from "../logs/intake.ts";
import type { ContainerLog } from "../logs/log.ts";
import type { ContainerStatus } from "../types.ts";
import type { Exec } from "./exec.ts";
import type { Flow } from "./flow.ts";
import type { HealthMonitor } from "./health.ts";
import type { ContainerRecord } from "./record.ts";
import { isUp } from "./states.ts";

/** One run of the process, from its start to the end of its output. */
export interface Run {
  readonly process: StartedProcess;
  /** Resolves when the exit has been dealt with: state saved, network gone. */
  readonly over: Deferred<void>;
  /** Holds the process up for slow readers. */
  readonly flow: Flow;
  readonly intake: LogIntake;
}

export class Container {
  record: ContainerRecord;
  readonly log: ContainerLog;
  /** Output of every run: what attached clients listen to. */
  readonly output = new Emitter<OutputChunk>();
  /** A run began, or is over (also one that failed to begin). */
  readonly runs = new Emitter<"begin" | "end">();
  /** The container is gone. */
  readonly removed = deferred<void>();
  run: Run | undefined;
  health: HealthMonitor | undefined;
  cancelRestart: (() => void) | undefined;
  /** Terminal size asked for before or during a run. */
  size: { width: number; height: number } | undefined;
  readonly execs = new Map<string, Exec>();
  readonly #nextExits: Deferred<number>[] = [];

  constructor(record: ContainerRecord, log: ContainerLog) {
    this.record = record;
    this.log = log;
  }

  get id(): string {
    return this.record.id;
  }

  get name(): string {
    return this.record.name;
  }

  get up(): boolean {
    return isUp(this.record.state.status);
  }

  /** Resolves with the exit code when the container next comes to rest. */
  nextExit(): Promise<number> {
    const wait = deferred<number>();
    this.#nextExits.push(wait);
    return wait.promise;
  }

  settleExit(exitCode: number): void {
    for (const wait of this.#nextExits.splice(0)) wait.resolve(exitCode);
  }

  status(): ContainerStatus {
    const { state, config, id, name } = this.record;
    return {
      id,
      name,
      status: state.status,
      pid: state.pid,
      exitCode: state.exitCode,
      oomKilled: state.oomKilled,
      error: state.error,
      health: this.health?.status,
      startedAt: state.startedAt,
      finishedAt: state.finishedAt,
      labels: config.Labels,
    };
  }
}
