/** Docker's spellings of time. */
import { invalid } from "../base/errors.ts";

/** Go's zero time, what Docker shows for "never". */
export const NEVER = "0001-01-01T00:00:00Z";

/** RFC 3339 with nanoseconds, trailing zeros cut as Go does. `nanos` are those below the millisecond. */
export function rfc3339Nano(ms: number, nanos = 0): string {
  const whole = Math.floor(ms);
  const below = Math.min(999_999, Math.round((ms - whole) * 1e6) + nanos);
  const base = new Date(whole).toISOString().slice(0, 19);
  const fraction = (((whole % 1000) + 1000) % 1000) * 1_000_000 + below;
  const digits = String(fraction).padStart(9, "0").replace(/0+$/, "");
  return digits ? `${base}.${digits}Z` : `${base}Z`;
}

/** Milliseconds (with fraction) of an RFC 3339 text. */
export function parseRfc3339(text: string): number | undefined {
  const match = /^(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/.exec(text);
  if (!match) return undefined;
  const base = Date.parse(`${match[1]}${match[3]?.toUpperCase()}`);
  if (Number.isNaN(base)) return undefined;
  return base + Number(match[2] ?? "0") * 1000;
}

const units: Record<string, number> = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Go's duration syntax ("1h30m", "250ms") in milliseconds. */
export function parseDuration(text: string): number | undefined {
  if (text === "0") return 0;
  let rest = text;
  let total = 0;
  if (rest === "") return undefined;
  while (rest) {
    const match = /^(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/.exec(rest);
    if (!match?.[1] || !match[2]) return undefined;
    total += Number(match[1]) * (units[match[2]] ?? 0);
    rest = rest.slice(match[0].length);
  }
  return total;
}

/**
 * What `--since`, `--until` and the `until` filter accept: unix seconds with fraction, a date, or a duration that is
 * counted back from `now`. Gives milliseconds since the epoch.
 */
export function parseTimestamp(text: string, now: number): number {
  if (/^-?\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  const duration = parseDuration(text);
  if (duration !== undefined) return now - duration;
  const zoned = /([Zz]|[+-]\d\d:\d\d)$/.test(text) && text.includes("T") ? text : undefined;
  if (zoned) {
    const exact = parseRfc3339(zoned);
    if (exact !== undefined) return exact;
  }
  const local = /^\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d(\.\d+)?)?)?)?$/.test(text) ? Date.parse(padTime(text)) : Number.NaN;
  if (Number.isNaN(local)) throw invalid(`failed to parse value as time or duration: ${JSON.stringify(text)}`);
  return local;
}

function padTime(text: string): string {
  if (!text.includes("T")) return `${text}T00:00:00`;
  const time = text.slice(text.indexOf("T") + 1);
  return time.length === 2 ? `${text}:00:00` : time.length === 5 ? `${text}:00` : text;
}

/** "5 minutes", "About an hour": the words of `docker ps`. */
export function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.floor(ms / 3_600_000 + 0.5);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}
