/** Go's `omitempty` and its way of writing times, durations and enums. JSON.stringify drops what is undefined. */
import type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";

/** The value, or undefined where Go's omitempty would leave it out (zero, "", false, empty slice or map). */
export function nz<T>(value: T): T | undefined {
  if (value === undefined || value === null || value === "" || value === 0 || value === 0n || value === false) {
    return undefined;
  }
  if (Array.isArray(value)) return value.length ? value : undefined;
  if (typeof value === "object" && Object.keys(value).length === 0) return undefined;
  return value;
}

/** A nil pointer stays nil. */
export function ptr<T, R>(value: T | undefined, fn: (value: T) => R): R | undefined {
  return value === undefined ? undefined : fn(value);
}

/** Base64 of bytes, or undefined when there are none. */
export const bytesToJson = (bytes: Uint8Array): string | undefined =>
  bytes.length ? Buffer.from(bytes).toString("base64") : undefined;

const ZERO_TIME = "0001-01-01T00:00:00Z";

/** RFC 3339 with up to nine digits, trailing zeros cut, as Go writes time.Time. */
export function timeToJson(time: Timestamp | undefined): string {
  if (!time) return ZERO_TIME;
  const seconds = new Date(Number(time.seconds) * 1000).toISOString().slice(0, 19);
  const fraction = String(time.nanos).padStart(9, "0").replace(/0+$/, "");
  return `${seconds}${fraction ? `.${fraction}` : ""}Z`;
}

/** Nanoseconds, as Go writes time.Duration. */
export function durationToJson(duration: Duration): number {
  return Number(duration.seconds) * 1e9 + duration.nanos;
}

export const durationOrZero = (duration: Duration | undefined): number => (duration ? durationToJson(duration) : 0);

export function durationFromJson(nanoseconds: number): { seconds: bigint; nanos: number } {
  const seconds = Math.trunc(nanoseconds / 1e9);
  return { seconds: BigInt(seconds), nanos: nanoseconds - seconds * 1e9 };
}

type EnumObject = Record<string, string | number>;

/** A protobuf enum value as Docker writes it: its name in lower case. */
export function wordOf(names: EnumObject, value: number): string {
  return String(names[value] ?? "").toLowerCase();
}

/** The enum value of a word, or undefined. Numbers are no words. */
export function enumValue<E extends EnumObject>(names: E, word: string): Extract<E[keyof E], number> | undefined {
  const key = word.toUpperCase();
  if (!/^[A-Z]/.test(key)) return undefined;
  const value = names[key];
  return typeof value === "number" ? (value as Extract<E[keyof E], number>) : undefined;
}
