/** Logs of services and tasks: lines of many containers, each told apart by its details, in one stream. */
import { create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import {
  type LogMessage,
  LogStream,
  type LogSubscriptionOptions,
  LogSubscriptionOptionsSchema,
} from "#proto/docker/swarmkit/logbroker_pb.js";
import type { TaskSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { invalid } from "../../base/errors.ts";
import { parseTimestamp } from "../../engine/time.ts";
import type { ControlApi } from "../../swarm/types.ts";
import { bytes, MULTIPLEXED_STREAM, RAW_STREAM, type Reply } from "../http/reply.ts";
import type { ApiRequest } from "../http/request.ts";
import { frame } from "../http/stdcopy.ts";

/** SwarmKit's tail: 0 is all, -(n+1) the last n lines. */
function tailOf(text: string): bigint {
  if (text === "" || text === "all") return 0n;
  if (!/^[+-]?\d{1,18}$/.test(text)) throw invalid('tail value must be a positive integer or "all"');
  const lines = BigInt(text);
  if (lines < 0n) throw invalid("negative tail values not supported");
  return -(lines + 1n);
}

export function logOptions(request: ApiRequest, now: number): LogSubscriptionOptions {
  const { query } = request;
  const streams: LogStream[] = [];
  if (query.bool("stdout")) streams.push(LogStream.STDOUT);
  if (query.bool("stderr")) streams.push(LogStream.STDERR);
  if (streams.length === 0) throw invalid("Bad parameters: you must choose at least one stream");
  const since = query.string("since");
  const at = since === "" || since === "0" ? undefined : parseTimestamp(since, now);
  return create(LogSubscriptionOptionsSchema, {
    streams,
    follow: query.bool("follow"),
    tail: tailOf(query.string("tail")),
    since:
      at === undefined
        ? undefined
        : { seconds: BigInt(Math.floor(at / 1000)), nanos: Math.floor((at - Math.floor(at / 1000) * 1000) * 1e6) },
  });
}

/** Always nine digits, so that columns line up. */
function fixedTime(time: Timestamp | undefined): string {
  const seconds = new Date(Number(time?.seconds ?? 0n) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(time?.nanos ?? 0).padStart(9, "0")}Z`;
}

const PREFIX = "com.docker.swarm";

/** "key=value,…" sorted by key, each part escaped as in a query; where the line comes from has the last word. */
function detailsOf(message: LogMessage): string {
  const details = new Map(message.attrs.map((attr) => [attr.key, attr.value]));
  details.set(`${PREFIX}.node.id`, message.context?.nodeId ?? "");
  details.set(`${PREFIX}.service.id`, message.context?.serviceId ?? "");
  details.set(`${PREFIX}.task.id`, message.context?.taskId ?? "");
  const quote = (text: string) => encodeURIComponent(text).replaceAll("%20", "+");
  return [...details]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${quote(key)}=${quote(value)}`)
    .join(",");
}

function logLine(message: LogMessage, options: { timestamps: boolean; details: boolean }): Buffer {
  const head =
    (options.timestamps ? `${fixedTime(message.timestamp)} ` : "") + (options.details ? `${detailsOf(message)} ` : "");
  return head === "" ? Buffer.from(message.data) : Buffer.concat([Buffer.from(head), message.data]);
}

/** The stream for one service or task; a TTY's output is not framed. */
export function logsReply(
  control: ControlApi,
  request: ApiRequest,
  spec: TaskSpec | undefined,
  selector: Parameters<ControlApi["logs"]>[0],
): Reply {
  const options = logOptions(request, Date.now());
  if (spec?.runtime.case !== "container") throw invalid("logs only supported on container tasks");
  const tty = spec.runtime.value.tty;
  const shown = { timestamps: request.query.bool("timestamps"), details: request.query.bool("details") };
  const type = !tty && request.atLeast("1.42") ? MULTIPLEXED_STREAM : RAW_STREAM;
  const messages = control.logs(selector, options, request.signal);
  return bytes(type, lines(messages, shown, tty));
}

async function* lines(
  messages: AsyncIterable<LogMessage>,
  shown: { timestamps: boolean; details: boolean },
  tty: boolean,
): AsyncIterable<Uint8Array> {
  for await (const message of messages) {
    const line = logLine(message, shown);
    const stream = message.stream === LogStream.STDERR ? "stderr" : "stdout";
    yield tty ? line : frame(stream, line);
  }
}
