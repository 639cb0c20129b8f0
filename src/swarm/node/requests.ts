/** From what a user asked to what the node keeps of it. */
import type { ClusterSpec } from "#proto/docker/swarmkit/specs_pb.js";
import { invalid, SkeinError } from "../../base/errors.ts";
import { checkCluster } from "../manager/control/cluster.ts";
import type { InitRequest, JoinRequest } from "../types.ts";
import { defaultPort, formatHostPort, type HostPort, parseHostPort } from "./addresses.ts";
import type { NodeState } from "./state-file.ts";

const anyHost = "0.0.0.0";

/** Any address is one of both families where others are told an IPv6 one. (Go listens so whenever it can.) */
const listening = (listen: HostPort, advertised: HostPort): HostPort =>
  listen.host === anyHost && advertised.host.includes(":") ? { ...listen, host: "::" } : listen;

/** Throws what Docker says when it has made the swarm and cannot have it as it is to be; here nothing is made. */
export function checkNewCluster(spec: ClusterSpec): void {
  try {
    checkCluster(spec);
  } catch (error) {
    if (!(error instanceof SkeinError) || error.code !== "invalid") throw error;
    throw invalid(`error updating cluster settings: ${error.message}`);
  }
}

export function stateOfInit(request: InitRequest): NodeState {
  const listen = parseHostPort(request.listenAddr || anyHost);
  const advertise = parseHostPort(request.advertiseAddr, listen.port);
  return {
    listenAddr: formatHostPort(listening(listen, advertise)),
    advertiseAddr: formatHostPort(advertise),
    dataPathAddr: request.dataPathAddr,
    manager: true,
    remotes: [],
  };
}

/** Without an address to advertise, it is the one that the kernel uses towards the manager. */
export async function stateOfJoin(
  request: JoinRequest,
  sourceAddressTo: (remote: HostPort) => Promise<string>,
): Promise<NodeState> {
  const remotes = request.remoteAddrs.map((addr) => parseHostPort(addr, defaultPort));
  const [first] = remotes;
  if (!first) throw invalid("at least 1 RemoteAddr is required to join");
  const listen = parseHostPort(request.listenAddr || anyHost);
  const advertise = request.advertiseAddr
    ? parseHostPort(request.advertiseAddr, listen.port)
    : { host: await sourceAddressTo(first), port: listen.port };
  return {
    listenAddr: formatHostPort(listening(listen, advertise)),
    advertiseAddr: formatHostPort(advertise),
    dataPathAddr: request.dataPathAddr,
    manager: false,
    remotes: [],
    join: {
      remoteAddrs: remotes.map(formatHostPort),
      token: request.joinToken,
      availability: request.availability,
    },
  };
}
