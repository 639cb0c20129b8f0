/** Runs a template's tree over data, with the rules and words of Go's text/template. */
import { invalid, messageOf, SkeinError } from "../errors.ts";
import { builtins, CallError, type TemplateFunction } from "./builtins.ts";
import { parse } from "./parse.ts";
import { type Branches, type Command, type Operand, type Parsed, type Pipeline, type Statement, text } from "./tree.ts";
import { GoMap, GoStruct, isTrue, quote, show, type TemplateValue, typeOf } from "./values.ts";

export type TemplateFunctions = Readonly<Record<string, TemplateFunction>>;

/** Nodes of a tree that are looked at, at most: a template can be made to run for ever. */
const MAX_STEPS = 200_000;
/** Characters of any text that comes up; a config holds no more either. */
const MAX_TEXT = 1_000 << 10;
/** Templates in templates. */
const MAX_CALLS = 100;

/** "No value yet", which is not nil. */
const missing = Symbol("missing");
type Final = TemplateValue | typeof missing;
type Jump = "break" | "continue" | undefined;
interface Variable {
  readonly name: string;
  value: TemplateValue;
}

/** @throws invalid in Go's words, with the place. */
export function expand(source: string, data: TemplateValue, functions: TemplateFunctions = {}): string {
  const known = (name: string) => Object.hasOwn(functions, name) || Object.hasOwn(builtins, name);
  return new Run(source, parse(source, known), functions).run(data);
}

class Run {
  readonly #source: string;
  readonly #parsed: Parsed;
  readonly #functions: TemplateFunctions;
  #template = "expansion";
  #out: string[] = [];
  #length = 0;
  #steps = 0;
  #calls = 0;
  #variables: Variable[] = [];
  /** What is being looked at. */
  #node: { at: number; said: () => string } = { at: 0, said: () => "" };

  constructor(source: string, parsed: Parsed, functions: TemplateFunctions) {
    this.#source = source;
    this.#parsed = parsed;
    this.#functions = functions;
  }

  run(data: TemplateValue): string {
    this.#variables = [{ name: "$", value: data }];
    this.#list(data, this.#parsed.list);
    return this.#out.join("");
  }

  #at(node: Operand | Command | Statement): void {
    if (++this.#steps > MAX_STEPS) this.#fail(`more than ${MAX_STEPS} steps`);
    this.#node = { at: node.at, said: () => said(node) };
  }

  #fail(message: string): never {
    const before = this.#source.slice(0, this.#node.at);
    const lines = before.split("\n");
    // Go counts bytes.
    const column = Buffer.byteLength(lines.at(-1) ?? "");
    const where = `template: expansion:${lines.length}:${column}: executing ${quote(this.#template)} at <${this.#node.said()}>`;
    throw invalid(`${where}: ${message}`);
  }

  #write(piece: string): void {
    this.#length += piece.length;
    if (this.#length > MAX_TEXT) this.#fail(`more than ${MAX_TEXT} characters`);
    this.#out.push(piece);
  }

  #list(dot: TemplateValue, list: readonly Statement[]): Jump {
    for (const statement of list) {
      const jump = this.#statement(dot, statement);
      if (jump) return jump;
    }
    return undefined;
  }

  #statement(dot: TemplateValue, statement: Statement): Jump {
    this.#at(statement);
    switch (statement.kind) {
      case "text":
        this.#write(statement.text);
        return undefined;
      case "action": {
        const value = this.#pipeline(dot, statement.pipeline);
        if (statement.pipeline.variables.length > 0) return undefined;
        this.#at(statement);
        this.#write(value === null ? "<no value>" : show(value).replace(/^&/, value instanceof GoStruct ? "" : "&"));
        return undefined;
      }
      case "if":
      case "with": {
        const known = this.#variables.length;
        const value = this.#pipeline(dot, statement.pipeline);
        const list = isTrue(value) ? statement.list : (statement.otherwise ?? []);
        const jump = this.#list(statement.kind === "with" && isTrue(value) ? value : dot, list);
        this.#variables.length = known;
        return jump;
      }
      case "range":
        return this.#range(dot, statement);
      case "break":
      case "continue":
        return statement.kind;
      case "template":
        this.#call(dot, statement);
        return undefined;
    }
  }

  #range(dot: TemplateValue, statement: Extract<Statement, Branches>): Jump {
    const known = this.#variables.length;
    const value = this.#pipeline(dot, statement.pipeline);
    const { variables, assigns } = statement.pipeline;
    const inner = this.#variables.length;
    if (value !== null && !(value instanceof GoMap)) this.#fail(`range can't iterate over ${show(value)}`);
    const entries = value === null ? [] : [...value.entries];
    if (entries.length === 0) {
      const jump = this.#list(dot, statement.otherwise ?? []);
      this.#variables.length = known;
      return jump;
    }
    for (const [key, each] of entries) {
      for (const [index, name] of variables.entries()) {
        const bound = index === variables.length - 1 ? each : key;
        const own = this.#variables[inner - variables.length + index];
        if (assigns) this.#set(name, bound);
        else if (own) own.value = bound;
      }
      const jump = this.#list(each, statement.list);
      this.#variables.length = inner;
      if (jump === "break") break;
    }
    this.#variables.length = known;
    return undefined;
  }

  #call(dot: TemplateValue, statement: Statement & { kind: "template" }): void {
    const list = this.#parsed.defined.get(statement.name);
    if (!list) this.#fail(`template ${quote(statement.name)} not defined`);
    if (this.#calls >= MAX_CALLS) this.#fail(`exceeded maximum template depth (${MAX_CALLS})`);
    const value = statement.pipeline ? this.#pipeline(dot, statement.pipeline) : null;
    const [variables, template] = [this.#variables, this.#template];
    this.#variables = [{ name: "$", value }];
    this.#template = statement.name;
    this.#calls++;
    this.#list(value, list);
    this.#calls--;
    this.#variables = variables;
    this.#template = template;
  }

  #set(name: string, value: TemplateValue): void {
    const variable = this.#variables.findLast((one) => one.name === name);
    if (variable) variable.value = value;
    else this.#fail(`undefined variable: ${name}`);
  }

  #pipeline(dot: TemplateValue, pipeline: Pipeline): TemplateValue {
    this.#at(pipeline);
    let value: Final = missing;
    for (const command of pipeline.commands) value = this.#command(dot, command, value);
    const result = value === missing ? null : value;
    for (const name of pipeline.variables) {
      if (pipeline.assigns) this.#set(name, result);
      else this.#variables.push({ name, value: result });
    }
    return result;
  }

  #command(dot: TemplateValue, command: Command, final: Final): TemplateValue {
    const { args } = command;
    const [first] = args;
    switch (first.kind) {
      case "field":
      case "chain":
      case "variable":
        return this.#fields(dot, first, args, final);
      case "identifier":
        return this.#function(dot, first, command, final);
      case "pipeline":
        this.#notCalled(args, final);
        return this.#pipeline(dot, first);
    }
    this.#at(first);
    this.#notCalled(args, final);
    if (first.kind === "dot") return dot;
    if (first.kind === "nil") return this.#fail("nil is not a command");
    return this.#constant(first);
  }

  #constant({ value }: { readonly value: TemplateValue }): TemplateValue {
    if (typeof value === "bigint" && value >= 1n << 63n) this.#fail(`${this.#node.said()} overflows int`);
    return value;
  }

  #notCalled(args: Command["args"], final: Final): void {
    if (args.length > 1 || final !== missing) this.#fail(`can't give argument to non-function ${said(args[0])}`);
  }

  /** `.A.B`, `$x.A`, `(…).A`. */
  #fields(
    dot: TemplateValue,
    node: Operand & { kind: "field" | "variable" | "chain" },
    args: Command["args"] | undefined,
    final: Final,
  ): TemplateValue {
    this.#at(node);
    const called = (args !== undefined && args.length > 1) || final !== missing;
    let value: TemplateValue;
    if (node.kind === "field") value = dot;
    else if (node.kind === "variable") {
      const variable = this.#variables.findLast((one) => one.name === node.name);
      if (!variable) return this.#fail(`undefined variable: ${node.name}`);
      if (node.names.length === 0) {
        if (args) this.#notCalled(args, final);
        return variable.value;
      }
      value = variable.value;
    } else {
      if (node.of.kind === "nil") this.#fail("nil pointer evaluating <nil>");
      value = this.#argument(dot, node.of);
    }
    for (const [index, name] of node.names.entries()) {
      value = this.#field(value, name, called && index === node.names.length - 1);
    }
    return value;
  }

  #field(value: TemplateValue, name: string, called: boolean): TemplateValue {
    if (value === null) return this.#fail(`nil data; no entry for key ${quote(name)}`);
    if (value instanceof GoStruct && Object.hasOwn(value.fields, name)) {
      if (called) this.#fail(`${name} has arguments but cannot be invoked as function`);
      return value.fields[name] ?? null;
    }
    if (value instanceof GoMap) {
      if (called) this.#fail(`${name} is not a method but has arguments`);
      return value.entries.get(name) ?? this.#fail(`map has no entry for key ${quote(name)}`);
    }
    return this.#fail(`can't evaluate field ${name} in type ${typeOf(value)}`);
  }

  #function(
    dot: TemplateValue,
    node: Operand & { kind: "identifier" },
    command: Command | undefined,
    final: Final,
  ): TemplateValue {
    this.#at(node);
    const { name } = node;
    const fn = Object.hasOwn(this.#functions, name) ? this.#functions[name] : builtins[name];
    if (!fn) return this.#fail(`${quote(name)} is not a defined function`);
    const rest = command ? command.args.slice(1) : [];
    const count = rest.length + (final === missing ? 0 : 1);
    if (count < fn.least || count > fn.most) {
      const want = fn.most === fn.least ? `${fn.least}` : `at least ${fn.least}`;
      this.#fail(`wrong number of args for ${name}: want ${want} got ${count}`);
    }
    const values: TemplateValue[] = [];
    for (const arg of rest) {
      const value = this.#argument(dot, arg, this.#wantsString(fn, values.length));
      if (name === "and" ? !isTrue(value) : name === "or" && isTrue(value)) return value;
      values.push(value);
    }
    if (final !== missing) values.push(this.#typed(final, this.#wantsString(fn, values.length)));
    try {
      const result = fn.call(values);
      if (typeof result === "string" && result.length > MAX_TEXT) throw new RangeError("too long");
      return result;
    } catch (error) {
      this.#at(command ?? node);
      if (error instanceof RangeError) return this.#fail(`more than ${MAX_TEXT} characters`);
      if (error instanceof SkeinError && error.code !== "invalid") throw error;
      if (!(error instanceof CallError || error instanceof SkeinError)) throw error;
      return this.#fail(`error calling ${name}: ${messageOf(error)}`);
    }
  }

  #wantsString(fn: TemplateFunction, index: number): boolean {
    return fn.takes === "string" || index < (fn.strings ?? 0);
  }

  #typed(value: TemplateValue, wantsString: boolean): TemplateValue {
    if (!wantsString || typeof value === "string") return value;
    if (value === null) return this.#fail("invalid value; expected string");
    return this.#fail(`wrong type for value; expected string; got ${typeOf(value)}`);
  }

  #argument(dot: TemplateValue, node: Operand, wantsString = false): TemplateValue {
    this.#at(node);
    switch (node.kind) {
      case "dot":
        return this.#typed(dot, wantsString);
      case "nil":
        return wantsString ? this.#fail("cannot assign nil to string") : null;
      case "field":
      case "variable":
      case "chain":
        return this.#typed(this.#fields(dot, node, undefined, missing), wantsString);
      case "pipeline":
        return this.#typed(this.#pipeline(dot, node), wantsString);
      case "identifier":
        return this.#typed(this.#function(dot, node, undefined, missing), wantsString);
      default:
        if (wantsString && node.kind !== "string") this.#fail(`expected string; found ${text(node)}`);
        return this.#constant(node);
    }
  }
}

/** As errors say what they are about. */
function said(node: Operand | Command | Statement): string {
  if (!("kind" in node)) return text(node);
  switch (node.kind) {
    case "text":
      return node.text;
    case "action":
      return `{{${text(node.pipeline)}}}`;
    case "if":
    case "with":
    case "range":
      return `{{${node.kind} ${text(node.pipeline)}}}`;
    case "break":
    case "continue":
      return `{{${node.kind}}}`;
    case "template":
      return `{{template ${quote(node.name)}${node.pipeline ? ` ${text(node.pipeline)}` : ""}}}`;
    default:
      return text(node);
  }
}
