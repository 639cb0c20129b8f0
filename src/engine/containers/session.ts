/** The traffic of one attached client: output queued to it in order, its input handed to the process. */
import { once } from "node:events";
import type { Writable } from "node:stream";
import type { AsyncQueue } from "../../base/async.ts";
import type { OutputChunk } from "../../runtime/types.ts";
import type { AttachIo } from "../types.ts";
import { DetachScanner } from "./detach.ts";

export interface SessionParts {
  readonly io: AttachIo;
  /** Chunks for the client; its end is the end of the session. */
  readonly output: AsyncQueue<OutputChunk>;
  /** Where input goes; undefined discards it. Resolves when there is a process. */
  readonly stdin: Promise<Writable | undefined> | undefined;
  /** Called when the client's input has ended. */
  readonly inputEnded: () => void;
  /** Key sequence that ends the session, on terminals. */
  readonly detachKeys: Buffer | undefined;
}

/** Resolves with "detached" when the client left by keys, "over" otherwise. */
export async function runSession(parts: SessionParts): Promise<"over" | "detached"> {
  const { io, output } = parts;
  let detached = false;
  const leave = () => output.end();
  io.signal.addEventListener("abort", leave, { once: true });
  if (io.signal.aborted) leave();
  const feeding = parts.stdin
    ? feed(parts, parts.stdin).then((result) => {
        if (result === "detached") {
          detached = true;
          output.end();
        }
      })
    : discard(io);
  feeding.catch(() => {});
  try {
    for await (const chunk of output) {
      if (io.signal.aborted || detached) break;
      await io.write(chunk);
    }
  } finally {
    io.signal.removeEventListener("abort", leave);
  }
  return detached ? "detached" : "over";
}

/** Reads the input to nothing, so that the end of the connection is noticed. */
async function discard(io: AttachIo): Promise<void> {
  io.input.resume();
}

async function feed(parts: SessionParts, target: Promise<Writable | undefined>): Promise<"ended" | "detached"> {
  const scanner = parts.detachKeys && new DetachScanner(parts.detachKeys);
  const stdin = await target;
  for await (const chunk of parts.io.input) {
    const typed = scanner ? scanner.push(Buffer.from(chunk)) : { pass: Buffer.from(chunk), detached: false };
    if (stdin?.writable && typed.pass.length > 0 && !stdin.write(typed.pass)) {
      await Promise.race([once(stdin, "drain"), once(stdin, "close")]);
    }
    if (typed.detached) return "detached";
  }
  parts.inputEnded();
  return "ended";
}
