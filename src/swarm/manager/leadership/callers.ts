/**
 * Who makes a call that another manager passed on. A manager that does not lead forwards the calls of its nodes and says
 * whose they are in the metadata (SwarmKit: ca/forward.go, protobuf/plugin/raftproxy); only a manager of this swarm is
 * believed, and a call is passed on once.
 */
import { GrpcError, status } from "../../../base/grpc.ts";
import type { CallContext } from "../../../base/grpc-server.ts";
import type { Identity } from "../../ca/certificates.ts";
import { type Authority, MANAGERS, NODES } from "../auth.ts";

const key = {
  forwarded: "forwarded_cert",
  cn: "forwarded_cert_cn",
  org: "forwarded_cert_org",
  ou: "forwarded_cert_ou",
  remote: "remote_addr",
  redirect: "redirect",
} as const;

const text = (context: CallContext, name: string): string => {
  const [value] = context.metadata.get(name);
  return typeof value === "string" ? value : "";
};

/** What to send along with a call that is passed on. */
export function forwardingMetadata(caller: Identity | undefined, from: string): Record<string, string> {
  return {
    [key.redirect]: from,
    [key.forwarded]: "true",
    [key.cn]: caller?.cn ?? "",
    [key.org]: caller?.o ?? "",
    [key.ou]: caller?.ou ?? "",
    [key.remote]: from,
  };
}

export const isForwarded = (context: CallContext): boolean => text(context, key.redirect) !== "";

/** Refuses to pass on what was passed on already. */
export function refuseSecondHop(context: CallContext): void {
  const from = text(context, key.redirect);
  if (from) throw new GrpcError(status.RESOURCE_EXHAUSTED, `more than one redirect to leader from: ${from}`);
}

export class Callers {
  readonly #direct: (context: CallContext) => Identity | undefined;
  readonly #forwarded = new WeakMap<CallContext, { identity: Identity | undefined }>();

  /** `direct`: whose certificate the connection showed. */
  constructor(direct: (context: CallContext) => Identity | undefined) {
    this.#direct = direct;
  }

  readonly identityOf = (context: CallContext): Identity | undefined => {
    const forwarded = this.#forwarded.get(context);
    return forwarded ? forwarded.identity : this.#direct(context);
  };

  /**
   * The call as its first caller made it. Throws PERMISSION_DENIED when it was passed on by anyone but a manager. One
   * that was just demoted may still speak for itself, to get a worker's certificate.
   */
  unwrap(context: CallContext, authority: Authority): CallContext {
    if (text(context, key.forwarded) !== "true") return context;
    const from = authority.require(context, NODES);
    const demoted = authority.isDemoted(from);
    if (!demoted) authority.require(context, MANAGERS);
    const cn = text(context, key.cn);
    if (demoted && cn !== from.cn) throw new GrpcError(status.UNAVAILABLE, "the manager that passed this on is none");
    const identity = cn ? { cn, o: text(context, key.org), ou: text(context, key.ou) } : undefined;
    const inner = { ...context, peer: text(context, key.remote) || context.peer };
    this.#forwarded.set(inner, { identity: demoted ? from : identity });
    return inner;
  }
}
