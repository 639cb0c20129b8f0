/** Go's `fmt.Sprintf` for the values of templates. */
import { exponent, GoMap, GoStruct, quote, show, showFloat, type TemplateValue, typeOf, unicodeOf } from "./values.ts";

const DIRECTIVE = /%([-+# 0]*)(\d+|\*)?(?:\.(\d+|\*)?)?(?:\[(\d+)\])?([\s\S]|$)/gu;
/** As Go: wider is refused. */
const MAX_WIDTH = 1_000_000;

interface Flags {
  readonly flags: string;
  readonly width: number;
  /** -1: not said. */
  readonly precision: number;
}

export function sprintf(format: string, args: readonly TemplateValue[]): string {
  let next = 0;
  let reordered = false;
  const out = format.replace(
    DIRECTIVE,
    (all, said: string, width: string, precision: string, index: string | undefined, verb: string) => {
      let flags = said;
      let trouble = "";
      const number = (given: string | undefined, bad: string): number => {
        if (given !== "*") return given === undefined ? -1 : Number(given);
        const value = args[next++];
        if (typeof value === "bigint" && value >= -BigInt(MAX_WIDTH) && value <= BigInt(MAX_WIDTH))
          return Number(value);
        trouble += bad;
        return -1;
      };
      let wide = number(width, "%!(BADWIDTH)");
      if (width === "*" && wide < -1) {
        flags += "-";
        wide = -wide;
      }
      const digits = all.slice(0, -1).includes(".") && precision === undefined ? 0 : number(precision, "%!(BADPREC)");
      if (wide > MAX_WIDTH || digits > MAX_WIDTH) return `${trouble}%!(BADWIDTH)`;
      if (index !== undefined) {
        reordered = true;
        next = Number(index) - 1;
        if (next < 0 || next >= args.length) return `${trouble}%!${verb}(BADINDEX)`;
      }
      if (verb === "") return `${trouble}%!(NOVERB)`;
      if (verb === "%") return `${trouble}%`;
      if (next >= args.length) return `${trouble}%!${verb}(MISSING)`;
      const value = args[next++] ?? null;
      return trouble + one(verb, value, { flags, width: Math.max(wide, 0), precision: digits });
    },
  );
  const rest = args.slice(next);
  if (rest.length === 0 || reordered) return out;
  const extra = rest.map((value) => (value === null ? "<nil>" : `${typeOf(value)}=${show(value)}`));
  return `${out}%!(EXTRA ${extra.join(", ")})`;
}

function one(verb: string, value: TemplateValue, how: Flags): string {
  if (verb === "T") return pad(typeOf(value), how);
  if (verb === "v" && how.flags.includes("#")) return pad(source(value), how);
  const bad = () => (value === null ? `%!${verb}(<nil>)` : `%!${verb}(${typeOf(value)}=${show(value)})`);
  if (value === null) return verb === "v" ? pad("<nil>", how) : bad();
  if (typeof value === "string") return ofString(verb, value, how) ?? bad();
  if (typeof value === "boolean") return verb === "t" || verb === "v" ? pad(String(value), how) : bad();
  if (typeof value === "bigint") return ofInt(verb, value, how) ?? bad();
  if (typeof value === "number") return ofFloat(verb, value, how) ?? bad();
  if (verb === "v") return pad(how.flags.includes("+") ? named(value) : show(value), how);
  if (value instanceof GoMap && (verb === "s" || verb === "q")) {
    const entries = [...value.entries].map(([key, each]) =>
      verb === "q" ? `${quote(key)}:${quote(each)}` : `${key}:${each}`,
    );
    return `map[${entries.join(" ")}]`;
  }
  return verb === "s" ? pad(show(value), how) : bad();
}

function pad(text: string, { flags, width }: Flags, zeros = false): string {
  const missing = width - [...text].length;
  if (missing <= 0) return text;
  if (flags.includes("-")) return text + " ".repeat(missing);
  if (!zeros || !flags.includes("0")) return " ".repeat(missing) + text;
  const sign = /^[+\- ]/.exec(text)?.[0] ?? "";
  return sign + "0".repeat(missing) + text.slice(sign.length);
}

function ofString(verb: string, value: string, how: Flags): string | undefined {
  const cut = how.precision >= 0 ? [...value].slice(0, how.precision).join("") : value;
  switch (verb) {
    case "s":
    case "v":
      return pad(cut, how, true);
    case "q":
      return pad(
        how.flags.includes("#") && !/[`\p{Cc}]/u.test(cut) ? `\`${cut}\`` : quote(cut, how.flags.includes("+")),
        how,
        true,
      );
    case "x":
    case "X": {
      const hex = Buffer.from(how.precision >= 0 ? Buffer.from(value).subarray(0, how.precision) : value).toString(
        "hex",
      );
      const spaced = how.flags.includes(" ") ? hex.replace(/..(?=.)/g, "$& ") : hex;
      const text = how.flags.includes("#") && hex !== "" ? `0x${spaced}` : spaced;
      return pad(verb === "X" ? text.toUpperCase() : text, how, true);
    }
  }
  return undefined;
}

const BASES = new Map([
  ["d", 10],
  ["v", 10],
  ["b", 2],
  ["o", 8],
  ["O", 8],
  ["x", 16],
  ["X", 16],
]);

function ofInt(verb: string, value: bigint, how: Flags): string | undefined {
  const size = value < 0n ? -value : value;
  const sign = value < 0n ? "-" : how.flags.includes("+") ? "+" : how.flags.includes(" ") ? " " : "";
  if (verb === "c" || verb === "q" || verb === "U") {
    const code = value >= 0n && value <= 0x10ffffn ? Number(value) : 0xfffd;
    const char = String.fromCodePoint(code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
    if (verb === "c") return pad(char, how);
    if (verb === "q") return pad(`'${char === "'" ? "\\'" : char === '"' ? char : quote(char).slice(1, -1)}'`, how);
    const hex = `U+${value.toString(16).toUpperCase().padStart(4, "0")}`;
    return pad(how.flags.includes("#") ? unicodeOf(char) : hex, how);
  }
  const base = BASES.get(verb);
  if (base === undefined) return undefined;
  let digits = size.toString(base);
  if (verb === "X") digits = digits.toUpperCase();
  if (how.precision >= 0) digits = how.precision === 0 && size === 0n ? "" : digits.padStart(how.precision, "0");
  const sharp = how.flags.includes("#");
  const prefix =
    verb === "O" ? "0o" : !sharp ? "" : base === 16 ? `0${verb}` : base === 2 ? "0b" : base === 8 ? "0" : "";
  // Zeros stand between what is before the digits and them.
  if (how.precision < 0 && how.flags.includes("0") && !how.flags.includes("-")) {
    digits = digits.padStart(how.width - sign.length - (prefix === "0b" ? 0 : 0), "0");
  }
  return pad(sign + prefix + digits, how);
}

function ofFloat(verb: string, value: number, how: Flags): string | undefined {
  const { precision } = how;
  const plus = how.flags.includes("+") && value >= 0 ? "+" : how.flags.includes(" ") && value >= 0 ? " " : "";
  const numeric = Number.isFinite(value);
  const said = (text: string) => pad(plus + (numeric ? text : showFloat(value).replace("+", "")), how, numeric);
  switch (verb) {
    case "v":
      return said(precision < 0 ? showFloat(value) : general(value, precision));
    case "g":
    case "G": {
      const text = precision < 0 ? showFloat(value) : general(value, precision);
      return said(verb === "G" ? text.toUpperCase() : text);
    }
    case "f":
    case "F":
      return said(fixed(value, precision < 0 ? 6 : precision));
    case "e":
    case "E": {
      const text = exponent(value.toExponential(Math.min(precision < 0 ? 6 : precision, 100)));
      return said(verb === "E" ? text.toUpperCase() : text);
    }
  }
  return undefined;
}

function fixed(value: number, digits: number): string {
  if (Math.abs(value) < 1e21) return value.toFixed(Math.min(digits, 100)) + "0".repeat(Math.max(0, digits - 100));
  return BigInt(value).toString() + (digits > 0 ? `.${"0".repeat(digits)}` : "");
}

/** `%g` with so many significant digits; what is nothing but zeros at the end is not said. */
function general(value: number, digits: number): string {
  const precise = Math.min(Math.max(digits, 1), 100);
  const power = value === 0 ? 0 : Number(value.toExponential(precise - 1).split("e")[1]);
  if (power < -4 || power >= precise) {
    return exponent(
      value
        .toExponential(precise - 1)
        .replace(/(\.\d*?)0+e/, "$1e")
        .replace(".e", "e"),
    );
  }
  return value
    .toPrecision(precise)
    .replace(/(\.\d*?)0+$/, "$1")
    .replace(/\.$/, "");
}

/** `%+v`: with the names of fields. */
function named(value: TemplateValue): string {
  if (!(value instanceof GoStruct)) return show(value);
  const fields = Object.entries(value.fields).map(([name, each]) => `${name}:${named(each)}`);
  return `${value.type.startsWith("*") ? "&" : ""}{${fields.join(" ")}}`;
}

/** `%#v`. */
function source(value: TemplateValue): string {
  if (value === null) return "<nil>";
  if (typeof value === "string") return quote(value);
  if (value instanceof GoMap) {
    return `map[string]string{${[...value.entries].map(([key, each]) => `${quote(key)}:${quote(each)}`).join(", ")}}`;
  }
  if (typeof value === "object") {
    const fields = Object.entries(value.fields).map(([name, each]) => `${name}:${source(each)}`);
    return `${value.type.replace(/^\*/, "&")}{${fields.join(", ")}}`;
  }
  return show(value);
}
