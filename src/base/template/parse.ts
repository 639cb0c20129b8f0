/** From tokens to a tree, with the rules and words of Go's text/template/parse. */
import { invalid } from "../errors.ts";
import { describe, type Kind, type Token, tokensOf } from "./lex.ts";
import { numberOf, unquote } from "./literals.ts";
import { type Command, type Operand, type Parsed, type Pipeline, type Statement, text } from "./tree.ts";
import { quote } from "./values.ts";

/** Deeper than this nobody nests. */
const MAX_DEPTH = 200;

/** @throws invalid with Go's words for what is wrong, and the line. `known`: whether there is a function of that name. */
export function parse(source: string, known: (name: string) => boolean): Parsed {
  return new Parser(source, known).run();
}

type End = { readonly kind: "end" } | { readonly kind: "else"; readonly elseIf?: boolean };

class Parser {
  readonly #tokens: readonly Token[];
  readonly #known: (name: string) => boolean;
  readonly #defined = new Map<string, readonly Statement[]>();
  #next = 0;
  #variables = ["$"];
  #ranges = 0;
  #depth = 0;
  #actionLine = 0;

  constructor(source: string, known: (name: string) => boolean) {
    this.#tokens = tokensOf(source);
    this.#known = known;
  }

  run(): Parsed {
    const list: Statement[] = [];
    while (this.#peek().kind !== "eof") {
      const statement = this.#statement(true);
      if (!statement) continue;
      if (statement.kind === "end" || statement.kind === "else") this.#fail(`unexpected {{${statement.kind}}}`);
      else list.push(statement);
    }
    return { list, defined: this.#defined };
  }

  #peek(): Token {
    return this.#tokens[Math.min(this.#next, this.#tokens.length - 1)] as Token;
  }

  #take(): Token {
    const token = this.#peek();
    this.#next++;
    return token;
  }

  #skipSpace(): Token {
    while (this.#peek().kind === "space") this.#next++;
    return this.#peek();
  }

  #takeWord(): Token {
    this.#skipSpace();
    return this.#take();
  }

  #fail(message: string): never {
    const { line } = this.#tokens[Math.min(Math.max(this.#next - 1, 0), this.#tokens.length - 1)] as Token;
    throw invalid(`template: expansion:${line}: ${message}`);
  }

  #unexpected(token: Token, context: string): never {
    if (token.kind === "error") {
      const started = this.#actionLine !== 0 && this.#actionLine !== token.line;
      const where = started ? ` in action started at expansion:${this.#actionLine}` : "";
      return this.#fail(token.text + (token.text.endsWith(" action") ? where.replace(" in action", "") : where));
    }
    return this.#fail(`unexpected ${describe(token)} in ${context}`);
  }

  #expect(kind: Kind, context: string): Token {
    const token = this.#takeWord();
    if (token.kind !== kind) this.#unexpected(token, context);
    return token;
  }

  #nested<T>(work: () => T): T {
    if (++this.#depth > MAX_DEPTH) this.#fail("too deeply nested");
    const result = work();
    this.#depth--;
    return result;
  }

  #statement(top = false): Statement | End | undefined {
    const token = this.#takeWord();
    if (token.kind === "text") return { kind: "text", at: token.at, text: token.text };
    if (token.kind !== "open") return this.#unexpected(token, "input");
    this.#actionLine = token.line;
    const word = this.#skipSpace();
    if (word.kind === "keyword") {
      this.#take();
      if (word.text === "define") return top ? this.#define() : this.#unexpected(word, "command");
      const statement = this.#keyword(word);
      this.#actionLine = 0;
      return statement;
    }
    const pipeline = this.#pipeline("command", "close");
    this.#actionLine = 0;
    return { kind: "action", at: word.at, pipeline };
  }

  #keyword(word: Token): Statement | End {
    switch (word.text) {
      case "if":
      case "with":
      case "range":
        return this.#nested(() => this.#branches(word.text as "if" | "with" | "range"));
      case "else": {
        const next = this.#skipSpace();
        if (next.kind === "keyword" && next.text === "if") return { kind: "else", elseIf: true };
        this.#expect("close", "else");
        return { kind: "else" };
      }
      case "end":
        this.#expect("close", "end");
        return { kind: "end" };
      case "break":
      case "continue": {
        const close = this.#takeWord();
        if (close.kind !== "close") this.#unexpected(close, `{{${word.text}}}`);
        if (this.#ranges === 0) this.#fail(`{{${word.text}}} outside {{range}}`);
        return { kind: word.text, at: word.at };
      }
      case "template":
        return this.#template();
      default:
        return this.#block();
    }
  }

  /** What is between here and the branch's end. */
  #list(): { list: Statement[]; end: End } {
    const list: Statement[] = [];
    while (this.#skipSpace().kind !== "eof") {
      const statement = this.#statement();
      if (!statement) continue;
      if (statement.kind === "end" || statement.kind === "else") return { list, end: statement };
      list.push(statement);
    }
    return this.#fail("unexpected EOF");
  }

  #branches(kind: "if" | "with" | "range"): Statement {
    const known = this.#variables.length;
    const pipeline = this.#pipeline(kind, "close");
    if (kind === "range") this.#ranges++;
    const { list, end } = this.#list();
    if (kind === "range") this.#ranges--;
    let otherwise: Statement[] | undefined;
    if (end.kind === "else" && end.elseIf) {
      if (kind !== "if") this.#unexpected(this.#take(), "else");
      this.#take();
      otherwise = [this.#nested(() => this.#branches("if"))];
    } else if (end.kind === "else") {
      const rest = this.#list();
      if (rest.end.kind !== "end") this.#fail("expected end; found {{else}}");
      otherwise = rest.list;
    }
    this.#variables.length = known;
    return { kind, at: pipeline.at, pipeline, list, otherwise };
  }

  #name(context: string): string {
    const token = this.#takeWord();
    const name = token.kind === "string" ? unquote(token.text) : undefined;
    return name ?? this.#unexpected(token, context);
  }

  #own(name: string, body: () => Statement[]): void {
    const [variables, ranges] = [this.#variables, this.#ranges];
    this.#variables = ["$"];
    this.#ranges = 0;
    const list = this.#nested(body);
    this.#variables = variables;
    this.#ranges = ranges;
    this.#defined.set(name, list);
  }

  #define(): undefined {
    const name = this.#name("define clause");
    this.#expect("close", "define clause");
    this.#own(name, () => this.#untilEnd("define clause"));
    return undefined;
  }

  #untilEnd(context: string): Statement[] {
    const { list, end } = this.#list();
    if (end.kind !== "end") this.#fail(`unexpected {{else}} in ${context}`);
    return list;
  }

  #template(): Statement {
    const { at } = this.#skipSpace();
    const name = this.#name("template clause");
    const close = this.#skipSpace().kind === "close";
    if (close) this.#take();
    return { kind: "template", at, name, pipeline: close ? undefined : this.#pipeline("template clause", "close") };
  }

  #block(): Statement {
    const { at } = this.#skipSpace();
    const name = this.#name("block clause");
    const pipeline = this.#pipeline("block clause", "close");
    this.#own(name, () => this.#untilEnd("block clause"));
    return { kind: "template", at, name, pipeline };
  }

  #pipeline(context: string, end: "close" | ")"): Pipeline {
    const { at } = this.#skipSpace();
    const variables: string[] = [];
    let assigns = false;
    while (this.#peek().kind === "variable") {
      const back = this.#next;
      const { text: name } = this.#take();
      const sign = this.#skipSpace();
      if (sign.kind === "assign" || sign.kind === "declare") {
        assigns = sign.kind === "assign";
        this.#take();
        this.#skipSpace();
        variables.push(name);
        this.#variables.push(name);
        break;
      }
      if (sign.kind !== "char" || sign.text !== ",") {
        this.#next = back;
        break;
      }
      this.#take();
      variables.push(name);
      this.#variables.push(name);
      if (context !== "range" || variables.length > 1) this.#fail(`too many declarations in ${context}`);
      if (!["variable", "close", ")"].includes(this.#skipSpace().kind)) {
        this.#fail("range can only initialize variables");
      }
    }
    const commands: Command[] = [];
    for (;;) {
      const token = this.#skipSpace();
      if (token.kind === end) {
        this.#take();
        this.#check(commands, context);
        return { kind: "pipeline", at, variables, assigns, commands };
      }
      if (!OPERANDS.has(token.kind)) this.#unexpected(this.#take(), context);
      commands.push(this.#command());
    }
  }

  #check(commands: readonly Command[], context: string): void {
    if (commands.length === 0) this.#fail(`missing value for ${context}`);
    for (const [index, { args }] of commands.entries()) {
      if (index > 0 && ["bool", "dot", "nil", "number", "string"].includes(args[0].kind)) {
        this.#fail(`non executable command in pipeline stage ${index + 1}`);
      }
    }
  }

  #command(): Command {
    const { at } = this.#skipSpace();
    const args: Operand[] = [];
    for (;;) {
      this.#skipSpace();
      const operand = this.#operand();
      if (operand) args.push(operand);
      const token = this.#take();
      if (token.kind === "space") continue;
      if (token.kind === "close" || token.kind === ")") this.#next--;
      else if (token.kind !== "pipe") this.#unexpected(token, "operand");
      break;
    }
    const [first, ...rest] = args;
    if (!first) return this.#fail("empty command");
    return { at, args: [first, ...rest] };
  }

  #operand(): Operand | undefined {
    const node = this.#term();
    if (!node || this.#peek().kind !== "field") return node;
    const { at } = this.#peek();
    const names: string[] = [];
    while (this.#peek().kind === "field") names.push(this.#take().text.slice(1));
    switch (node.kind) {
      case "field":
        return { kind: "field", at, names: [...node.names, ...names] };
      case "variable":
        return { kind: "variable", at, name: node.name, names: [...node.names, ...names] };
      case "bool":
      case "string":
      case "number":
      case "nil":
      case "dot":
        return this.#fail(`unexpected . after term ${quote(text(node))}`);
      default:
        return { kind: "chain", at, of: node, names };
    }
  }

  #term(): Operand | undefined {
    const token = this.#skipSpace();
    const { at, text: said } = token;
    if (!OPERANDS.has(token.kind)) return undefined;
    this.#take();
    switch (token.kind) {
      case "identifier":
        if (!this.#known(said)) this.#fail(`function ${quote(said)} not defined`);
        return { kind: "identifier", at, name: said };
      case "dot":
      case "nil":
        return { kind: token.kind, at };
      case "variable":
        if (!this.#variables.includes(said)) this.#fail(`undefined variable ${quote(said)}`);
        return { kind: "variable", at, name: said, names: [] };
      case "field":
        return { kind: "field", at, names: [said.slice(1)] };
      case "bool":
        return { kind: "bool", at, value: said === "true" };
      case "number": {
        const number = numberOf(said);
        return "error" in number ? this.#fail(number.error) : { kind: "number", at, value: number.value, text: said };
      }
      case "string": {
        const value = unquote(said);
        return value === undefined ? this.#fail("invalid syntax") : { kind: "string", at, value, text: said };
      }
      default:
        return this.#nested(() => this.#pipeline("parenthesized pipeline", ")"));
    }
  }
}

const OPERANDS = new Set<Kind>([
  ...(["bool", "dot", "field", "identifier", "number", "nil", "string", "variable", "("] as const),
]);
