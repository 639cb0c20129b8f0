/**
 * ICMP echoes of a chosen size that may not be fragmented: whether packets of that size reach another host. Path MTU
 * discovery's memory is neither asked nor fed (IP_PMTUDISC_PROBE), so that a path which has grown is seen again.
 */

import { type Clock, sleep } from "../base/clock.ts";
import { errnoOf } from "../base/errors.ts";
import { familyOf, sockaddr } from "./inet.ts";
import * as libc from "./libc.ts";
import type { NetNs } from "./types.ts";

const IPPROTO_IP = 0;
const IPPROTO_ICMP = 1;
const IPPROTO_IPV6 = 41;
const IPPROTO_ICMPV6 = 58;
const IP_MTU_DISCOVER = 10;
const IPV6_MTU_DISCOVER = 23;
const PMTUDISC_PROBE = 3;
const headers = { 4: 20, 6: 40 } as const;
const icmpHeader = 8;
const types = { 4: { request: 8, reply: 0 }, 6: { request: 128, reply: 129 } } as const;
const firstPollMs = 1;
const mostPollMs = 20;

export interface EchoOptions {
  readonly from: string;
  readonly to: string;
  /** Of the whole IP packet, bytes. */
  readonly size: number;
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** Where to send from; default the process's namespace. */
  readonly ns?: NetNs;
  readonly signal?: AbortSignal;
}

let sequence = 0;

/** True when the other host answered in time, false when it did not or the packet is too big to be sent. */
export async function echo(options: EchoOptions): Promise<boolean> {
  const family = familyOf(options.to);
  const fd = options.ns ? options.ns.run(() => open(options)) : open(options);
  try {
    const packet = request(family, options.size);
    try {
      libc.send(fd, packet);
    } catch (error) {
      if (["EMSGSIZE", "EHOSTUNREACH", "ENETUNREACH", "ENOBUFS", "EPERM"].includes(errnoOf(error) ?? "")) return false;
      throw error;
    }
    return await answered(fd, family, packet, options);
  } finally {
    libc.close(fd);
  }
}

function open({ from, to }: EchoOptions): number {
  const v4 = familyOf(to) === 4;
  const type = libc.SOCK_RAW | libc.SOCK_NONBLOCK;
  const fd = libc.socket(v4 ? libc.AF_INET : libc.AF_INET6, type, v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
  try {
    if (v4) libc.setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE);
    else libc.setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE);
    libc.bind(fd, sockaddr(from, 0), `bind ${from}`);
    // From now on only what this host sends is received.
    libc.connect(fd, sockaddr(to, 0), `connect ${to}`);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** ICMP header and zeros; for IPv6 the kernel fills in the checksum. */
function request(family: 4 | 6, size: number): Buffer {
  const packet = Buffer.alloc(Math.max(icmpHeader, size - headers[family]));
  packet.writeUInt8(types[family].request, 0);
  packet.writeUInt16BE(process.pid & 0xffff, 4);
  sequence = (sequence + 1) & 0xffff;
  packet.writeUInt16BE(sequence, 6);
  if (family === 4) {
    let sum = 0;
    for (let at = 0; at < icmpHeader; at += 2) sum += packet.readUInt16BE(at);
    packet.writeUInt16BE(~((sum & 0xffff) + (sum >> 16)) & 0xffff, 2);
  }
  return packet;
}

async function answered(fd: number, family: 4 | 6, sent: Buffer, options: EchoOptions): Promise<boolean> {
  const { clock, timeoutMs, signal } = options;
  const until = clock.steady() + timeoutMs;
  const buffer = Buffer.alloc(1 << 16);
  for (let wait = firstPollMs; ; wait = Math.min(mostPollMs, wait * 2)) {
    for (let length = received(fd, buffer); length >= 0; length = received(fd, buffer)) {
      // Raw sockets of IPv4 give the IP header along.
      const at = family === 4 ? ((buffer[0] ?? 0) & 15) * 4 : 0;
      if (length < at + icmpHeader || buffer[at] !== types[family].reply) continue;
      if (buffer.compare(sent, 4, icmpHeader, at + 4, at + icmpHeader) === 0) return true;
    }
    const left = until - clock.steady();
    if (left <= 0) return false;
    await sleep(clock, Math.min(wait, left), signal);
  }
}

/** -1 when nothing is there. What ICMP says against the path (EMSGSIZE, unreachable) is an answer that will not come. */
function received(fd: number, buffer: Buffer): number {
  try {
    return libc.recv(fd, buffer);
  } catch {
    return -1;
  }
}
