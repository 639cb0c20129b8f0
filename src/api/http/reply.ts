/** What a handler answers: a value, not a side effect; `server.ts` puts it on the wire. */
import type { Readable } from "node:stream";
import type { Hijacked } from "./hijack.ts";

export type Reply =
  | { kind: "empty"; status: number }
  | { kind: "json"; status: number; value: unknown }
  | { kind: "text"; status: number; text: string }
  /**
   * One JSON document per item, sent as it comes. An error ends the stream with Docker's error object; with `patient`
   * the status waits for the first document, so that an error before it has a status of its own.
   */
  | { kind: "jsonStream"; items: AsyncIterable<unknown>; contentType: string; patient: boolean }
  | { kind: "bytes"; contentType: string; body: Readable | AsyncIterable<Uint8Array>; headers?: Record<string, string> }
  /** The connection leaves HTTP: 101 where the client asked for an upgrade, 200 and a raw body where not. */
  | { kind: "hijack"; contentType: string; run: (stream: Hijacked) => Promise<void> }
  /** The same over WebSocket, as binary or text messages. */
  | { kind: "webSocket"; binary: boolean; run: (stream: Hijacked) => Promise<void> };

export const empty = (status = 204): Reply => ({ kind: "empty", status });
export const json = (value: unknown, status = 200): Reply => ({ kind: "json", status, value });
export const text = (body: string, status = 200): Reply => ({ kind: "text", status, text: body });
export const jsonStream = (items: AsyncIterable<unknown>, options: { patient?: boolean } = {}): Reply => ({
  kind: "jsonStream",
  items,
  contentType: "application/json",
  patient: options.patient ?? false,
});
export const bytes = (
  contentType: string,
  body: Readable | AsyncIterable<Uint8Array>,
  headers?: Record<string, string>,
): Reply => ({ kind: "bytes", contentType, body, ...(headers && { headers }) });
export const hijack = (contentType: string, run: (stream: Hijacked) => Promise<void>): Reply => ({
  kind: "hijack",
  contentType,
  run,
});

export const webSocket = (binary: boolean, run: (stream: Hijacked) => Promise<void>): Reply => ({
  kind: "webSocket",
  binary,
  run,
});

export const RAW_STREAM = "application/vnd.docker.raw-stream";
export const MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream";
