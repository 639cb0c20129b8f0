import { getSystemErrorName } from "node:util";

/** The symbolic name of an errno value: 17 → "EEXIST". */
function errnoName(errno: number): string {
  // libuv calls it ENOTSUP, which Linux has not.
  if (errno === 95) return "EOPNOTSUPP";
  try {
    return getSystemErrorName(-errno);
  } catch {
    return `E${errno}`;
  }
}

/**
 * A refusal by the kernel (or by libnftables in its name). `code` is the errno's name, as in Node's own
 * system errors, so that `errnoOf` of base reads both; `operation` says what was attempted; `detail` is the
 * kernel's own explanation (netlink extended acknowledgement, nft's message), "" when it gave none.
 */
export class KernelError extends Error {
  readonly code: string;
  readonly operation: string;
  readonly detail: string;

  constructor(code: string | number, operation: string, detail = "") {
    const name = typeof code === "number" ? errnoName(code) : code;
    super(detail ? `${operation}: ${name}: ${detail}` : `${operation}: ${name}`);
    this.name = "KernelError";
    this.code = name;
    this.operation = operation;
    this.detail = detail;
  }
}
