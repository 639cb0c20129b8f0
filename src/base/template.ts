/**
 * The part of Go's text/template that service specs use: fields, `index`, string functions and pipelines inside
 * `{{ }}`. No control structures: they are refused by name.
 */
import { invalid, notImplemented, SkeinError } from "./errors.ts";

export type TemplateValue = string | number | { readonly [key: string]: TemplateValue };
export type TemplateFunctions = Readonly<Record<string, (...args: TemplateValue[]) => TemplateValue>>;
/** The name of the type that the errors tell, of the value at a path (`Node.Platform`); undefined for a map. */
export type TemplateTypes = (path: string) => string | undefined;

/** `at`: where it stands in its action. */
type Token = { kind: "field" | "word" | "string" | "number" | "punctuation"; text: string; at: number };

const CONTROL = new Set(["if", "else", "end", "range", "with", "template", "define", "block", "break", "continue"]);
const TOKEN = /\s+|"(?:[^"\\]|\\.)*"|`[^`]*`|-?\d+|\.(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)?|[A-Za-z_]\w*|[()|]/y;

function tokens(source: string): Token[] {
  const out: Token[] = [];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < source.length) {
    const at = TOKEN.lastIndex;
    const text = TOKEN.exec(source)?.[0];
    if (text === undefined) throw invalid(`unexpected ${JSON.stringify(source.slice(at, at + 10))} in operand`);
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
    out.push({ kind, text, at });
  }
  return out;
}

const child = (value: TemplateValue, key: string): TemplateValue | undefined =>
  typeof value === "object" && Object.hasOwn(value, key) ? value[key] : undefined;

function show(value: TemplateValue): string {
  return typeof value === "object"
    ? `map[${Object.keys(value)
        .sort()
        .map((key) => `${key}:${show(value[key] ?? "")}`)
        .join(" ")}]`
    : String(value);
}

const builtins: TemplateFunctions = {
  index: (value, ...keys) => keys.reduce<TemplateValue>((at, key) => child(at, String(key)) ?? "", value ?? ""),
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
  #types: TemplateTypes;

  constructor(source: string, data: TemplateValue, functions: TemplateFunctions, types: TemplateTypes) {
    this.#tokens = tokens(source);
    this.#data = data;
    this.#functions = functions;
    this.#types = types;
  }

  run(): TemplateValue {
    const value = this.#pipeline();
    if (this.#at < this.#tokens.length) throw invalid(`unexpected ${this.#tokens[this.#at]?.text} in command`);
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
    if (!token) throw invalid("missing value for command");
    if (token.kind !== "word") {
      if (piped !== undefined) throw invalid(`can't give argument to non-function ${token.text}`);
      return this.#operand();
    }
    this.#at++;
    if (CONTROL.has(token.text)) throw notImplemented(`{{${token.text}}} in service templates`);
    const fn = this.#functions[token.text] ?? builtins[token.text];
    if (!fn) throw invalid(`function ${JSON.stringify(token.text)} not defined`);
    const args: TemplateValue[] = [];
    while (this.#at < this.#tokens.length && !this.#peek("|") && !this.#peek(")")) args.push(this.#operand());
    return fn(...args, ...(piped === undefined ? [] : [piped]));
  }

  #field({ at, text }: Token): TemplateValue {
    const parts = text.split(".").filter((part) => part !== "");
    let value = this.#data;
    for (const [depth, part] of parts.entries()) {
      const next = child(value, part);
      if (next === undefined) {
        const type = this.#types(parts.slice(0, depth).join("."));
        // Go tells where the second part of a chain stands.
        const where = at + (parts.length > 1 ? (parts[0]?.length ?? 0) + 1 : 0);
        const field = `.${parts.slice(0, type === undefined ? parts.length : depth + 1).join(".")}`;
        throw new FieldError(
          where,
          field,
          type === undefined
            ? `map has no entry for key ${JSON.stringify(part)}`
            : `can't evaluate field ${part} in type ${type}`,
        );
      }
      value = next;
    }
    return value;
  }

  #operand(): TemplateValue {
    const token = this.#tokens[this.#at++];
    if (!token) throw invalid("missing value for command");
    switch (token.kind) {
      case "field":
        return this.#field(token);
      case "string":
        return token.text.startsWith("`") ? token.text.slice(1, -1) : String(JSON.parse(token.text));
      case "number":
        return Number(token.text);
      case "word":
        this.#at--;
        return this.#command();
      case "punctuation": {
        if (token.text !== "(") throw invalid(`unexpected ${token.text} in operand`);
        const value = this.#pipeline();
        if (!this.#peek(")")) throw invalid("unclosed left paren");
        this.#at++;
        return value;
      }
    }
  }
}

/** What went wrong while a field was looked up: Go tells where, and calls it execution. */
class FieldError extends Error {
  readonly at: number;
  readonly field: string;

  constructor(at: number, field: string, message: string) {
    super(message);
    this.at = at;
    this.field = field;
  }
}

/** An error as Go's text/template tells it of a template called "expansion". `from`: where the action begins. */
function located(error: unknown, template: string, from: number): unknown {
  const at = error instanceof FieldError ? from + error.at : from;
  const before = template.slice(0, at).split("\n");
  const line = `template: expansion:${before.length}`;
  if (error instanceof FieldError) {
    const column = before.at(-1)?.length ?? 0;
    return invalid(`${line}:${column}: executing "expansion" at <${error.field}>: ${error.message}`);
  }
  return error instanceof SkeinError && error.code === "invalid" ? invalid(`${line}: ${error.message}`) : error;
}

const noTypes: TemplateTypes = () => undefined;

/** Expands all actions of a template. Text without any comes back as it is. */
export function expand(
  template: string,
  data: TemplateValue,
  functions: TemplateFunctions = {},
  types: TemplateTypes = noTypes,
): string {
  let out = "";
  let rest = template;
  let trimNext = false;
  for (;;) {
    const open = rest.indexOf("{{");
    let text = open < 0 ? rest : rest.slice(0, open);
    if (trimNext) text = text.trimStart();
    if (open < 0) return out + text;
    const close = actionEnd(rest, open + 2);
    const from = template.length - rest.length + open;
    if (close < 0) throw located(invalid("unclosed action"), template, from);
    let action = rest.slice(open + 2, close);
    if (/^-\s/.test(action)) {
      text = text.trimEnd();
      action = action.slice(1);
    }
    trimNext = /\s-$/.test(action);
    if (trimNext) action = action.slice(0, -1);
    out += text;
    if (!/^\s*\/\*[\s\S]*\*\/\s*$/.test(action)) {
      try {
        out += show(new Pipeline(action, data, functions, types).run());
      } catch (error) {
        throw located(error, template, from + 2);
      }
    }
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
