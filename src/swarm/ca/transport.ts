/**
 * Connections to managers: without a certificate while joining, under mutual TLS from then on.
 *
 * The manager's chain is judged by our own rules, not by OpenSSL's: while a swarm's root is being rotated, managers
 * show a leaf of the new root together with the new root cross-signed by the old one. Both roots are called
 * "swarm-ca" and the cross-signed one carries its own key id as its authority's, so OpenSSL takes it for
 * self-signed and refuses ("self-signed certificate in certificate chain"); Go does not.
 */
import { X509Certificate } from "node:crypto";
import { createSecureContext, TLSSocket } from "node:tls";
import { Channel, type ChannelCredentials, credentials } from "../../base/grpc.ts";
import { chainOf, verifyChain } from "./certificates.ts";

/** Names in the managers' certificates that a client asks for. */
const caName = "swarm-ca";
const managerName = "swarm-manager";

/** Says why a peer is refused, or undefined. */
type Judge = (socket: TLSSocket) => string | undefined;

/** Trusts anybody: only for fetching the root certificate, which is checked against the token. */
export function unverifiedConnection(addr: string): Channel {
  return open(addr, caName, {}, () => undefined);
}

/** A caller without a certificate, to a manager of this root. */
export function anonymousConnection(addr: string, rootPem: string): Channel {
  return open(addr, caName, {}, managerOf(rootPem, caName));
}

/** A node of the swarm. */
export function nodeConnection(addr: string, node: { rootPem: string; certPem: string; keyPem: string }): Channel {
  const { rootPem, certPem, keyPem } = node;
  return open(addr, managerName, { cert: certPem, key: keyPem }, managerOf(rootPem, managerName));
}

function managerOf(rootPem: string, name: string): Judge {
  return (socket) => {
    // Asked for once: node gives the chain to the first who asks.
    const chain = chainOf(socket);
    const reason = verifyChain(chain, rootPem, Date.now(), "server");
    if (reason) return reason;
    const leaf = chain[0] && new X509Certificate(chain[0]);
    return leaf?.checkHost(name) === undefined ? `the certificate is not one of ${name}` : undefined;
  };
}

function open(addr: string, name: string, own: { cert?: string; key?: string }, judge: Judge): Channel {
  const context = createSecureContext({ ...own, minVersion: "TLSv1.2" });
  const channelCredentials = credentials.createFromSecureContext(context, { rejectUnauthorized: false });
  return new Channel(addr, judged(channelCredentials, judge), {
    "grpc.ssl_target_name_override": name,
    "grpc.default_authority": name,
    // Each channel has its own TCP connection: closing it closes that, and a new one dials at once.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_http_proxy": 0,
  });
}

/** Credentials whose connections are handed over only after `judge` agreed to the peer. */
function judged(inner: ChannelCredentials, judge: Judge): ChannelCredentials {
  const createConnector = inner._createSecureConnector.bind(inner);
  inner._createSecureConnector = (...args) => {
    const connector = createConnector(...args);
    return {
      waitForReady: () => connector.waitForReady(),
      getCallCredentials: () => connector.getCallCredentials(),
      destroy: () => connector.destroy(),
      async connect(socket) {
        const connected = await connector.connect(socket);
        const refusal = connected.socket instanceof TLSSocket ? judge(connected.socket) : "the connection is not TLS";
        if (refusal === undefined) return connected;
        connected.socket.destroy();
        throw new Error(`the manager is not trusted: ${refusal}`);
      },
    };
  };
  return inner;
}
