/** One line of Docker's json-file log. */
import { rfc3339Nano } from "../time.ts";
import type { LogEntry } from "../types.ts";
import type { CutLine } from "./lines.ts";

const ESCAPES: Record<string, string> = {
  "<": "\\u003c",
  ">": "\\u003e",
  "&": "\\u0026",
  "\u2028": "\\u2028",
  "\u2029": "\\u2029",
};

/** Gives each line its own time, also within one microsecond, so that order and `since` stay exact. */
export class LineClock {
  #lastMs = 0;
  #nanos = 0;
  /** The text of the last whole second: formatting a date per line would cost more than the rest. */
  #second = Number.NaN;
  #text = "";

  stamp(ms: number): string {
    if (ms <= this.#lastMs) this.#nanos++;
    else {
      this.#lastMs = ms;
      this.#nanos = 0;
    }
    const second = Math.floor(this.#lastMs / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#text = rfc3339Nano(second * 1000).slice(0, -1);
    }
    const fraction = (this.#lastMs - second * 1000) * 1_000_000 + this.#nanos;
    if (fraction === 0) return `${this.#text}Z`;
    return `${this.#text}.${String(fraction).padStart(9, "0").replace(/0+$/, "")}Z`;
  }
}

export function toEntry(cut: CutLine, time: string): LogEntry {
  return { stream: cut.stream, line: cut.partial ? cut.data : Buffer.concat([cut.data, Buffer.from("\n")]), time };
}

/** What needs no escape, the newline at the end aside: most of all lines. */
const PLAIN = /^[ !#-%'-;=?-[\]-~]*\n?$/;

/** `attributes`: nothing, or `"attrs":{…},` as it stands in each line. */
export function encodeEntry(entry: LogEntry, attributes = ""): string {
  const text = entry.line.toString("latin1");
  if (PLAIN.test(text)) {
    const body = text.endsWith("\n") ? `${text.slice(0, -1)}\\n` : text;
    return `{"log":"${body}","stream":"${entry.stream}",${attributes}"time":"${entry.time}"}\n`;
  }
  const log = JSON.stringify(entry.line.toString("utf8")).replace(/[<>&\u2028\u2029]/g, (c) => ESCAPES[c] ?? c);
  return `{"log":${log},"stream":"${entry.stream}",${attributes}"time":"${entry.time}"}\n`;
}

/** Undefined for a line that was cut off by a crash. */
export function decodeEntry(text: string): LogEntry | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null) return undefined;
    if (!("log" in value) || typeof value.log !== "string") return undefined;
    const time = "time" in value && typeof value.time === "string" ? value.time : "";
    const stream = "stream" in value && value.stream === "stderr" ? "stderr" : "stdout";
    return { stream, line: Buffer.from(value.log), time };
  } catch {
    return undefined;
  }
}
