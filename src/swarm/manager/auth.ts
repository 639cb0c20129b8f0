/** Who may call what. Refusals are PERMISSION_DENIED, as a Docker node expects. */
import type { DescService } from "@bufbuild/protobuf";
import { GrpcError, status } from "../../base/grpc.ts";
import type { CallContext, Handlers } from "../../base/grpc-server.ts";
import { type Identity, MANAGER_OU, WORKER_OU } from "../ca/certificates.ts";

export const MANAGERS = [MANAGER_OU];
export const NODES = [MANAGER_OU, WORKER_OU];

export interface Authority {
  /** The caller, when it showed a certificate of this swarm's CA. */
  caller(context: CallContext): Identity | undefined;
  /** The caller with one of these roles; throws PERMISSION_DENIED otherwise. */
  require(context: CallContext, roles: readonly string[]): Identity;
  /** Holds a manager's certificate, and is none any more. */
  isDemoted(caller: Identity): boolean;
}

/** What became of a node after its certificate was issued. */
export interface Standing {
  /** Its certificate was withdrawn. */
  blacklisted(nodeId: string): boolean;
  /** It was made a worker: a manager's certificate that it kept makes it none. */
  demoted(nodeId: string): boolean;
}

export function createAuthority(
  identityOf: (context: CallContext) => Identity | undefined,
  clusterId: string,
  { blacklisted, demoted }: Standing,
): Authority {
  const isDemoted = ({ cn, ou }: Identity) => ou === MANAGER_OU && demoted(cn);
  const denied = (why: string) => new GrpcError(status.PERMISSION_DENIED, `Permission denied: ${why}`);
  return {
    caller: identityOf,
    require(context, roles) {
      const caller = identityOf(context);
      if (!caller) throw denied("unauthorized peer role: no client certificates in request");
      if (caller.o !== clusterId) {
        throw denied(`unauthorized peer role: remote certificate organization: ${caller.o}, expected: ${clusterId}`);
      }
      if (blacklisted(caller.cn)) throw denied(`node ${caller.cn} was removed from swarm`);
      const role = isDemoted(caller) ? WORKER_OU : caller.ou;
      if (!roles.includes(role)) {
        throw denied(`unauthorized peer role: remote certificate role: ${role}, expected one of: ${roles.join(", ")}`);
      }
      return caller;
    },
    isDemoted,
  };
}

/** The handlers of a service, each behind a check of the caller's role. */
export function guarded<S extends DescService>(
  authority: Authority,
  roles: readonly string[],
  handlers: Handlers<S>,
): Handlers<S> {
  const result: Record<string, unknown> = {};
  for (const [name, handler] of Object.entries(handlers)) {
    result[name] = (input: unknown, context: CallContext) => {
      authority.require(context, roles);
      return (handler as (input: unknown, context: CallContext) => unknown)(input, context);
    };
  }
  return result as Handlers<S>;
}
