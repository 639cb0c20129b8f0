/** Health checks: a probe run in the container again and again, and Docker's rules for what its results mean. */
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { ContainerConfig } from "../shapes.ts";
import { rfc3339Nano } from "../time.ts";

export type HealthStatus = "starting" | "healthy" | "unhealthy";
type Check = NonNullable<ContainerConfig["Healthcheck"]>;

const MS = 1e-6;
const DEFAULTS = { interval: 30_000, timeout: 30_000, startInterval: 5_000, retries: 3 };
const KEPT_RESULTS = 5;
const MAX_OUTPUT = 4096;

export interface ProbeResult {
  readonly Start: string;
  readonly End: string;
  readonly ExitCode: number;
  readonly Output: string;
}

export interface Health {
  readonly status: HealthStatus;
  readonly failingStreak: number;
  readonly log: readonly ProbeResult[];
}

/** The arguments of the probe, or undefined where there is none ("NONE" switches the image's off). */
export function probeCommand(
  check: ContainerConfig["Healthcheck"],
  shell: readonly string[] | undefined,
): string[] | undefined {
  const [kind, ...rest] = check?.Test ?? [];
  if (kind === "CMD") return rest;
  if (kind === "CMD-SHELL") return [...(shell?.length ? shell : ["/bin/sh", "-c"]), rest[0] ?? ""];
  return undefined;
}

/** The health after a probe. Failures within the start period do not count unless a probe has succeeded before. */
export function judge(health: Health, result: ProbeResult, retries: number, inStartPeriod: boolean): Health {
  const log = [...health.log, result].slice(-KEPT_RESULTS);
  if (result.ExitCode === 0) return { status: "healthy", failingStreak: 0, log };
  if (health.status === "starting" && inStartPeriod) return { ...health, log };
  const failingStreak = health.failingStreak + 1;
  return { status: failingStreak >= retries ? "unhealthy" : health.status, failingStreak, log };
}

export interface HealthMonitorOptions {
  readonly check: Check;
  readonly clock: Clock;
  /** Runs the probe; rejects when it could not be run or took longer than the timeout (the signal aborts then). */
  readonly probe: (signal: AbortSignal) => Promise<{ exitCode: number; output: string }>;
  readonly onChange: (status: HealthStatus) => void;
}

export class HealthMonitor {
  readonly #options: HealthMonitorOptions;
  readonly #startedAt: number;
  #health: Health = { status: "starting", failingStreak: 0, log: [] };
  #cancel: () => void = () => {};
  #stopped = false;

  constructor(options: HealthMonitorOptions) {
    this.#options = options;
    this.#startedAt = options.clock.steady();
    this.#schedule();
  }

  get status(): HealthStatus {
    return this.#health.status;
  }

  /** State.Health of inspect. */
  document(): { Status: HealthStatus; FailingStreak: number; Log: readonly ProbeResult[] } {
    return { Status: this.#health.status, FailingStreak: this.#health.failingStreak, Log: this.#health.log };
  }

  #inStartPeriod(): boolean {
    return this.#options.clock.steady() - this.#startedAt < this.#options.check.StartPeriod * MS;
  }

  #schedule(): void {
    const { check, clock } = this.#options;
    const interval = check.Interval * MS || DEFAULTS.interval;
    const quick = this.#health.status === "starting" && this.#inStartPeriod();
    const delay = quick ? Math.min(interval, check.StartInterval * MS || DEFAULTS.startInterval) : interval;
    this.#cancel = clock.after(delay, () => void this.#round());
  }

  async #round(): Promise<void> {
    const { check, clock, probe } = this.#options;
    const timeout = check.Timeout * MS || DEFAULTS.timeout;
    const abort = new AbortController();
    const began = clock.now();
    const timer = clock.after(timeout, () => abort.abort());
    this.#cancel = () => {
      timer();
      abort.abort();
    };
    let exitCode = -1;
    let output = "";
    try {
      const result = await Promise.race([probe(abort.signal), aborted(abort.signal)]);
      ({ exitCode, output } = result);
    } catch (error) {
      output = abort.signal.aborted
        ? `Health check exceeded timeout (${timeout >= 1000 ? `${timeout / 1000}s` : `${timeout}ms`})`
        : messageOf(error);
    } finally {
      timer();
    }
    if (this.#stopped) return;
    const result: ProbeResult = {
      Start: rfc3339Nano(began),
      End: rfc3339Nano(clock.now()),
      ExitCode: exitCode,
      Output: output.slice(0, MAX_OUTPUT),
    };
    const before = this.#health.status;
    this.#health = judge(this.#health, result, check.Retries || DEFAULTS.retries, this.#inStartPeriod());
    if (this.#health.status !== before) this.#options.onChange(this.#health.status);
    this.#schedule();
  }

  stop(): void {
    this.#stopped = true;
    this.#cancel();
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(new Error("time is up")), { once: true });
  });
}
