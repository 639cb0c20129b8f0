/** Addresses as users give them: "host", "host:port", "[v6]:port". */
import { createSocket } from "node:dgram";
import { isIP } from "node:net";
import { invalid } from "../../base/errors.ts";

/** The managers' port. */
export const defaultPort = 2377;

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** Throws `invalid` when there is no host or the port is none. */
export function parseHostPort(text: string, port = defaultPort): HostPort {
  const match = isIP(text) === 6 ? undefined : /^(?:\[([^\]]+)\]|([^:]*))(?::(\d+))?$/.exec(text);
  const host = match ? (match[1] ?? match[2] ?? "") : text;
  const given = match?.[3] === undefined ? port : Number(match[3]);
  if ((!match && isIP(text) !== 6) || host === "" || given > 65_535) throw invalid(`Invalid address ${text}`);
  return { host, port: given };
}

export function formatHostPort({ host, port }: HostPort): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Which of this host's addresses the kernel would use towards `host`; nothing is sent. */
export function sourceAddressTo({ host, port }: HostPort): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIP(host) === 6 ? "udp6" : "udp4");
    socket.once("error", (error) => {
      socket.close();
      reject(error);
    });
    socket.connect(port, host, () => {
      const { address } = socket.address();
      socket.close();
      resolve(address);
    });
  });
}
