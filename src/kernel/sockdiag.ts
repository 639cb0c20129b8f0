/** TCP sockets of a namespace (sock_diag): who listens, and what its connections are doing. */
import { AF_INET, AF_INET6 } from "./libc.ts";
import { attributes, Builder } from "./netlink/codec.ts";
import { NetlinkSocket } from "./netlink/socket.ts";
import type { NetNs, TcpSocket } from "./types.ts";

const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
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
