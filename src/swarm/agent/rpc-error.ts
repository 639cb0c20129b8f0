/** How dockerd shows the failure of a call to a manager. */
import { messageOf } from "../../base/errors.ts";
import { grpcCodeOf, grpcMessageOf, status } from "../../base/grpc.ts";

/** As Go prints it: "rpc error: code = NotFound desc = network x not found"; other errors by their message. */
export function rpcErrorText(error: unknown): string {
  const code = grpcCodeOf(error);
  const name = code === undefined ? undefined : status[code];
  if (name === undefined) return messageOf(error);
  const words = name.split("_").map((word) => `${word[0]}${word.slice(1).toLowerCase()}`);
  return `rpc error: code = ${words.join("")} desc = ${grpcMessageOf(error)}`;
}
