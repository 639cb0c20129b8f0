/** Attach and logs: output as raw bytes where there is a terminal, as stdcopy frames where not. */
import { invalid } from "../base/errors.ts";
import { detailsText } from "../engine/logs/attributes.ts";
import { parseTimestamp } from "../engine/time.ts";
import type { AttachIo, AttachOptions, AttachSession, Engine, LogEntry } from "../engine/types.ts";
import type { Hijacked } from "./http/hijack.ts";
import { bytes, hijack, MULTIPLEXED_STREAM, RAW_STREAM, type Reply, webSocket } from "./http/reply.ts";
import type { ApiRequest, Query } from "./http/request.ts";
import { type Route, route } from "./http/router.ts";
import { frame } from "./http/stdcopy.ts";

/** Since 1.42 the type of a stream tells whether it is framed. */
function streamType(request: ApiRequest, tty: boolean): string {
  return !tty && request.atLeast("1.42") ? MULTIPLEXED_STREAM : RAW_STREAM;
}

function ioOver(stream: Hijacked, tty: boolean): AttachIo {
  return {
    input: stream.input,
    signal: stream.signal,
    write: (chunk) => stream.write(tty ? chunk.data : frame(chunk.stream, chunk.data)),
  };
}

export function sessionReply(request: ApiRequest, session: AttachSession): Reply {
  return hijack(streamType(request, session.tty), (stream) => session.run(ioOver(stream, session.tty)));
}

/** `since` and `until` of logs: unix seconds or a date; 0 and absent are no bound. */
function bound(query: Query, name: string): number | undefined {
  const text = query.string(name);
  if (text === "" || text === "0") return undefined;
  return parseTimestamp(text, Date.now());
}

export function tailOf(text: string): number | undefined {
  if (text === "" || text === "all") return undefined;
  // As dockerd: what is not a number means all.
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

async function* logBytes(
  entries: AsyncIterable<LogEntry>,
  options: { tty: boolean; timestamps: boolean; details?: string },
): AsyncGenerator<Uint8Array> {
  for await (const { stream, line, time } of entries) {
    const prefix = [
      ...(options.timestamps ? [padNanos(time)] : []),
      ...(options.details === undefined ? [] : [options.details]),
    ];
    const data = prefix.length ? Buffer.concat([Buffer.from(`${prefix.join(" ")} `), line]) : line;
    yield options.tty ? data : frame(stream, data);
  }
}

/** Docker shows all nine digits of the nanoseconds. */
function padNanos(time: string): string {
  const match = /^(.*?)(?:\.(\d+))?Z$/.exec(time);
  return match ? `${match[1]}.${(match[2] ?? "").padEnd(9, "0")}Z` : time;
}

const attachOptions = ({ query }: ApiRequest): AttachOptions => ({
  stdin: query.bool("stdin"),
  stdout: query.bool("stdout"),
  stderr: query.bool("stderr"),
  logs: query.bool("logs"),
  stream: query.bool("stream"),
  detachKeys: query.string("detachKeys"),
});

export function streamRoutes(engine: Engine): Route[] {
  const { containers } = engine;
  return [
    route("GET", "/containers/:name*/logs", (request) => {
      const { params, query, signal } = request;
      const stdout = query.bool("stdout");
      const stderr = query.bool("stderr");
      if (!stdout && !stderr) throw invalid("Bad parameters: you must choose at least one stream");
      const tail = tailOf(query.string("tail"));
      const since = bound(query, "since");
      const until = bound(query, "until");
      const { tty, entries, attributes } = containers.logs(params.name, {
        stdout,
        stderr,
        follow: query.bool("follow"),
        ...(tail !== undefined && { tail }),
        ...(since !== undefined && { since }),
        ...(until !== undefined && { until }),
        signal,
      });
      const timestamps = query.bool("timestamps");
      return bytes(
        streamType(request, tty),
        logBytes(entries, { tty, timestamps, ...(query.bool("details") && { details: detailsText(attributes) }) }),
      );
    }),
    route("POST", "/containers/:name*/attach", (request) =>
      sessionReply(request, containers.attach(request.params.name, attachOptions(request))),
    ),
    route("GET", "/containers/:name*/attach/ws", (request) => {
      const session = containers.attach(request.params.name, attachOptions(request));
      // One stream of messages: nothing tells stdout from stderr.
      return webSocket(request.atLeast("1.28"), (stream) => session.run(ioOver(stream, true)));
    }),
  ];
}
