/** containerd's gRPC errors in the words of the error catalogue. */
import { conflict, invalid, notFound, SkeinError, unavailable } from "../../base/errors.ts";
import { grpcCodeOf, grpcMessageOf, status } from "../../base/grpc.ts";

const isNotFound = (error: unknown): boolean => grpcCodeOf(error) === status.NOT_FOUND;
export const isAlreadyExists = (error: unknown): boolean => grpcCodeOf(error) === status.ALREADY_EXISTS;

/** The value, or undefined when containerd says that there is no such thing. */
export async function ifFound<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** For clean-up paths: "not found" is what was wanted. */
export async function ignoreNotFound(promise: Promise<unknown>): Promise<void> {
  await ifFound(promise);
}

/** What runc says when the user's command, not the engine, is at fault; Docker answers 400 to these. */
const usersFault = [
  "executable file not found",
  "no such file or directory",
  "permission denied",
  "is a directory",
  "not a directory",
  "exec format error",
  "system cannot find the file",
];

/** The error to throw at a user for a failed containerd call; SkeinErrors pass. */
export function translate(error: unknown, what?: string): unknown {
  if (error instanceof SkeinError) return error;
  const code = grpcCodeOf(error);
  if (code === undefined) return error;
  const message = what ? `${what}: ${grpcMessageOf(error)}` : grpcMessageOf(error);
  switch (code) {
    case status.NOT_FOUND:
      return notFound(message);
    case status.ALREADY_EXISTS:
    case status.FAILED_PRECONDITION:
      return conflict(message);
    case status.INVALID_ARGUMENT:
      return invalid(message);
    case status.DEADLINE_EXCEEDED:
    case status.UNAVAILABLE:
      return unavailable(`containerd does not answer: ${message}`);
    default:
      return new SkeinError("internal", message, { cause: error });
  }
}

/** As `translate`, for starting a process: a bad command is the caller's fault (400), as in Docker. */
export function translateStart(error: unknown): unknown {
  const code = grpcCodeOf(error);
  if (code === undefined) return error;
  const message = grpcMessageOf(error);
  const lower = message.toLowerCase();
  // containerd's client library appends the code's name; Docker's CLI and users know the message so.
  const text = code === status.UNKNOWN && !lower.endsWith(": unknown") ? `${message}: unknown` : message;
  if (code === status.UNKNOWN && usersFault.some((part) => lower.includes(part))) return invalid(text);
  const translated = translate(error);
  return translated instanceof SkeinError && translated.code === "internal"
    ? new SkeinError("internal", text, { cause: error })
    : translated;
}

/** Whether a call failed without a word about what became of it. */
export function isUnanswered(error: unknown): boolean {
  const code = grpcCodeOf(error);
  return code === status.UNAVAILABLE || code === status.DEADLINE_EXCEEDED || code === status.CANCELLED;
}
