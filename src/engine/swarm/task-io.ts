/** What goes in and out of a task beside its container: log lines and registry credentials. Pure. */
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { type LogMessage, LogStream } from "#proto/docker/swarmkit/logbroker_pb.js";
import type { RegistryAuth } from "../../runtime/types.ts";
import { parseRfc3339 } from "../time.ts";
import type { LogEntry } from "../types.ts";

export function logMessage(entry: LogEntry): Pick<LogMessage, "timestamp" | "stream" | "data"> {
  return {
    timestamp: timestampOf(entry.time),
    stream: entry.stream === "stderr" ? LogStream.STDERR : LogStream.STDOUT,
    data: entry.line,
  };
}

/** RFC 3339 with nanoseconds, none lost. */
export function timestampOf(text: string): Timestamp {
  const seconds = Math.floor((parseRfc3339(text) ?? 0) / 1000);
  const fraction = /\.(\d{1,9})/.exec(text)?.[1] ?? "";
  return { $typeName: "google.protobuf.Timestamp", seconds: BigInt(seconds), nanos: Number(fraction.padEnd(9, "0")) };
}

/** The credentials that came with the task: base64url of JSON. What cannot be read is none. */
export function registryAuth(encoded: string): RegistryAuth | undefined {
  if (encoded === "") return undefined;
  try {
    const value: unknown = JSON.parse(Buffer.from(encoded, "base64").toString("utf8"));
    if (typeof value !== "object" || value === null) return undefined;
    const text = (key: string) => {
      const entry = Object.entries(value).find(([name]) => name.toLowerCase() === key)?.[1];
      return typeof entry === "string" && entry !== "" ? { [key]: entry } : {};
    };
    return { ...text("username"), ...text("password"), ...text("identitytoken"), ...text("serveraddress") };
  } catch {
    return undefined;
  }
}
