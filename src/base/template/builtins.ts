/** The functions that every template has, and what SwarmKit adds: `join`. */
import { sprintf } from "./printf.ts";
import { GoMap, GoStruct, isTrue, quote, sprint, type TemplateValue, typeOf } from "./values.ts";

/** `string`: every argument must be one. `most` is Infinity where there may be any number. */
export interface TemplateFunction {
  readonly takes: "any" | "string";
  /** How many of the first ones are strings, whatever the others. */
  readonly strings?: number;
  readonly least: number;
  readonly most: number;
  readonly call: (args: readonly TemplateValue[]) => TemplateValue;
}

/** What a function says that it cannot do. */
export class CallError extends Error {}

const any = (least: number, most: number, call: TemplateFunction["call"], strings = 0): TemplateFunction => ({
  ...{ takes: "any", least, most, call, strings },
});

/** A function of strings. */
export const ofStrings = (count: number, call: (...args: string[]) => TemplateValue): TemplateFunction => ({
  ...{ takes: "string", least: count, most: count, call: (args) => call(...args.map(String)) },
});

const bytes = (text: string) => Buffer.from(text, "utf8");
const MANY = Number.POSITIVE_INFINITY;

function indexOf(index: TemplateValue, length: number): number {
  if (index === null) throw new CallError("cannot index slice/array with nil");
  if (typeof index !== "bigint") throw new CallError(`cannot index slice/array with type ${typeOf(index)}`);
  if (index < 0n || index >= BigInt(length)) throw new CallError(`index out of range: ${index}`);
  return Number(index);
}

function index(item: TemplateValue, keys: readonly TemplateValue[]): TemplateValue {
  if (item === null) throw new CallError("index of untyped nil");
  let at: TemplateValue = item;
  for (const key of keys) {
    if (at instanceof GoMap) {
      if (key === null) throw new CallError("value is nil; should be of type string");
      if (typeof key !== "string") throw new CallError(`value has type ${typeOf(key)}; should be string`);
      at = at.entries.get(key) ?? "";
    } else if (typeof at === "string") {
      const data = bytes(at);
      at = BigInt(data[indexOf(key, data.length)] ?? 0);
    } else throw new CallError(`can't index item of type ${typeOf(at)}`);
  }
  return at;
}

function slice(item: TemplateValue, bounds: readonly TemplateValue[]): TemplateValue {
  if (item === null) throw new CallError("slice of untyped nil");
  if (bounds.length > 3) throw new CallError(`too many slice indexes: ${bounds.length}`);
  if (typeof item !== "string") throw new CallError(`can't slice item of type ${typeOf(item)}`);
  if (bounds.length === 3) throw new CallError("cannot 3-index slice a string");
  const data = bytes(item);
  const [from = 0, to = data.length] = bounds.map((bound) => indexOf(bound, data.length + 1));
  if (from > to) throw new CallError(`invalid slice index: ${from} > ${to}`);
  return data.subarray(from, to).toString("utf8");
}

function length(item: TemplateValue): TemplateValue {
  if (item === null) throw new CallError("reflect: call of reflect.Value.Type on zero Value");
  if (typeof item === "string") return BigInt(bytes(item).length);
  if (item instanceof GoMap) return BigInt(item.entries.size);
  throw new CallError(`len of type ${typeOf(item)}`);
}

const isBasic = (value: TemplateValue) => value === null || typeof value !== "object";

function uncomparable(value: TemplateValue): string | undefined {
  if (value instanceof GoMap) return typeOf(value);
  if (!(value instanceof GoStruct) || value.type.startsWith("*")) return undefined;
  return Object.values(value.fields).some((field) => uncomparable(field)) ? typeOf(value) : undefined;
}

function same(a: TemplateValue, b: TemplateValue): boolean {
  if (!(a instanceof GoStruct && b instanceof GoStruct)) return a === b;
  if (a.type !== b.type) return false;
  return a === b || Object.entries(a.fields).every(([name, value]) => same(value, b.fields[name] ?? null));
}

const isNil = (value: TemplateValue) => value === null || (value instanceof GoMap && value.entries.size === 0);

function equal(first: TemplateValue, others: readonly TemplateValue[]): boolean {
  if (others.length === 0) throw new CallError("missing argument for comparison");
  return others.some((other) => {
    if (first === null || other === null) return isNil(first) && isNil(other);
    if (isBasic(first) || isBasic(other)) {
      if (typeof first !== typeof other) throw new CallError("incompatible types for comparison");
      return first === other;
    }
    if (first instanceof GoMap !== other instanceof GoMap) {
      const [a, b] = [`${sprint([first])}: ${typeOf(first)}`, `${typeOf(other)}: ${sprint([other])}`];
      throw new CallError(`non-comparable types ${a}, ${b}`);
    }
    if (isNil(first) || isNil(other)) return isNil(first) && isNil(other);
    if (uncomparable(other)) throw new CallError(`non-comparable type ${sprint([other])}: ${typeOf(other)}`);
    return same(first, other);
  });
}

function less(a: TemplateValue, b: TemplateValue): boolean {
  for (const value of [a, b]) {
    if (value === null || typeof value === "object") throw new CallError("invalid type for comparison");
  }
  if (typeof a !== typeof b) throw new CallError("incompatible types for comparison");
  if (typeof a === "boolean") throw new CallError("invalid type for comparison");
  // Strings by their bytes.
  if (typeof a === "string" && typeof b === "string") return Buffer.compare(bytes(a), bytes(b)) < 0;
  return (a as bigint) < (b as bigint);
}

const compare = (judge: (a: TemplateValue, b: TemplateValue) => boolean) =>
  any(2, 2, ([a = null, b = null]) => judge(a, b));

const HTML = new Map([
  ['"', "&#34;"],
  ["'", "&#39;"],
  ["&", "&amp;"],
  ["<", "&lt;"],
  [">", "&gt;"],
  ["\0", "\uFFFD"],
]);
const JS = new Map([
  ["\\", "\\\\"],
  ["'", "\\'"],
  ['"', '\\"'],
  ["<", "\\u003C"],
  [">", "\\u003E"],
  ["&", "\\u0026"],
  ["=", "\\u003D"],
]);
const inJs = (char: string) => {
  const code = char.codePointAt(0) ?? 0;
  return (
    JS.get(char) ??
    (code < 0x20 || quote(char) !== `"${char}"` ? `\\u${code.toString(16).toUpperCase().padStart(4, "0")}` : char)
  );
};
/** As a part of an address: blanks are plus signs. */
const inQuery = (text: string) =>
  encodeURIComponent(text.toWellFormed())
    .replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll("%20", "+");

export const builtins: Readonly<Record<string, TemplateFunction>> = {
  index: any(1, MANY, ([item = null, ...keys]) => index(item, keys)),
  slice: any(1, MANY, ([item = null, ...bounds]) => slice(item, bounds)),
  len: any(1, 1, ([item = null]) => length(item)),
  not: any(1, 1, ([value = null]) => !isTrue(value)),
  // The evaluator stops at the first that decides.
  and: any(1, MANY, (args) => args.find((value) => !isTrue(value)) ?? args.at(-1) ?? null),
  or: any(1, MANY, (args) => args.find(isTrue) ?? args.at(-1) ?? null),
  call: any(1, MANY, ([fn = null]) => {
    throw new CallError(fn === null ? "call of nil" : `non-function of type ${typeOf(fn)}`);
  }),
  print: any(0, MANY, sprint),
  println: any(0, MANY, (args) => `${args.map((value) => sprint([value])).join(" ")}\n`),
  printf: any(1, MANY, ([format = "", ...args]) => sprintf(String(format), args), 1),
  html: any(0, MANY, (args) => sprint(args).replace(/["'&<>\0]/g, (char) => HTML.get(char) ?? char)),
  js: any(0, MANY, (args) => [...sprint(args)].map(inJs).join("")),
  urlquery: any(0, MANY, (args) => inQuery(sprint(args))),
  eq: any(1, MANY, ([first = null, ...others]) => equal(first, others)),
  ne: compare((a, b) => !equal(a, [b])),
  lt: compare(less),
  le: compare((a, b) => less(a, b) || equal(a, [b])),
  gt: compare((a, b) => !less(a, b) && !equal(a, [b])),
  ge: compare((a, b) => !less(a, b)),
  join: { takes: "string", least: 0, most: MANY, call: ([separator = "", ...parts]) => parts.join(String(separator)) },
};
