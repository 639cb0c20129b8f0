/** The log of one container: a writer with live listeners. Drivers json-file and local share the format; none keeps nothing. */
import { AsyncQueue, Emitter } from "../../base/async.ts";
import { SkeinError } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { OutputChunk } from "../../runtime/types.ts";
import { parseBool, parseSize } from "../containers/verify.ts";
import type { HostConfig } from "../shapes.ts";
import { parseRfc3339 } from "../time.ts";
import type { LogEntry, LogOptions } from "../types.ts";
import { RotatingFile, type Rotation } from "./files.ts";
import { encodeEntry, LineClock, toEntry } from "./format.ts";
import { type CutLine, LineCutter } from "./lines.ts";
import { readEntries } from "./read.ts";
import { Shelf } from "./shelf.ts";

/** Bytes that may wait for the next write. */
const BATCH = 256 * 1024;

export function rotationOf(log: HostConfig["LogConfig"]): Rotation {
  const local = log.Type === "local";
  const size = log.Config["max-size"];
  const files = log.Config["max-file"];
  return {
    maxSize: size && size !== "-1" ? parseSize(size) : local ? 20 * 1024 * 1024 : undefined,
    maxFiles: files ? Number(files) : local ? 5 : 1,
    compress: parseBool(log.Config.compress || String(local)) ?? false,
  };
}

export class ContainerLog {
  readonly path: string;
  /** What each line tells of the container. */
  readonly attributes: Readonly<Record<string, string>>;
  /** `mode=non-blocking`: bytes that may wait, what is more is lost. Undefined: the process waits. */
  readonly buffer: number | undefined;
  readonly #attributesText: string;
  readonly #config: HostConfig["LogConfig"];
  readonly #report: Logger;
  readonly #live = new Emitter<LogEntry | "end">();
  readonly #clock = new LineClock();
  #cutter = new LineCutter();
  readonly #rotation: Rotation;
  #shelf: Shelf | undefined;
  #file: RotatingFile | undefined;
  #pending = "";
  #scheduled = false;

  constructor(
    path: string,
    config: HostConfig["LogConfig"],
    report: Logger,
    attributes: Readonly<Record<string, string>> = {},
  ) {
    this.path = path;
    this.attributes = attributes;
    this.#attributesText = Object.keys(attributes).length ? `"attrs":${JSON.stringify(attributes)},` : "";
    this.#config = config;
    this.#rotation = rotationOf(config);
    this.buffer =
      config.Config.mode === "non-blocking" ? parseSize(config.Config["max-buffer-size"] || "1m") : undefined;
    this.#report = report;
  }

  get kept(): boolean {
    return this.#config.Type !== "none";
  }

  /** Takes output of the process; it reaches the file within this turn of the event loop. */
  write(chunk: OutputChunk): void {
    if (this.kept) for (const cut of this.#cutter.push(chunk)) this.#add(cut);
  }

  #add(cut: CutLine): void {
    const entry = toEntry(cut, this.#clock.stamp(cut.at));
    this.#pending += encodeEntry(entry, this.#attributesText);
    this.#live.emit(entry);
    if (this.#pending.length >= BATCH) this.flush();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => {
        this.#scheduled = false;
        this.flush();
      });
    }
  }

  flush(): void {
    if (this.#pending === "") return;
    const text = this.#pending;
    this.#pending = "";
    try {
      this.#shelf ??= new Shelf(this.path, this.#rotation);
      this.#file ??= new RotatingFile(this.path, this.#rotation, this.#shelf);
      this.#file.append(text);
    } catch (error) {
      this.#report.error("log line lost", { path: this.path, error });
    }
  }

  /** The process is done: what has no newline is written, followers end. */
  end(): void {
    for (const cut of this.#cutter.end()) this.#add(cut);
    this.#cutter = new LineCutter();
    this.flush();
    this.#file?.close();
    this.#file = undefined;
    this.#live.emit("end");
  }

  /** Resolves when the files are as they are to stay: older ones compressed. */
  async settled(): Promise<void> {
    await this.#shelf?.settled();
  }

  /** `running`: whether there is a process whose output can be followed. */
  read(options: LogOptions, running: boolean): AsyncIterable<LogEntry> {
    if (!this.kept) throw new SkeinError("notImplemented", "configured logging driver does not support reading");
    this.flush();
    const wanted = selector(options);
    const past = readEntries(this.path, options.tail);
    const queue = new AsyncQueue<LogEntry>();
    const follow = options.follow && running && !options.signal.aborted;
    const stop = follow ? this.#live.on((entry) => (entry === "end" ? queue.end() : queue.push(entry))) : () => {};
    if (!follow) queue.end();
    return (async function* () {
      const abort = () => queue.end();
      options.signal.addEventListener("abort", abort, { once: true });
      try {
        for (const source of [past, queue]) {
          for await (const entry of source) {
            if (options.signal.aborted) return;
            const verdict = wanted(entry);
            if (verdict === "done") return;
            if (verdict === "yes") yield entry;
          }
        }
      } finally {
        stop();
        options.signal.removeEventListener("abort", abort);
      }
    })();
  }
}

function selector(options: LogOptions): (entry: LogEntry) => "yes" | "no" | "done" {
  return (entry) => {
    const at = options.since !== undefined || options.until !== undefined ? (parseRfc3339(entry.time) ?? 0) : 0;
    if (options.until !== undefined && at > options.until) return "done";
    if (options.since !== undefined && at < options.since) return "no";
    return options[entry.stream] ? "yes" : "no";
  };
}
