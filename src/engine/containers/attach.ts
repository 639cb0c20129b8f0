/** `docker attach` and the foreground of `docker run`: a client on the stdio of the container's own process. */
import type { Writable } from "node:stream";
import { AsyncQueue } from "../../base/async.ts";
import { conflict } from "../../base/errors.ts";
import type { OutputChunk } from "../../runtime/types.ts";
import type { EngineContext } from "../context.ts";
import type { AttachIo, AttachOptions, AttachSession } from "../types.ts";
import { attributesOf } from "./attributes.ts";
import type { Container } from "./container.ts";
import { parseDetachKeys } from "./detach.ts";
import { Backlog } from "./flow.ts";
import { runSession } from "./session.ts";

/** Bytes that a client may be behind before the process is held up for it. */
const HIGH = 1024 * 1024;

/**
 * Live output is listened to from the moment the session is made: `docker run` attaches before it starts, and the first
 * byte must not be lost between the answer 101 and the listener.
 */
export function attach(ctx: EngineContext, container: Container, options: AttachOptions): AttachSession {
  const { config, state } = container.record;
  if (state.status === "paused") {
    throw conflict(`container ${container.id} is paused, unpause the container before attach`);
  }
  if (state.status === "restarting") {
    throw conflict(`container ${container.id} is restarting, wait until the container is running`);
  }
  const keys = parseDetachKeys(options.detachKeys);
  const output = new AsyncQueue<OutputChunk>();
  const stops: (() => void)[] = [];
  const backlog = new Backlog(() => container.run?.flow, HIGH);
  if (options.stream) {
    stops.push(
      () => backlog.close(),
      container.output.on((chunk) => {
        if (!options[chunk.stream]) return;
        backlog.add(chunk.data.length);
        output.push(chunk);
      }),
      container.runs.on((what) => what === "end" && output.end()),
    );
  } else {
    output.end();
  }
  ctx.events.emit({ type: "container", action: "attach", id: container.id, attributes: attributesOf(container) });
  return {
    tty: config.Tty,
    async run(io) {
      try {
        if (options.logs) await replay(container, options, io);
        if (!options.stream) return;
        const takesInput = options.stdin && config.OpenStdin;
        const counted: AttachIo = {
          ...io,
          async write(chunk) {
            await io.write(chunk);
            backlog.done(chunk.data.length);
          },
        };
        const result = await runSession({
          io: counted,
          output,
          stdin: takesInput ? stdinOf(container) : undefined,
          inputEnded: () => {
            // With -i and no terminal the process sees end of file when its one client has no more to say.
            if (config.StdinOnce && !config.Tty) void container.run?.process.io.closeStdin().catch(() => {});
          },
          detachKeys: config.Tty && takesInput ? keys : undefined,
        });
        if (result === "detached") {
          ctx.events.emit({
            type: "container",
            action: "detach",
            id: container.id,
            attributes: attributesOf(container),
          });
        }
      } finally {
        for (const stop of stops) stop();
      }
    },
  };
}

/** The stdin of the present process, or of the next one. */
function stdinOf(container: Container): Promise<Writable | undefined> {
  if (container.run) return Promise.resolve(container.run.process.io.stdin);
  return new Promise((resolve) => {
    const stop = container.runs.on(() => {
      stop();
      resolve(container.run?.process.io.stdin);
    });
  });
}

async function replay(container: Container, options: AttachOptions, io: AttachIo): Promise<void> {
  const entries = container.log.read(
    { stdout: options.stdout, stderr: options.stderr, follow: false, signal: io.signal },
    container.up,
  );
  for await (const entry of entries) await io.write({ stream: entry.stream, data: entry.line });
}
