/** The key sequence that leaves an attached terminal without stopping anything. */
import { invalid } from "../../base/errors.ts";

const DEFAULT = Buffer.from([0x10, 0x11]);

/** "ctrl-p,ctrl-q" or "a,b" as bytes; "" is the default. */
export function parseDetachKeys(text: string): Buffer {
  if (text === "") return DEFAULT;
  const bytes: number[] = [];
  for (const key of text.split(",")) {
    if (/^ctrl-[a-z]$/.test(key)) bytes.push(key.charCodeAt(5) - 96);
    else if (/^ctrl-[@[\\\]^_]$/.test(key)) bytes.push(key.charCodeAt(5) - 64);
    else if (key.length === 1 && key.charCodeAt(0) < 128) bytes.push(key.charCodeAt(0));
    else throw invalid(`Invalid detach keys (${text}) provided`);
  }
  return Buffer.from(bytes);
}

/**
 * Looks for the sequence in typed input. `push` gives what is to be passed on; keys of a sequence that was begun are
 * held back until it is complete or broken.
 */
export class DetachScanner {
  readonly #keys: Buffer;
  #matched = 0;

  constructor(keys: Buffer) {
    this.#keys = keys;
  }

  push(input: Uint8Array): { pass: Buffer; detached: boolean } {
    const pass: number[] = [];
    for (const byte of input) {
      if (byte === this.#keys[this.#matched]) {
        if (++this.#matched === this.#keys.length) return { pass: Buffer.from(pass), detached: true };
        continue;
      }
      if (this.#matched > 0) pass.push(...this.#keys.subarray(0, this.#matched));
      this.#matched = byte === this.#keys[0] ? 1 : 0;
      if (this.#matched === 0) pass.push(byte);
      else if (this.#keys.length === 1) return { pass: Buffer.from(pass), detached: true };
    }
    return { pass: Buffer.from(pass), detached: false };
  }
}
