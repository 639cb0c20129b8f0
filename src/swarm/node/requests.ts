/** From what a user asked to what the node keeps of it. */
import { invalid } from "../../base/errors.ts";
import type { InitRequest, JoinRequest } from "../types.ts";
import { defaultPort, formatHostPort, type HostPort, parseHostPort } from "./addresses.ts";
import type { NodeState } from "./state-file.ts";

const anyHost = "0.0.0.0";

/** Any address is one of both families where others are told an IPv6 one. (Go listens so whenever it can.) */
const listening = (listen: HostPort, advertised: HostPort): HostPort =>
  listen.host === anyHost && advertised.host.includes(":") ? { ...listen, host: "::" } : listen;

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
