/** A command on a terminal of its own, typed to and read from, as a person at a keyboard would. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { sleep, systemClock } from "../../src/base/clock.ts";

export const ctrlP = "\x10";
export const ctrlQ = "\x11";

export class Terminal implements AsyncDisposable {
  readonly #child: ChildProcess;
  #output = "";
  #read = 0;
  #code: number | undefined;

  constructor(command: readonly string[], env: NodeJS.ProcessEnv = process.env) {
    const quoted = command.map((word) => `'${word.replace(/'/g, "'\\''")}'`).join(" ");
    this.#child = spawn("script", ["-qfec", quoted, "/dev/null"], { stdio: ["pipe", "pipe", "inherit"], env });
    this.#child.stdout?.on("data", (chunk: Buffer) => {
      this.#output += chunk.toString();
    });
    this.#child.on("close", (code) => {
      this.#code = code ?? 1;
    });
    this.#child.stdin?.on("error", () => {});
  }

  /** Types text as it is; Enter is "\n". */
  type(text: string): void {
    this.#child.stdin?.write(text);
  }

  /** Waits until something new on the screen matches, and gives what came since the last match. */
  async see(pattern: RegExp, timeoutMs = 10_000): Promise<string> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const fresh = this.#output.slice(this.#read);
      const match = pattern.exec(fresh);
      if (match) {
        this.#read += match.index + match[0].length;
        return fresh.slice(0, match.index + match[0].length);
      }
      if (Date.now() > deadline || this.#code !== undefined) {
        assert.fail(
          `the terminal did not show ${pattern}${this.#code === undefined ? "" : " before it ended"}:\n${fresh}`,
        );
      }
      await sleep(systemClock, 20);
    }
  }

  /** Waits until the command has ended. */
  async ended(timeoutMs = 10_000): Promise<number> {
    const deadline = Date.now() + timeoutMs;
    while (this.#code === undefined) {
      if (Date.now() > deadline) assert.fail(`the command did not end; the screen:\n${this.#output}`);
      await sleep(systemClock, 20);
    }
    return this.#code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#code === undefined) this.#child.kill("SIGKILL");
  }
}
