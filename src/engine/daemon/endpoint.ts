/** Where the API is served: unix sockets, and TCP with certificates on both sides. */
import { isIP } from "node:net";
import { invalid } from "../../base/errors.ts";

/** Paths of PEM files. `ca` has signed the clients that are let in. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export type ApiEndpoint =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number; readonly tls: TlsFiles };

/** Longest path of a unix socket. */
const MAX_SOCKET_PATH = 107;
/** Docker's port for the API with TLS. */
const TLS_PORT = 2376;

export function shownEndpoint(endpoint: ApiEndpoint): string {
  if (endpoint.kind === "unix") return `unix://${endpoint.path}`;
  return `tcp://${isIP(endpoint.host) === 6 ? `[${endpoint.host}]` : endpoint.host}:${endpoint.port}`;
}

/** One `--host`. Without TLS files TCP is refused: whoever reaches the API is root on this host. */
export function parseEndpoint(text: string, tls: TlsFiles | undefined): ApiEndpoint {
  const scheme = /^([a-z]+):\/\//.exec(text)?.[1] ?? "unix";
  const rest = text.replace(/^[a-z]+:\/\//, "");
  switch (scheme) {
    case "unix":
      return { kind: "unix", path: socketPath(rest) };
    case "tcp": {
      if (!tls) {
        throw invalid(
          `--host ${text}: who reaches the API is root on this host; on TCP it is served with --tlsverify only (and --tlscacert, --tlscert, --tlskey)`,
        );
      }
      const match = /^(?:\[([^\]]*)\]|([^:/]*))(?::(\d{1,5}))?\/?$/.exec(rest);
      const port = Number(match?.[3] ?? TLS_PORT);
      const six = match?.[1];
      if (!match || port < 1 || port > 65535 || (six !== undefined && isIP(six) !== 6)) {
        throw invalid(`invalid bind address (${text}): want tcp://ADDRESS:PORT`);
      }
      return { kind: "tcp", host: six ?? (match[2] || "0.0.0.0"), port, tls };
    }
    default:
      throw invalid(`--host ${text}: unix:// and tcp:// are served, ${scheme}:// is not`);
  }
}

function socketPath(path: string): string {
  if (!path.startsWith("/")) throw invalid(`--host must be an absolute path: ${path}`);
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH)
    throw invalid(`--host: the path of a socket has at most ${MAX_SOCKET_PATH} bytes: ${path}`);
  return path;
}
