/** Parts of a benchmark in processes of their own, asked over node's IPC: what one costs is not hidden in the other. */
import { type ChildProcess, fork } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { Session } from "node:inspector/promises";

interface Question {
  readonly id: number;
  readonly method: string;
  readonly given: unknown;
}
type Answer = { readonly id: number; readonly value: unknown } | { readonly id: number; readonly error: string };

/** What a process used so far. Times in milliseconds. */
export interface Usage {
  readonly cpuMs: number;
  readonly rssMb: number;
  /** The longest that the event loop was busy since the last look. */
  readonly worstLagMs: number;
}

export class Child implements AsyncDisposable {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #gone: Promise<void>;
  #next = 0;

  constructor(file: string, args: readonly string[] = []) {
    const execArgv = ["--disable-warning=ExperimentalWarning"];
    this.#process = fork(new URL(file, import.meta.url).pathname, args, { execArgv, serialization: "advanced" });
    this.#process.on("message", (answer: Answer) => {
      const wait = this.#waiting.get(answer.id);
      this.#waiting.delete(answer.id);
      if ("error" in answer) wait?.reject(new Error(answer.error));
      else wait?.resolve(answer.value);
    });
    this.#gone = new Promise((resolve) =>
      this.#process.once("exit", () => {
        for (const wait of this.#waiting.values()) wait.reject(new Error("the process ended"));
        resolve();
      }),
    );
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  ask<T>(method: string, given?: unknown): Promise<T> {
    if (!this.#process.connected) return Promise.reject(new Error("the process ended"));
    const id = this.#next++;
    const wait = Promise.withResolvers<unknown>();
    this.#waiting.set(id, wait);
    this.#process.send({ id, method, given } satisfies Question);
    return wait.promise as Promise<T>;
  }

  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#gone;
  }

  /** Lets it end by itself. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process.connected) this.#process.disconnect();
    const late = setTimeout(() => this.#process.kill("SIGKILL"), 10_000);
    await this.#gone;
    clearTimeout(late);
  }
}

const inspector = new Session();

/** Starts a CPU profile, or writes the one that runs to a file. */
async function profile(file: string): Promise<void> {
  if (file === "") {
    inspector.connect();
    await inspector.post("Profiler.enable");
    await inspector.post("Profiler.start");
    return;
  }
  const { profile } = await inspector.post("Profiler.stop");
  writeFileSync(file, JSON.stringify(profile));
  inspector.disconnect();
}

/** The other side: answers until the parent goes, then runs `end`. */
export function answer(methods: Record<string, (given: never) => unknown>, end: () => Promise<void>): void {
  const all: typeof methods = { profile, ...methods };
  process.on("message", ({ id, method, given }: Question) => {
    Promise.resolve()
      .then(() => all[method]?.(given as never))
      .then(
        (value) => process.send?.({ id, value } satisfies Answer),
        (error) => process.send?.({ id, error: String(error?.stack ?? error) } satisfies Answer),
      );
  });
  process.once("disconnect", () => void end().finally(() => process.exit(0)));
}

let worst = 0;
let last = performance.now();
setInterval(() => {
  const now = performance.now();
  worst = Math.max(worst, now - last - 10);
  last = now;
}, 10).unref();

/** This process's usage. */
export function usage(): Usage {
  const { user, system } = process.cpuUsage();
  const worstLagMs = Math.round(worst);
  worst = 0;
  return { cpuMs: (user + system) / 1000, rssMb: Math.round(process.memoryUsage.rss() / 2 ** 20), worstLagMs };
}

/** Ids of processes whose command line has all these words. */
export function pidsOf(...words: readonly string[]): number[] {
  return readdirSync("/proc").flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const line = readFileSync(`/proc/${name}/cmdline`, "utf8");
      return words.every((word) => line.includes(word)) ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

/** CPU time and resident memory of any process; zeroes when it is gone. */
export function usageOf(pid: number): { cpuMs: number; rssMb: number } {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
    const ticks = Number(fields[11]) + Number(fields[12]);
    return { cpuMs: ticks * 10, rssMb: Math.round((Number(fields[21]) * 4096) / 2 ** 20) };
  } catch {
    return { cpuMs: 0, rssMb: 0 };
  }
}
