/** How dockerd shows the failure of a call to a manager. */
import { messageOf } from "../../base/errors.ts";
import { grpcCodeOf, grpcMessageOf, status } from "../../base/grpc.ts";

/** Go's words for a connection that could not be made. */
const dialErrors: Record<string, string> = {
  ECONNREFUSED: "connection refused",
  EHOSTUNREACH: "no route to host",
  ENETUNREACH: "network is unreachable",
  ETIMEDOUT: "connection timed out",
};

/** As Go prints it: "rpc error: code = NotFound desc = network x not found"; other errors by their message. */
export function rpcErrorText(error: unknown): string {
  const code = grpcCodeOf(error);
  const name = code === undefined ? undefined : status[code];
  if (name === undefined) return messageOf(error);
  const words = name.split("_").map((word) => `${word[0]}${word.slice(1).toLowerCase()}`);
  return `rpc error: code = ${words.join("")} desc = ${description(grpcMessageOf(error))}`;
}

function description(text: string): string {
  const lost = /Last error: (?:Error: )?(.*?)\. Resolution note/.exec(text)?.[1];
  if (lost === undefined) return text;
  const [, code = "", addr] = /^connect (E[A-Z]+) (\S+)/.exec(lost) ?? [];
  const words = dialErrors[code];
  const reason = words && addr ? `transport: Error while dialing: dial tcp ${addr}: connect: ${words}` : lost;
  return `connection error: desc = "${reason}"`;
}
