/** Filters as Docker matches them. */
import { invalid } from "../base/errors.ts";
import { linearPattern } from "../base/pattern.ts";
import type { Filters } from "./types.ts";

/** Throws Docker's words for filters that a list does not know. */
export function knownFilters(filters: Filters, known: readonly string[]): void {
  for (const name of filters.keys()) if (!known.includes(name)) throw invalid(`invalid filter '${name}'`);
}

/** Some value equals one of the candidates exactly; true when the filter is absent. */
export function exact(filters: Filters, name: string, ...candidates: readonly string[]): boolean {
  const wanted = filters.get(name);
  return !wanted?.length || wanted.some((value) => candidates.includes(value));
}

/** Docker's `Match`: a regular expression search, or plain equality where the pattern does not compile. */
export function pattern(filters: Filters, name: string, ...candidates: readonly string[]): boolean {
  const wanted = filters.get(name);
  if (!wanted?.length) return true;
  return wanted.some((value) => candidates.some((candidate) => candidate === value || searches(value, candidate)));
}

function searches(source: string, candidate: string): boolean {
  try {
    return linearPattern(source).test(candidate);
  } catch {
    return false;
  }
}

/** Some value is a prefix of a candidate (ids). */
export function prefix(filters: Filters, name: string, ...candidates: readonly string[]): boolean {
  const wanted = filters.get(name);
  return !wanted?.length || wanted.some((value) => candidates.some((candidate) => candidate.startsWith(value)));
}

/** Every `label` value ("key" or "key=value") is there. */
export function labels(filters: Filters, have: Readonly<Record<string, string>>, name = "label"): boolean {
  return (filters.get(name) ?? []).every((wanted) => hasLabel(have, wanted));
}

/** No `label!` value is there (prune). */
export function withoutLabels(filters: Filters, have: Readonly<Record<string, string>>): boolean {
  return (filters.get("label!") ?? []).every((unwanted) => !hasLabel(have, unwanted));
}

function hasLabel(have: Readonly<Record<string, string>>, wanted: string): boolean {
  const equals = wanted.indexOf("=");
  if (equals < 0) return Object.hasOwn(have, wanted);
  return have[wanted.slice(0, equals)] === wanted.slice(equals + 1);
}

/** A filter that is a truth value ("dangling=true"); undefined when absent. */
export function flag(filters: Filters, name: string): boolean | undefined {
  const values = filters.get(name);
  if (!values?.length) return undefined;
  const [value] = values;
  if (value === "true" || value === "1") return true;
  if (value === "false" || value === "0") return false;
  throw invalid(`invalid filter '${name}=[${values.join(" ")}]'`);
}
