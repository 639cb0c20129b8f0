/** Go's values, as far as templates see them, and what `fmt` makes of them. */

/** `map[string]string`. */
export class GoMap {
  readonly entries: ReadonlyMap<string, string>;

  constructor(entries: Readonly<Record<string, string>>) {
    this.entries = new Map(Object.entries(entries).sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
  }
}

export class GoStruct {
  /** As Go's errors call it. A pointer to a struct begins with "*". */
  readonly type: string;
  readonly fields: Readonly<Record<string, TemplateValue>>;

  constructor(type: string, fields: Readonly<Record<string, TemplateValue>>) {
    this.type = type;
    this.fields = fields;
  }
}

/** bigint is Go's int, number its float64, null its nil. */
export type TemplateValue = string | boolean | bigint | number | null | GoMap | GoStruct;

export function typeOf(value: TemplateValue): string {
  if (value === null) return "<nil>";
  if (value instanceof GoMap) return "map[string]string";
  if (value instanceof GoStruct) return value.type;
  switch (typeof value) {
    case "string":
      return "string";
    case "boolean":
      return "bool";
    case "bigint":
      return "int";
    default:
      return "float64";
  }
}

/** What `if`, `and`, `or` and `not` take for true: what is not its type's zero value; a struct is. */
export function isTrue(value: TemplateValue): boolean {
  if (value === null) return false;
  if (value instanceof GoMap) return value.entries.size > 0;
  if (value instanceof GoStruct) return true;
  return Boolean(value);
}

/** `%v`. */
export function show(value: TemplateValue): string {
  if (value === null) return "<nil>";
  if (value instanceof GoMap) return `map[${[...value.entries].map(([key, one]) => `${key}:${one}`).join(" ")}]`;
  if (value instanceof GoStruct) {
    const text = `{${Object.values(value.fields).map(show).join(" ")}}`;
    return value.type.startsWith("*") ? `&${text}` : text;
  }
  return typeof value === "number" ? showFloat(value) : String(value);
}

/** The shortest digits that say this number; with an exponent below 1e-4 and from 1e6 on. */
export function showFloat(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return exponent(value.toExponential());
  return Object.is(value, -0) ? "-0" : String(value);
}

/** Two digits of an exponent at least, as Go writes it. */
export const exponent = (text: string): string => text.replace(/e([+-])(\d)$/, "e$10$2");

/** `%q`: a string as Go's source has it; `plain`: in ASCII. */
export function quote(text: string, plain = false): string {
  let out = '"';
  for (const char of text) {
    const code = char.codePointAt(0) ?? 0;
    const named = NAMED.get(char);
    if (named) out += named;
    else if (code < 0x20 || code === 0x7f) out += `\\x${code.toString(16).padStart(2, "0")}`;
    else if ((plain && code > 0x7e) || /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u.test(char)) {
      out += code > 0xffff ? `\\U${code.toString(16).padStart(8, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
    } else out += char;
  }
  return `${out}"`;
}

const NAMED = new Map([
  ['"', '\\"'],
  ["\\", "\\\\"],
  ["\x07", "\\a"],
  ["\b", "\\b"],
  ["\f", "\\f"],
  ["\n", "\\n"],
  ["\r", "\\r"],
  ["\t", "\\t"],
  ["\v", "\\v"],
]);

/** `%#U` of a character: U+0040 '@'. */
export function unicodeOf(char: string): string {
  const code = (char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
  return /[\p{L}\p{M}\p{N}\p{P}\p{S} ]/u.test(char) ? `U+${code} '${char}'` : `U+${code}`;
}

/** `fmt.Sprint`: a space between two that are both no strings. */
export function sprint(values: readonly TemplateValue[]): string {
  let out = "";
  for (const [at, value] of values.entries()) {
    if (at > 0 && typeof value !== "string" && typeof values[at - 1] !== "string") out += " ";
    out += show(value);
  }
  return out;
}
