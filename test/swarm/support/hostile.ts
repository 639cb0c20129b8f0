/** What hostile peers of a manager do: certificates of any kind, connections of any kind, frames by hand. */
import http2 from "node:http2";
import { connect as connectTcp, createServer, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { NodeCA } from "#proto/docker/swarmkit/ca_pb.js";
import { Channel, credentials } from "../../../src/base/grpc.ts";
import { createCsr, type NodeOu, type RootCa, signCsr } from "../../../src/swarm/ca/certificates.ts";

export interface Pair {
  readonly certPem: string;
  readonly keyPem: string;
}

/** A certificate by any root, for anybody, issued at any time (wall milliseconds). */
export async function forge(
  root: RootCa,
  who: { cn: string; ou: string; o: string; now?: number; expiryMs?: number },
): Promise<Pair> {
  const { csrPem, keyPem } = await createCsr();
  const certPem = await signCsr({ root, csrPem, ...who, ou: who.ou as NodeOu });
  return { certPem, keyPem };
}

/** Joins with a token as a Docker node does. */
export async function join(addr: string, rootPem: string, token: string): Promise<Pair & { readonly nodeId: string }> {
  const channel = grpcTo(addr, rootPem, undefined, "swarm-ca");
  try {
    const ca = channel.client(NodeCA);
    const { csrPem, keyPem } = await createCsr();
    const { nodeId } = await ca.issueNodeCertificate({ csr: Buffer.from(csrPem), token }, { timeoutMs: 5_000 });
    const { certificate } = await ca.nodeCertificateStatus({ nodeId }, { timeoutMs: 5_000 });
    return { nodeId, keyPem, certPem: Buffer.from(certificate?.certificate ?? []).toString() };
  } finally {
    channel.close();
  }
}

/** A gRPC connection of its own. */
export function grpcTo(addr: string, rootPem: string, pair?: Pair, name = "swarm-manager"): Channel {
  const key = pair ? Buffer.from(pair.keyPem) : null;
  const cert = pair ? Buffer.from(pair.certPem) : null;
  return new Channel(addr, credentials.createSsl(Buffer.from(rootPem), key, cert), {
    "grpc.ssl_target_name_override": name,
    "grpc.default_authority": name,
    "grpc.use_local_subchannel_pool": 1,
  });
}

const where = (addr: string) => ({ host: addr.split(":")[0] ?? "", port: Number(addr.split(":")[1]) });

/** A TLS connection; rejects when the manager hangs up on it before it sent anything. */
export function tlsTo(addr: string, pair?: Pair, options: { alpn?: string; from?: string } = {}): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({
      ...where(addr),
      ...(pair && { cert: pair.certPem, key: pair.keyPem }),
      ...(options.from !== undefined && { localAddress: options.from }),
      ALPNProtocols: [options.alpn ?? "h2"],
      rejectUnauthorized: false,
    });
    socket.once("secureConnect", () => resolve(socket));
    socket.once("error", reject);
  });
}

/** True when the manager ends the connection within two seconds. */
export function closes(socket: Socket): Promise<boolean> {
  if (socket.destroyed) return Promise.resolve(true);
  socket.resume();
  return new Promise((resolve) => {
    const done = (gone: boolean) => {
      clearTimeout(late);
      socket.destroy();
      resolve(gone);
    };
    const late = setTimeout(() => done(false), 2_000);
    socket.once("close", () => done(true));
    socket.once("error", () => done(true));
  });
}

/** True when it does so without a byte. */
export async function hungUp(socket: Socket): Promise<boolean> {
  let silent = true;
  socket.once("data", () => {
    silent = false;
  });
  return (await closes(socket)) && silent;
}

/** A TCP connection that never says anything. */
export function silentTo(addr: string, from: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectTcp({ ...where(addr), localAddress: from }, () => resolve(socket));
    socket.once("error", reject);
  });
}

export interface RawAnswer {
  /** gRPC's status; -1 when the stream or the connection ended without one. */
  readonly status: number;
  readonly message: string;
}

/** HTTP/2 by hand on a TLS connection. */
export class RawHttp2 {
  readonly session: http2.ClientHttp2Session;

  constructor(socket: TLSSocket) {
    this.session = http2.connect("https://swarm-manager", { createConnection: () => socket });
    this.session.on("error", () => {});
  }

  /** Begins a call; `length` is what the message's frame claims. Nothing ends it. */
  begin(path: string, headers: http2.OutgoingHttpHeaders = {}): http2.ClientHttp2Stream {
    const stream = this.session.request({
      ...{
        ":method": "POST",
        ":path": `/docker.swarmkit.v1.${path}`,
        "content-type": "application/grpc",
        te: "trailers",
      },
      ...headers,
    });
    stream.on("error", () => {});
    return stream;
  }

  /** One call with this message as its bytes. */
  call(
    path: string,
    message: Uint8Array,
    headers: http2.OutgoingHttpHeaders = {},
    compressed = false,
  ): Promise<RawAnswer> {
    const stream = this.begin(path, headers);
    stream.resume();
    const told = answerOf(stream);
    stream.write(frameHead(message.length, compressed));
    stream.end(message);
    return told;
  }

  close(): void {
    this.session.destroy();
  }
}

export function frameHead(length: number, compressed = false): Buffer {
  const head = Buffer.alloc(5);
  head[0] = compressed ? 1 : 0;
  head.writeUInt32BE(length, 1);
  return head;
}

function answerOf(stream: http2.ClientHttp2Stream): Promise<RawAnswer> {
  return new Promise((resolve) => {
    const told = (headers: http2.IncomingHttpHeaders) => {
      if (headers["grpc-status"] === undefined) return;
      resolve({
        status: Number(headers["grpc-status"]),
        message: decodeURIComponent(String(headers["grpc-message"] ?? "")),
      });
    };
    stream.on("response", told);
    stream.on("trailers", told);
    stream.on("close", () => resolve({ status: -1, message: `stream closed (${stream.rstCode})` }));
  });
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}
