/**
 * The error catalogue. Each code has one HTTP status (that of Docker's Engine API) and says
 * whose move it is; the message is Docker's own wherever Docker has one.
 */
const catalogue = {
  invalid: 400,
  unauthorized: 401,
  forbidden: 403,
  notFound: 404,
  notAcceptable: 406,
  conflict: 409,
  notModified: 304,
  internal: 500,
  notImplemented: 501,
  /** Swarm state does not allow it: not a manager, locked, no quorum. */
  unavailable: 503,
} as const;

export type ErrorCode = keyof typeof catalogue;
export const errorCodes = Object.keys(catalogue) as readonly ErrorCode[];

/** An error with a place in the catalogue. Throw it wherever a user may read the message. */
export class SkeinError extends Error {
  readonly code: ErrorCode;
  /** What the user can do about it, where the message does not say so. */
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "SkeinError";
    this.code = code;
    this.hint = options.hint;
  }

  get status(): number {
    return catalogue[this.code];
  }
}

export const invalid = (message: string) => new SkeinError("invalid", message);
export const notFound = (message: string) => new SkeinError("notFound", message);
export const conflict = (message: string) => new SkeinError("conflict", message);
export const forbidden = (message: string) => new SkeinError("forbidden", message);
export const unavailable = (message: string) => new SkeinError("unavailable", message);
/** What Docker's CLI can ask for and Skein does not do yet. `what` names the option or call. */
export const notImplemented = (what: string) => new SkeinError("notImplemented", `skein does not support ${what} yet`);

/** The text of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a system error (`ENOENT`, `EEXIST`), if it is one. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return undefined;
}
