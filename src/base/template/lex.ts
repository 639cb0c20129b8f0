/** The tokens of a template, as Go's text/template cuts them. */
import { quote, unicodeOf } from "./values.ts";

export type Kind =
  | "text"
  | "open"
  | "close"
  | "space"
  | "assign"
  | "declare"
  | "pipe"
  | "("
  | ")"
  | "char"
  | "string"
  | "number"
  | "bool"
  | "dot"
  | "nil"
  | "field"
  | "variable"
  | "identifier"
  | "keyword"
  | "error"
  | "eof";

export interface Token {
  readonly kind: Kind;
  readonly text: string;
  /** Where it begins, in UTF-16 units. */
  readonly at: number;
  /** From 1. */
  readonly line: number;
}

/** As errors name it. */
export function describe({ kind, text }: Token): string {
  if (kind === "eof") return "EOF";
  if (kind === "error") return text;
  if (kind === "keyword" || kind === "dot" || kind === "nil") return `<${text}>`;
  return [...text].length > 10 ? `${quote([...text].slice(0, 10).join(""))}...` : quote(text);
}

const KEYWORDS = new Set(["if", "else", "end", "range", "with", "template", "define", "block", "break", "continue"]);
const SPACE = " \t\r\n";
const WORD = /[\p{L}\p{Nd}_]/u;
const NUMBER =
  /[+-]?(?:0[xX][\da-fA-F_]*(?:\.[\da-fA-F_]*)?(?:[pP][+-]?[\d_]*)?|0[oO][0-7_]*|0[bB][01_]*|[\d_]*(?:\.[\d_]*)?(?:[eE][+-]?[\d_]*)?)/y;

/** Ends with a token of kind "eof" or "error". */
export function tokensOf(source: string): Token[] {
  return new Lexer(source).run();
}

class Lexer {
  readonly #source: string;
  readonly #out: Token[] = [];
  #at = 0;
  #line = 1;
  /** Where a line was last counted. */
  #counted = 0;
  #depth = 0;

  constructor(source: string) {
    this.#source = source;
  }

  run(): Token[] {
    while (this.#text() && this.#action());
    return this.#out;
  }

  #lineAt(at: number): number {
    for (; this.#counted < at; this.#counted++) if (this.#source[this.#counted] === "\n") this.#line++;
    return this.#line;
  }

  #emit(kind: Kind, from: number, text = this.#source.slice(from, this.#at)): true {
    this.#out.push({ kind, text, at: from, line: this.#lineAt(from) });
    return true;
  }

  #fail(text: string, at = this.#at): false {
    this.#out.push({ kind: "error", text, at, line: this.#lineAt(at) });
    return false;
  }

  /** Text up to the next action; false at the end. */
  #text(): boolean {
    const from = this.#at;
    const open = this.#source.indexOf("{{", from);
    this.#at = open < 0 ? this.#source.length : open;
    let end = this.#at;
    if (open >= 0 && this.#trims(open + 2)) while (end > from && SPACE.includes(this.#source[end - 1] ?? "x")) end--;
    if (end > from) this.#emit("text", from, this.#source.slice(from, end));
    if (open >= 0) return true;
    this.#emit("eof", this.#at, "");
    return false;
  }

  /** A "-" that eats the space before an action, which must have a space behind it. */
  #trims(at: number): boolean {
    return this.#source[at] === "-" && SPACE.includes(this.#source[at + 1] ?? "x");
  }

  /** Whether the action ends here: 2 characters, 4 with a " -" before them that eats the space behind. */
  #closes(at = this.#at): number {
    if (this.#source.startsWith("}}", at)) return 2;
    return SPACE.includes(this.#source[at] ?? "x") && this.#source.startsWith("-}}", at + 1) ? 4 : 0;
  }

  #close(length: number): void {
    this.#at += length;
    if (length === 4) while (SPACE.includes(this.#source[this.#at] ?? "x")) this.#at++;
  }

  #action(): boolean {
    const from = this.#at;
    this.#at += 2;
    const marker = this.#trims(this.#at) ? 2 : 0;
    if (this.#source.startsWith("/*", this.#at + marker)) {
      const end = this.#source.indexOf("*/", this.#at + marker);
      if (end < 0) return this.#fail("unclosed comment");
      this.#at = end + 2;
      const closes = this.#closes();
      if (closes === 0) return this.#fail("comment ends before closing delimiter");
      this.#close(closes);
      return true;
    }
    this.#emit("open", from, "{{");
    this.#at += marker;
    this.#depth = 0;
    for (;;) {
      const closes = this.#closes();
      if (closes > 0) {
        if (this.#depth > 0) return this.#fail("unclosed left paren");
        const at = this.#at + (closes === 4 ? 2 : 0);
        this.#close(closes);
        return this.#emit("close", at, "}}");
      }
      if (!this.#inside()) return false;
    }
  }

  #inside(): boolean {
    const from = this.#at;
    const char = String.fromCodePoint(this.#source.codePointAt(from) ?? 0);
    if (from >= this.#source.length) return this.#fail("unclosed action");
    if (SPACE.includes(char)) {
      do this.#at++;
      while (SPACE.includes(this.#source[this.#at] ?? "x") && this.#closes() === 0);
      return this.#emit("space", from);
    }
    const next = this.#source[from + 1] ?? "";
    if (char === '"' || char === "'") return this.#quoted(char);
    if (char === "`") {
      const end = this.#source.indexOf("`", from + 1);
      if (end < 0) return this.#fail("unterminated raw quoted string", from);
      this.#at = end + 1;
      return this.#emit("string", from);
    }
    if (/[+\-\d]/.test(char) || (char === "." && /\d/.test(next))) return this.#number();
    if (char === "." || char === "$") {
      this.#at++;
      const before = this.#at;
      this.#word();
      if (!this.#terminates()) return this.#fail(`bad character ${unicodeOf(this.#char())}`);
      if (char === "$") return this.#emit("variable", from);
      return this.#emit(this.#at === before ? "dot" : "field", from);
    }
    if (WORD.test(char)) {
      this.#word();
      if (!this.#terminates()) return this.#fail(`bad character ${unicodeOf(this.#char())}`);
      const word = this.#source.slice(from, this.#at);
      if (KEYWORDS.has(word)) return this.#emit("keyword", from);
      if (word === "true" || word === "false") return this.#emit("bool", from);
      return this.#emit(word === "nil" ? "nil" : "identifier", from);
    }
    this.#at += char.length;
    switch (char) {
      case "=":
        return this.#emit("assign", from);
      case ":":
        if (next !== "=") return this.#fail("expected :=");
        this.#at++;
        return this.#emit("declare", from);
      case "|":
        return this.#emit("pipe", from);
      case "(":
        this.#depth++;
        return this.#emit("(", from);
      case ")":
        this.#depth--;
        return this.#emit(")", from);
    }
    if (char > " " && char < "\x7f") return this.#emit("char", from);
    return this.#fail(`unrecognized character in action: ${unicodeOf(char)}`);
  }

  #char(): string {
    return String.fromCodePoint(this.#source.codePointAt(this.#at) ?? 0);
  }

  #word(): void {
    while (this.#at < this.#source.length && WORD.test(this.#char())) this.#at += this.#char().length;
  }

  /** What may follow a word. */
  #terminates(): boolean {
    return this.#at >= this.#source.length || " \t\r\n.,|:)(".includes(this.#char()) || this.#closes() > 0;
  }

  #quoted(mark: string): boolean {
    const from = this.#at;
    for (this.#at++; ; this.#at++) {
      const char = this.#source[this.#at];
      if (char === "\\" && this.#source[this.#at + 1] !== "\n") this.#at++;
      else if (char === undefined || char === "\n" || char === "\\") {
        return this.#fail(mark === '"' ? "unterminated quoted string" : "unterminated character constant", from);
      } else if (char === mark) break;
    }
    this.#at++;
    return this.#emit(mark === '"' ? "string" : "number", from);
  }

  #number(): boolean {
    const from = this.#at;
    NUMBER.lastIndex = from;
    this.#at += NUMBER.exec(this.#source)?.[0].length ?? 0;
    const more = this.#char();
    if (this.#at < this.#source.length && WORD.test(more)) {
      return this.#fail(`bad number syntax: ${quote(this.#source.slice(from, this.#at + more.length))}`, from);
    }
    return this.#emit("number", from);
  }
}
