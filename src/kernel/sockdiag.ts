/** TCP sockets of a namespace (sock_diag): who listens, what its connections are doing, and their end. */

import { KernelError } from "./error.ts";
import { toBytes } from "./inet.ts";
import { AF_INET, AF_INET6 } from "./libc.ts";
import { attributes, Builder } from "./netlink/codec.ts";
import { NetlinkSocket } from "./netlink/socket.ts";
import type { NetNs, TcpConnection, TcpSocket } from "./types.ts";

const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const IPPROTO_TCP = 6;
const INET_DIAG_INFO = 2;
const ESTABLISHED = 1;
const SYN_RECV = 3;
const LISTEN = 10;
const STATES = (1 << ESTABLISHED) | (1 << SYN_RECV) | (1 << LISTEN);

/** Offsets in struct inet_diag_msg: family, state, timer, retrans, then the ports and addresses, then the queues. */
const AT = { state: 1, localPort: 4, local: 8, receiveQueue: 56, sendQueue: 60, attributes: 72 } as const;
/** Offsets in struct tcp_info; both milliseconds ago. */
const INFO = { sent: 44, received: 52 } as const;

/** Offsets of the socket's id in struct inet_diag_req_v2. */
const ID = { localPort: 8, remotePort: 10, local: 12, remote: 28, cookie: 48 } as const;

/** Listening sockets and connections of `ns`, both families. */
export function tcpSockets(ns: NetNs): TcpSocket[] {
  using socket = ns.run(() => new NetlinkSocket(NETLINK_SOCK_DIAG));
  return [AF_INET, AF_INET6].flatMap((family) =>
    socket.dump("list sockets", SOCK_DIAG_BY_FAMILY, new Builder(request(family))).flatMap(({ body }) => {
      if (body.length < AT.attributes) return [];
      const info = attributes(body, AT.attributes).get(INET_DIAG_INFO);
      const state = body.readUInt8(AT.state);
      return [
        {
          state: state === LISTEN ? "listen" : "connected",
          localPort: body.readUInt16BE(AT.localPort),
          loopback: isLoopback(family, body.subarray(AT.local, AT.local + 16)),
          receiveQueue: body.readUInt32LE(AT.receiveQueue),
          sendQueue: body.readUInt32LE(AT.sendQueue),
          sentMsAgo: info && info.length >= INFO.sent + 4 ? info.readUInt32LE(INFO.sent) : 0,
          receivedMsAgo: info && info.length >= INFO.received + 4 ? info.readUInt32LE(INFO.received) : 0,
        } as const,
      ];
    }),
  );
}

/**
 * Ends connections of `ns` as if they had failed: their programs are told at once (ECONNABORTED), the other side gets a
 * reset. Gives their number; what is no socket here (any more) is none. Kernels without INET_DIAG_DESTROY end none.
 */
export function abortTcp(ns: NetNs, connections: readonly TcpConnection[]): number {
  if (connections.length === 0) return 0;
  using socket = ns.run(() => new NetlinkSocket(NETLINK_SOCK_DIAG));
  let ended = 0;
  for (const { src, srcPort, dst, dstPort } of connections) {
    const [local, remote] = [toBytes(src), toBytes(dst)];
    const bytes = request(local.length === 4 ? AF_INET : AF_INET6);
    bytes.writeUInt16BE(srcPort, ID.localPort);
    bytes.writeUInt16BE(dstPort, ID.remotePort);
    local.copy(bytes, ID.local);
    remote.copy(bytes, ID.remote);
    bytes.fill(0xff, ID.cookie);
    try {
      socket.request("end a connection", SOCK_DESTROY, 0, new Builder(bytes));
      ended++;
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      if (error.code === "EOPNOTSUPP") return ended;
      if (error.code !== "ENOENT") throw error;
    }
  }
  return ended;
}

/** struct inet_diag_req_v2 with an empty socket id. */
function request(family: number): Buffer {
  const bytes = Buffer.alloc(56);
  bytes.writeUInt8(family, 0);
  bytes.writeUInt8(IPPROTO_TCP, 1);
  bytes.writeUInt8(1 << (INET_DIAG_INFO - 1), 2);
  bytes.writeUInt32LE(STATES, 4);
  return bytes;
}

function isLoopback(family: number, address: Buffer): boolean {
  if (family === AF_INET) return address[0] === 127;
  const mapped = address.readUInt32BE(0) === 0 && address.readUInt32BE(4) === 0 && address.readUInt32BE(8) === 0xffff;
  if (mapped) return address[12] === 127;
  return address.subarray(0, 15).every((byte) => byte === 0) && address[15] === 1;
}
