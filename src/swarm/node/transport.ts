/** Connections to managers: without a certificate while joining, under mutual TLS from then on. */
import { Channel, credentials } from "../../base/grpc.ts";

/** Names in the managers' certificates that a client asks for. */
const caName = "swarm-ca";
const managerName = "swarm-manager";

const common = {
  // Each channel has its own TCP connection: closing it closes that, and a new one dials at once.
  "grpc.use_local_subchannel_pool": 1,
  "grpc.enable_http_proxy": 0,
} as const;

function named(name: string) {
  return { ...common, "grpc.ssl_target_name_override": name, "grpc.default_authority": name };
}

/** Trusts anybody: only for fetching the root certificate, which is checked against the token. */
export function unverifiedConnection(addr: string): Channel {
  return new Channel(addr, credentials.createSsl(null, null, null, { rejectUnauthorized: false }), named(caName));
}

/** A caller without a certificate, to a manager of this root. */
export function anonymousConnection(addr: string, rootPem: string): Channel {
  return new Channel(addr, credentials.createSsl(Buffer.from(rootPem)), named(caName));
}

/** A node of the swarm. */
export function nodeConnection(addr: string, node: { rootPem: string; certPem: string; keyPem: string }): Channel {
  const { rootPem, certPem, keyPem } = node;
  return new Channel(
    addr,
    credentials.createSsl(Buffer.from(rootPem), Buffer.from(keyPem), Buffer.from(certPem)),
    named(managerName),
  );
}
