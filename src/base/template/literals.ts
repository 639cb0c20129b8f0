/** Constants of a template: numbers, characters, quoted strings. */
import { quote } from "./values.ts";

const ESCAPES = new Map([
  ["a", "\x07"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
  ["v", "\v"],
  ["\\", "\\"],
]);
const ESCAPE = /\\(?:([abfnrtv\\"'])|x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{3})|([\s\S]?))/g;

/** What a quoted string says; undefined where Go cannot read it. */
export function unquote(text: string): string | undefined {
  const inner = text.slice(1, -1);
  if (text.startsWith("`")) return inner.replaceAll("\r", "");
  const mark = text[0];
  let bad = false;
  let bytes = false;
  const out = inner.replace(ESCAPE, (_, named?: string, x?: string, u?: string, U?: string, octal?: string) => {
    if (named !== undefined) {
      if ((named === '"' || named === "'") && named !== mark) bad = true;
      return ESCAPES.get(named) ?? named;
    }
    const code = Number.parseInt(x ?? u ?? U ?? octal ?? "x", octal ? 8 : 16);
    if (Number.isNaN(code) || code > 0x10ffff || (octal && code > 255) || (code >= 0xd800 && code < 0xe000)) {
      bad = true;
      return "";
    }
    if ((x ?? octal) && code > 127) bytes = true;
    return String.fromCodePoint(code);
  });
  if (bad) return undefined;
  // \x and octal escapes are bytes, which together may be one character.
  return bytes && /^[\0-\xff]*$/.test(out) ? Buffer.from(out, "latin1").toString("utf8") : out;
}

const INT =
  /^([+-]?)(?:0[xX](?<hex>[\da-fA-F]+)|0[oO](?<octal>[0-7]+)|0[bB](?<bits>[01]+)|(?<old>0[0-7]+)|(?<plain>0|[1-9]\d*))$/;
const FLOAT = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;

/** The value of a number or a character constant, or why it is none. */
export function numberOf(text: string): { value: bigint | number } | { error: string } {
  if (text.startsWith("'")) {
    const char = unquote(text);
    if (char === undefined || [...char].length !== 1) return { error: `malformed character constant: ${text}` };
    return { value: BigInt(char.codePointAt(0) ?? 0) };
  }
  const plain = /\d_\d/.test(text) ? text.replace(/(?<=[\da-fA-FxXoObB])_(?=[\da-fA-F])/g, "") : text;
  const match = INT.exec(plain);
  if (match?.groups) {
    const { hex, octal, bits, old, plain: decimal } = match.groups;
    const size = BigInt(
      hex ? `0x${hex}` : octal ? `0o${octal}` : bits ? `0b${bits}` : old ? `0o${old.slice(1)}` : (decimal ?? "0"),
    );
    const value = match[1] === "-" ? -size : size;
    // What an int cannot hold, but an unsigned one could, fails where it is used.
    if (value >= -(1n << 63n) && value < 1n << 64n) return { value };
    return { error: `integer overflow: ${quote(text)}` };
  }
  const float = FLOAT.test(plain) ? Number(plain) : Number.NaN;
  if (!Number.isFinite(float)) return { error: `illegal number syntax: ${quote(text)}` };
  // What is whole without a fraction said is an int to Go's functions: 1e3 stays a float.
  return { value: float };
}
