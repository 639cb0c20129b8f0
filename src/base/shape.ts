/**
 * Decoders for JSON written by Go programs: keys match without regard to case, null and absent are the
 * zero value, unknown keys are ignored, and a value of the wrong kind is refused with Go's words.
 */
import { invalid } from "./errors.ts";

/** Turns an unknown JSON value into T or throws `invalid`; `path` names the place for the message. */
export type Shape<T> = (value: unknown, path: string) => T;
export type ShapeOf<S> = S extends Shape<infer T> ? T : never;

const kindOf = (value: unknown): string =>
  value === null ? "null" : Array.isArray(value) ? "array" : typeof value === "boolean" ? "bool" : typeof value;

function mismatch(value: unknown, path: string, wanted: string): Error {
  return invalid(`json: cannot unmarshal ${kindOf(value)} into Go struct field ${path || "."} of type ${wanted}`);
}

const absent = (value: unknown): value is null | undefined => value === undefined || value === null;

export const str: Shape<string> = (value, path) => {
  if (absent(value)) return "";
  if (typeof value !== "string") throw mismatch(value, path, "string");
  return value;
};

export const bool: Shape<boolean> = (value, path) => {
  if (absent(value)) return false;
  if (typeof value !== "boolean") throw mismatch(value, path, "bool");
  return value;
};

/** An integer that a double holds exactly. */
export const int: Shape<number> = (value, path) => {
  if (absent(value)) return 0;
  if (typeof value !== "number") throw mismatch(value, path, "int64");
  if (!Number.isInteger(value)) throw mismatch(value, path, "int64");
  return value;
};

export const num: Shape<number> = (value, path) => {
  if (absent(value)) return 0;
  if (typeof value !== "number") throw mismatch(value, path, "float64");
  return value;
};

/** Absent and null become undefined instead of the zero value. */
export function optional<T>(shape: Shape<T>): Shape<T | undefined> {
  return (value, path) => (absent(value) ? undefined : shape(value, path));
}

export function list<T>(item: Shape<T>): Shape<T[]> {
  return (value, path) => {
    if (absent(value)) return [];
    if (!Array.isArray(value)) throw mismatch(value, path, "[]");
    return value.map((entry) => item(entry, path));
  };
}

export function dict<T>(item: Shape<T>): Shape<Record<string, T>> {
  return (value, path) => {
    if (absent(value)) return {};
    if (typeof value !== "object" || Array.isArray(value)) throw mismatch(value, path, "map[string]");
    const out: Record<string, T> = Object.create(null);
    for (const [key, entry] of Object.entries(value)) out[key] = item(entry, `${path}.${key}`);
    return out;
  };
}

/** A list of strings that may be written as one string (Go's strslice). */
export const strOrList: Shape<string[]> = (value, path) =>
  typeof value === "string" ? [value] : list(str)(value, path);

/** Kept as it came. */
export const anything: Shape<unknown> = (value) => value;

/** A Go struct: every field present in the result. */
export function struct<F extends Record<string, Shape<unknown>>>(fields: F): Shape<{ [K in keyof F]: ShapeOf<F[K]> }> {
  const names = Object.keys(fields);
  const byLower = new Map(names.map((name) => [name.toLowerCase(), name]));
  return (value, path) => {
    if (!absent(value) && (typeof value !== "object" || Array.isArray(value))) throw mismatch(value, path, "struct");
    const seen: Record<string, unknown> = Object.create(null);
    for (const [key, entry] of Object.entries(value ?? {})) {
      const name = key in fields ? key : byLower.get(key.toLowerCase());
      if (name !== undefined) seen[name] = entry;
    }
    const out: Record<string, unknown> = {};
    for (const name of names) out[name] = fields[name]?.(seen[name], path ? `${path}.${name}` : name);
    return out as { [K in keyof F]: ShapeOf<F[K]> };
  };
}
