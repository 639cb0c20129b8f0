/**
 * A tutorial as an executable walk: its commands, word by word, in the hosts of a lab of its own, with the stock
 * `docker` command line inside each host.
 */
import assert from "node:assert/strict";
import { inside } from "../../src/lab/host.ts";
import type { Collection } from "../../src/lab/image/library.ts";
import { hostOf } from "../../src/lab/lab.ts";
import { run } from "../../src/lab/process.ts";
import { TestLab } from "./lab.ts";
import { Terminal } from "./terminal.ts";

export class Walk implements AsyncDisposable {
  readonly lab: TestLab;

  constructor(lab: TestLab) {
    this.lab = lab;
  }

  /** `images`: what the document runs; loading more takes seconds per host. */
  static async in(
    name: string,
    subnet: string,
    hosts: readonly string[],
    images: readonly Collection[] = ["basic", "web"],
  ): Promise<Walk> {
    return new Walk(await TestLab.up(name, subnet, { names: hosts, images }));
  }

  #command(host: string, command: string): string[] {
    return inside(hostOf(this.lab.lab, host).state, ["bash", "-c", command]);
  }

  /** Runs a line of the document on a host. */
  try(host: string, command: string) {
    return run(this.#command(host, command), { env: environment, timeoutMs: 120_000 });
  }

  /** Runs a line that the document shows succeeding; gives what it printed. */
  async sh(host: string, command: string): Promise<string> {
    const { code, stdout, stderr } = await this.try(host, command);
    assert.equal(code, 0, `(${host}) $ ${command}\n${stdout}${stderr}`);
    return stdout.trim();
  }

  /** Runs a line that the document shows failing; gives its error text. */
  async fails(host: string, command: string): Promise<string> {
    const { code, stdout, stderr } = await this.try(host, command);
    assert.notEqual(code, 0, `(${host}) $ ${command} should have failed\n${stdout}`);
    return `${stdout}${stderr}`.trim();
  }

  /** Runs a line on a terminal. */
  terminal(host: string, command: string): Terminal {
    return new Terminal(this.#command(host, command), environment);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.lab[Symbol.asyncDispose]();
  }
}

/** As a person logs in: no variable points docker anywhere, it finds the engine at its well-known socket. */
const environment: NodeJS.ProcessEnv = { PATH: process.env.PATH, HOME: "/root", TERM: "xterm", LANG: "C.UTF-8" };

/** Rows of a table that the CLI printed, its header apart. */
export function rows(text: string): string[][] {
  return text
    .split("\n")
    .slice(1)
    .map((line) => line.trim().split(/\s{2,}/));
}
