/** Errors as a Docker manager words them: the CLI's users, scripts and libraries match on these texts. */
import { SkeinError } from "../../../base/errors.ts";

const codes = {
  InvalidArgument: "invalid",
  NotFound: "notFound",
  AlreadyExists: "conflict",
  PermissionDenied: "forbidden",
  FailedPrecondition: "invalid",
  Unimplemented: "notImplemented",
  Internal: "internal",
  Unknown: "internal",
} as const;

/** "rpc error: code = InvalidArgument desc = …", with the HTTP status Docker gives it. */
export function rpcError(code: keyof typeof codes, description: string): SkeinError {
  return new SkeinError(codes[code], `rpc error: code = ${code} desc = ${description}`);
}

export const outOfSequence = () => rpcError("Unknown", "update out of sequence");
