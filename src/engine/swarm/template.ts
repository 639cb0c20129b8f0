/**
 * The part of Go's text/template that service specs use: fields, `index`, string functions and pipelines inside
 * `{{ }}`. No control structures: they are refused by name.
 */
import { invalid, notImplemented } from "../../base/errors.ts";

export type TemplateValue = string | number | { readonly [key: string]: TemplateValue };
export type TemplateFunctions = Readonly<Record<string, (...args: TemplateValue[]) => TemplateValue>>;

type Token = { kind: "field" | "word" | "string" | "number" | "punctuation"; text: string };

const CONTROL = new Set(["if", "else", "end", "range", "with", "template", "define", "block", "break", "continue"]);
const TOKEN = /\s+|"(?:[^"\\]|\\.)*"|`[^`]*`|-?\d+|\.(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)?|[A-Za-z_]\w*|[()|]/y;

function tokens(source: string): Token[] {
  const out: Token[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < source.length) {
    const at = TOKEN.lastIndex;
    const text = TOKEN.exec(source)?.[0];
    if (text === undefined)
      throw invalid(`template: unexpected ${JSON.stringify(source.slice(at, at + 10))} in operand`);
    if (/^\s/.test(text)) continue;
    const kind = text.startsWith(".")
      ? "field"
      : /^["`]/.test(text)
        ? "string"
        : /^-?\d/.test(text)
          ? "number"
          : /^[A-Za-z_]/.test(text)
            ? "word"
            : "punctuation";
    out.push({ kind, text });
  }
  return out;
}

function child(value: TemplateValue | undefined, key: string): TemplateValue {
  if (typeof value !== "object" || !Object.hasOwn(value, key)) {
    throw invalid(`template: map has no entry for key ${JSON.stringify(key)}`);
  }
  return value[key] ?? "";
}

function show(value: TemplateValue): string {
  return typeof value === "object"
    ? `map[${Object.keys(value)
        .sort()
        .map((key) => `${key}:${show(value[key] ?? "")}`)
        .join(" ")}]`
    : String(value);
}

const builtins: TemplateFunctions = {
  index: (value, ...keys) => keys.reduce<TemplateValue>((at, key) => child(at, String(key)), value ?? ""),
  join: (separator, ...parts) => parts.map(show).join(show(separator ?? "")),
  print: (...parts) => parts.map(show).join(""),
  printf: (format, ...args) => {
    const rest = [...args];
    return show(format ?? "").replace(/%(%|[svdq])/g, (_, verb: string) => {
      if (verb === "%") return "%";
      const value = show(rest.shift() ?? "%!s(MISSING)");
      return verb === "q" ? JSON.stringify(value) : value;
    });
  },
  len: (value) => (typeof value === "object" ? Object.keys(value).length : show(value ?? "").length),
};

/** Evaluates one pipeline: `field | fn args | fn`. */
class Pipeline {
  #tokens: Token[];
  #at = 0;
  #data: TemplateValue;
  #functions: TemplateFunctions;

  constructor(source: string, data: TemplateValue, functions: TemplateFunctions) {
    this.#tokens = tokens(source);
    this.#data = data;
    this.#functions = functions;
  }

  run(): TemplateValue {
    const value = this.#pipeline();
    if (this.#at < this.#tokens.length)
      throw invalid(`template: unexpected ${this.#tokens[this.#at]?.text} in command`);
    return value;
  }

  #pipeline(): TemplateValue {
    let value = this.#command();
    while (this.#peek("|")) {
      this.#at++;
      value = this.#command(value);
    }
    return value;
  }

  #peek(text: string): boolean {
    const token = this.#tokens[this.#at];
    return token?.kind === "punctuation" && token.text === text;
  }

  #command(piped?: TemplateValue): TemplateValue {
    const token = this.#tokens[this.#at];
    if (!token) throw invalid("template: missing value for command");
    if (token.kind !== "word") {
      if (piped !== undefined) throw invalid(`template: can't give argument to non-function ${token.text}`);
      return this.#operand();
    }
    this.#at++;
    if (CONTROL.has(token.text)) throw notImplemented(`{{${token.text}}} in service templates`);
    const fn = this.#functions[token.text] ?? builtins[token.text];
    if (!fn) throw invalid(`template: function ${JSON.stringify(token.text)} not defined`);
    const args: TemplateValue[] = [];
    while (this.#at < this.#tokens.length && !this.#peek("|") && !this.#peek(")")) args.push(this.#operand());
    return fn(...args, ...(piped === undefined ? [] : [piped]));
  }

  #operand(): TemplateValue {
    const token = this.#tokens[this.#at++];
    if (!token) throw invalid("template: missing value for command");
    switch (token.kind) {
      case "field":
        return token.text
          .slice(1)
          .split(".")
          .filter((part) => part !== "")
          .reduce<TemplateValue>(child, this.#data);
      case "string":
        return token.text.startsWith("`") ? token.text.slice(1, -1) : String(JSON.parse(token.text));
      case "number":
        return Number(token.text);
      case "word":
        this.#at--;
        return this.#command();
      case "punctuation": {
        if (token.text !== "(") throw invalid(`template: unexpected ${token.text} in operand`);
        const value = this.#pipeline();
        if (!this.#peek(")")) throw invalid("template: unclosed left paren");
        this.#at++;
        return value;
      }
    }
  }
}

/** Expands all actions of a template. Text without any comes back as it is. */
export function expand(template: string, data: TemplateValue, functions: TemplateFunctions = {}): string {
  let out = "";
  let rest = template;
  let trimNext = false;
  for (;;) {
    const open = rest.indexOf("{{");
    let text = open < 0 ? rest : rest.slice(0, open);
    if (trimNext) text = text.trimStart();
    if (open < 0) return out + text;
    const close = actionEnd(rest, open + 2);
    if (close < 0) throw invalid("template: unclosed action");
    let action = rest.slice(open + 2, close);
    if (/^-\s/.test(action)) {
      text = text.trimEnd();
      action = action.slice(1);
    }
    trimNext = /\s-$/.test(action);
    if (trimNext) action = action.slice(0, -1);
    out += text;
    if (!/^\s*\/\*[\s\S]*\*\/\s*$/.test(action)) out += show(new Pipeline(action, data, functions).run());
    rest = rest.slice(close + 2);
  }
}

/** Where the action that starts here ends; braces inside strings do not count. */
function actionEnd(source: string, from: number): number {
  let quote = "";
  for (let at = from; at < source.length; at++) {
    const char = source[at] ?? "";
    if (quote) {
      if (char === "\\" && quote === '"') at++;
      else if (char === quote) quote = "";
    } else if (char === '"' || char === "`") {
      quote = char;
    } else if (char === "}" && source[at + 1] === "}") {
      return at;
    }
  }
  return -1;
}
