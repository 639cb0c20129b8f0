/**
 * What a manager says on its port: the services that the leading one answers, here or passed on; health; and the tunnels of
 * the store's members.
 */
import { Health, HealthCheckResponse_ServingStatus } from "#proto/docker/swarmkit/health_pb.js";
import { NodeRole } from "#proto/docker/swarmkit/types_pb.js";
import { DataKeys as DataKeysService } from "#proto/skein/swarm/managers_pb.js";
import type { Clock } from "../../base/clock.ts";
import { errnoOf, messageOf, SkeinError } from "../../base/errors.ts";
import { addService, type CallContext, type Handlers, type Server } from "../../base/grpc-server.ts";
import type { Logger } from "../../base/log.ts";
import { type Identity, MANAGER_OU } from "../ca/certificates.ts";
import type { NodeCredentials } from "../ca/files.ts";
import type { DataKeys } from "../store/data-keys.ts";
import { etcdDir } from "../store/etcd/supervisor.ts";
import { acceptTunnel, TUNNEL_ALPN } from "../store/etcd/tunnel.ts";
import type { Reader } from "../store/memory.ts";
import { type Authority, createAuthority, MANAGERS, type Standing } from "./auth.ts";
import { keyHandlers } from "./key-exchange.ts";
import { Callers, forwardingMetadata, isForwarded, refuseSecondHop } from "./leadership/callers.ts";
import { noLeaderNow } from "./leadership/errors.ts";
import { addRoutedService, type Destination } from "./leadership/forward.ts";
import type { LeaderLink } from "./leadership/leader-link.ts";
import type { Looks } from "./leadership/looks.ts";
import { refusalLog } from "./refusals.ts";
import { type Reign, type ReignHandlers, services } from "./reign.ts";
import { listenManager, type ManagerServer } from "./server.ts";

/** How long a call waits for a leader to be there. */
const CALL_PATIENCE_MS = 4_000;

/** In Go's words. */
const listenFailures: Record<string, string> = {
  EADDRINUSE: "bind: address already in use",
  EADDRNOTAVAIL: "bind: cannot assign requested address",
  EACCES: "bind: permission denied",
};

export interface PortOptions {
  /** "ip:port" to listen on. */
  readonly listenAddr: string;
  /** "ip:port" told to others. */
  readonly addr: () => string;
  readonly nodeId: string;
  readonly clusterId: string;
  readonly stateDir: string;
  readonly credentials: NodeCredentials;
  readonly dataKeys: DataKeys;
  /** The store's objects, once it is open. */
  readonly view: () => Reader | undefined;
  /** While this manager leads. */
  readonly reign: () => Reign | undefined;
  readonly link: LeaderLink;
  readonly looks: Looks;
  /** The others removed this manager. */
  readonly removed: () => boolean;
  readonly closing: AbortSignal;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface Port {
  readonly server: ManagerServer;
  /** Judges callers of this manager, and those that another one speaks for. */
  readonly authority: Authority;
}

type IdentityOf = (context: CallContext) => Identity | undefined;

/** The same for all measures of callers. */
interface Served {
  readonly callers: Callers;
  /** Judges who a call is from, whoever passed it on; and who it came from. */
  readonly authority: Authority;
  readonly direct: Authority;
  readonly refusals: ReturnType<typeof refusalLog>;
}

export async function openPort(options: PortOptions): Promise<Port> {
  const { clock, clusterId, credentials, listenAddr, log, nodeId, stateDir } = options;
  const standing = standingIn(options);
  let served: Served | undefined;
  const tunnels = {
    alpn: TUNNEL_ALPN,
    accept: (socket: Parameters<typeof acceptTunnel>[0], { cn, o, ou }: Identity) => {
      const allowed = ou === MANAGER_OU && o === clusterId && !standing.blacklisted(cn) && !standing.demoted(cn);
      if (allowed) acceptTunnel(socket, etcdDir(stateDir), nodeId);
      else socket.destroy();
    },
  };
  const register = (grpc: Server, identityOf: IdentityOf) => {
    served ??= servedBy(options, standing, identityOf);
    addServices(options, served, grpc);
  };
  try {
    const server = await listenManager(listenAddr, credentials, register, clock, log, tunnels);
    if (!served) throw new Error("no service was registered");
    return { server, authority: served.authority };
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
    const reason = `listen tcp ${listenAddr}: ${listenFailures[errnoOf(error) ?? ""] ?? messageOf(error)}`;
    const message = `manager stopped: failed to listen on remote API address: ${reason}`;
    throw new SkeinError("unavailable", message, { cause: error });
  }
}

function standingIn({ clusterId, view }: PortOptions): Standing {
  return {
    blacklisted: (id) => Object.hasOwn(view()?.get("cluster", clusterId)?.blacklistedCertificates ?? {}, id),
    demoted: (id) => {
      const node = view()?.get("node", id);
      return node?.role === NodeRole.WORKER && node.spec?.desiredRole === NodeRole.WORKER;
    },
  };
}

function servedBy({ clock, closing, clusterId, log }: PortOptions, standing: Standing, identityOf: IdentityOf): Served {
  const callers = new Callers(identityOf);
  return {
    callers,
    authority: createAuthority(callers.identityOf, clusterId, standing),
    direct: createAuthority(identityOf, clusterId, standing),
    refusals: refusalLog(log, clock, closing, identityOf),
  };
}

function addServices(options: PortOptions, served: Served, grpc: Server): void {
  const { authority, refusals } = served;
  for (const [name, service] of Object.entries(services) as [keyof ReignHandlers, never][]) {
    const pick = (handlers: ReignHandlers) => handlers[name] as Handlers<never>;
    addRoutedService(grpc, service, (context) => destination(options, served, context, pick), refusals);
  }
  const health: Handlers<typeof Health> = {
    check: ({ service }, context) => {
      authority.require(context, MANAGERS);
      const serving = service !== "Raft" || options.reign() !== undefined;
      const { NOT_SERVING, SERVING } = HealthCheckResponse_ServingStatus;
      return { status: serving ? SERVING : NOT_SERVING };
    },
  };
  addService(grpc, Health, health, refusals);
  const open = () => options.view() !== undefined && !options.removed() && !options.closing.aborted;
  addService(grpc, DataKeysService, keyHandlers(options.dataKeys, served.direct, open), refusals);
}

/** Where a call is answered: here, or by the manager that leads. Waits a while for one. */
async function destination<H>(
  { addr, clock, closing, link, looks, nodeId, reign, removed }: PortOptions,
  { callers, direct }: Served,
  context: CallContext,
  pick: (handlers: ReignHandlers) => H,
): Promise<Destination<H>> {
  const deadline = clock.steady() + CALL_PATIENCE_MS;
  for (;;) {
    if (context.signal.aborted || closing.aborted || removed()) throw noLeaderNow();
    const here = reign();
    if (here) return { here: pick(here.handlers), context: callers.unwrap(context, direct) };
    // One that was passed on came because this manager leads, or is about to know that it does.
    const leader = isForwarded(context) ? undefined : await link.answering();
    if (leader) {
      const caller = callers.identityOf(context);
      const from = caller?.cn === nodeId ? addr() : context.peer;
      return { channel: leader.channel, metadata: forwardingMetadata(caller, from), signal: leader.gone };
    }
    if (clock.steady() > deadline) {
      refuseSecondHop(context);
      throw noLeaderNow();
    }
    await looks.next().catch(() => {});
  }
}
