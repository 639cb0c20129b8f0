/** Filters of the swarm's lists: names and ids match by prefix, labels by key or key=value. */
import { invalid } from "../../base/errors.ts";
import type { Filters } from "../http/request.ts";

/** Refuses filters that a list does not know, with Docker's words. */
export function accept(filters: Filters, known: readonly string[]): void {
  for (const name of filters.keys()) if (!known.includes(name)) throw invalid(`invalid filter '${name}'`);
}

export function values(filters: Filters, name: string): readonly string[] {
  return filters.get(name) ?? [];
}

/** True when the filter is absent or one of its values is a prefix. */
export function byPrefix(filters: Filters, name: string, candidate: string): boolean {
  const wanted = values(filters, name);
  return wanted.length === 0 || wanted.some((value) => candidate.startsWith(value));
}

export function byValue(filters: Filters, name: string, candidate: string): boolean {
  const wanted = values(filters, name);
  return wanted.length === 0 || wanted.includes(candidate);
}

/** Every label is there; a label without a value matches any. */
export function byLabels(filters: Filters, name: string, have: Readonly<Record<string, string>> | undefined): boolean {
  return values(filters, name).every((wanted) => {
    const equals = wanted.indexOf("=");
    const key = equals < 0 ? wanted : wanted.slice(0, equals);
    const value = equals < 0 ? "" : wanted.slice(equals + 1);
    if (!have || !Object.hasOwn(have, key)) return false;
    return value === "" || have[key] === value;
  });
}

/** One of the enum's words; unknown ones are refused. */
export function byEnum(
  filters: Filters,
  name: string,
  names: Record<string, string | number>,
  candidate: number,
): boolean {
  const wanted = values(filters, name).filter((value) => value !== "");
  const numbers = wanted.map((value) => {
    const number = /^[a-z]/i.test(value) ? names[value.toUpperCase()] : undefined;
    if (typeof number !== "number") throw invalid(`Invalid ${name} filter: '${value}'`);
    return number;
  });
  return numbers.length === 0 || numbers.includes(candidate);
}
