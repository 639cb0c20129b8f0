/** Addresses of devices. */
import { fromBytes, parseCidr, toBytes } from "../inet.ts";
import { AF_INET, AF_INET6 } from "../libc.ts";
import { attributes, Builder, type Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from "../netlink/codec.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import type { Addr, AddrOptions } from "../types.ts";
import { scopeName, scopeNumber } from "./scope.ts";

const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_FLAGS = 8;
const IFA_F_NODAD = 2;

/** struct ifaddrmsg */
function header(family: number, prefix: number, link: number, scope: Addr["scope"] = "global"): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt8(family, 0);
  bytes.writeUInt8(prefix, 1);
  bytes.writeUInt8(scopeNumber(scope), 3);
  bytes.writeUInt32LE(link, 4);
  return bytes;
}

export function list(socket: NetlinkSocket): Addr[] {
  return socket.dump("list addresses", RTM_GETADDR, new Builder(header(0, 0, 0))).flatMap((message) => {
    const addr = parse(message);
    return addr ? [addr] : [];
  });
}

function parse({ type, body }: Message): Addr | undefined {
  const family = body.readUInt8(0);
  if (type !== RTM_NEWADDR || (family !== AF_INET && family !== AF_INET6)) return undefined;
  const attrs = attributes(body, 8);
  const address = attrs.get(IFA_LOCAL) ?? attrs.get(IFA_ADDRESS);
  if (!address) return undefined;
  return {
    link: body.readUInt32LE(4),
    family: family === AF_INET ? 4 : 6,
    address: fromBytes(address),
    prefix: body.readUInt8(1),
    scope: scopeName(body.readUInt8(3)),
  };
}

function message(link: number, address: string, prefix: number, scope?: Addr["scope"]): Builder {
  const { family } = parseCidr(address);
  const bytes = toBytes(address);
  return new Builder(header(family === 4 ? AF_INET : AF_INET6, prefix, link, scope))
    .attr(IFA_LOCAL, bytes)
    .attr(IFA_ADDRESS, bytes);
}

export function add(socket: NetlinkSocket, link: number, address: string, prefix: number, options: AddrOptions): void {
  const builder = message(link, address, prefix, options.scope);
  const bytes = toBytes(address);
  if (bytes.length === 4 && prefix < 31) {
    const hosts = 2 ** (32 - prefix) - 1;
    const broadcast = Buffer.alloc(4);
    broadcast.writeUInt32BE((bytes.readUInt32BE() | hosts) >>> 0);
    builder.attr(IFA_BROADCAST, broadcast);
  }
  if (bytes.length === 16 && options.nodad) builder.u32(IFA_FLAGS, IFA_F_NODAD);
  const flags = NLM_F_CREATE | (options.replace ? NLM_F_REPLACE : NLM_F_EXCL);
  socket.request(`add address ${address}/${prefix}`, RTM_NEWADDR, flags, builder);
}

export function del(socket: NetlinkSocket, link: number, address: string, prefix: number): void {
  socket.request(`delete address ${address}/${prefix}`, RTM_DELADDR, 0, message(link, address, prefix));
}
