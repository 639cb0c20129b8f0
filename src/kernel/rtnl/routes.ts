/** Routes. */
import { KernelError } from "../error.ts";
import { familyOf, fromBytes, parseCidr, toBytes } from "../inet.ts";
import { AF_INET, AF_INET6 } from "../libc.ts";
import { attributes, Builder, type Message, NLM_F_CREATE, NLM_F_REPLACE, u32Of } from "../netlink/codec.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import type { NewRoute, Route } from "../types.ts";
import { scopeName, scopeNumber } from "./scope.ts";

const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_MULTIPATH = 9;
const RTA_TABLE = 15;
const RT_TABLE_MAIN = 254;
const RTPROT_STATIC = 4;
const RTNH_F_ONLINK = 4;
const RTM_F_CLONED = 0x200;

const PROTOCOLS: Record<number, Exclude<Route["protocol"], number>> = {
  2: "kernel",
  3: "boot",
  4: "static",
  9: "ra",
  16: "dhcp",
};
const TYPES: Record<number, Route["type"]> = {
  1: "unicast",
  2: "local",
  3: "broadcast",
  5: "multicast",
  6: "blackhole",
  7: "unreachable",
  8: "prohibit",
};
const RTN_UNICAST = 1;

interface Header {
  family: number;
  prefix: number;
  table?: number;
  protocol?: number;
  scope?: number;
  type?: number;
  flags?: number;
}

/** struct rtmsg */
function header(h: Header): Buffer {
  const bytes = Buffer.alloc(12);
  const table = h.table ?? 0;
  bytes.set([h.family, h.prefix, 0, 0, table < 256 ? table : 0, h.protocol ?? 0, h.scope ?? 0, h.type ?? 0]);
  bytes.writeUInt32LE(h.flags ?? 0, 8);
  return bytes;
}

/** Every table, `local` included, or one; the kernel's cached clones left out. */
export function list(socket: NetlinkSocket, table?: number): Route[] {
  return [AF_INET, AF_INET6].flatMap((family) => {
    const builder = new Builder(header({ family, prefix: 0, ...(table !== undefined && { table }) }));
    if (table !== undefined) builder.u32(RTA_TABLE, table);
    try {
      return socket.dump("list routes", RTM_GETROUTE, builder).flatMap((message) => {
        const route = parse(message);
        return route && !(message.body.readUInt32LE(8) & RTM_F_CLONED) ? [route] : [];
      });
    } catch (error) {
      // A table without routes is not there, and a kernel without IPv6 has no such dump.
      if (table !== undefined && error instanceof KernelError && error.code === "ENOENT") return [];
      if (family === AF_INET6 && error instanceof KernelError && error.code === "EOPNOTSUPP") return [];
      throw error;
    }
  });
}

function parse({ type, body }: Message): Route | undefined {
  const family = body.readUInt8(0) === AF_INET ? 4 : 6;
  if (type !== RTM_NEWROUTE) return undefined;
  const attrs = attributes(body, 12);
  const dst = attrs.get(RTA_DST);
  const nexthop = firstNexthop(attrs.get(RTA_MULTIPATH));
  const gateway = attrs.get(RTA_GATEWAY) ?? nexthop?.gateway;
  const source = attrs.get(RTA_PREFSRC);
  const protocol = body.readUInt8(5);
  return {
    family,
    dst: dst ? `${fromBytes(dst)}/${body.readUInt8(1)}` : "default",
    ...(gateway && { gateway: fromBytes(gateway) }),
    link: u32Of(attrs, RTA_OIF) ?? nexthop?.link ?? 0,
    ...(source && { source: fromBytes(source) }),
    table: u32Of(attrs, RTA_TABLE) ?? body.readUInt8(4),
    scope: scopeName(body.readUInt8(6)),
    protocol: PROTOCOLS[protocol] ?? protocol,
    metric: u32Of(attrs, RTA_PRIORITY) ?? 0,
    ...(body.readUInt32LE(8) & RTNH_F_ONLINK && { onlink: true }),
    type: TYPES[body.readUInt8(7)] ?? "unicast",
  };
}

/** Routes over several ways are given by their first. */
function firstNexthop(bytes: Buffer | undefined): { link: number; gateway: Buffer | undefined } | undefined {
  if (!bytes || bytes.length < 8) return undefined;
  const attrs = attributes(bytes.subarray(0, bytes.readUInt16LE()), 8);
  return { link: bytes.readInt32LE(4), gateway: attrs.get(RTA_GATEWAY) };
}

function message(route: NewRoute, remove: boolean): Builder {
  const family = route.family ?? familyOf(route.dst === "default" ? (route.gateway ?? "0.0.0.0") : hostOf(route.dst));
  const target = route.dst === "default" ? undefined : parseCidr(route.dst);
  const scope = route.scope ?? (route.gateway || family === 6 ? "global" : "link");
  const table = route.table ?? RT_TABLE_MAIN;
  const builder = new Builder(
    header({
      family: family === 4 ? AF_INET : AF_INET6,
      prefix: target?.prefix ?? 0,
      table,
      // Zero, or RT_SCOPE_NOWHERE, matches any in a deletion.
      protocol: remove ? 0 : RTPROT_STATIC,
      scope: remove && !route.scope ? scopeNumber("nowhere") : scopeNumber(scope),
      type: remove ? 0 : RTN_UNICAST,
      flags: route.onlink ? RTNH_F_ONLINK : 0,
    }),
  ).u32(RTA_TABLE, table);
  if (target) builder.attr(RTA_DST, masked(toBytes(target.address), target.prefix));
  if (route.gateway) builder.attr(RTA_GATEWAY, toBytes(route.gateway));
  if (route.link) builder.u32(RTA_OIF, route.link);
  if (route.source) builder.attr(RTA_PREFSRC, toBytes(route.source));
  if (route.metric) builder.u32(RTA_PRIORITY, route.metric);
  return builder;
}

const hostOf = (cidr: string) => cidr.split("/")[0] ?? "";

/** The kernel refuses destinations with bits beyond the prefix. */
function masked(bytes: Buffer, prefix: number): Buffer {
  return Buffer.from(bytes.map((byte, i) => byte & (0xff00 >> Math.min(8, Math.max(0, prefix - i * 8)))));
}

const describe = (route: NewRoute) => `route ${route.dst}${route.gateway ? ` via ${route.gateway}` : ""}`;

export function set(socket: NetlinkSocket, route: NewRoute): void {
  socket.request(`set ${describe(route)}`, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, message(route, false));
}

/** A route that is not there is no error. */
export function del(socket: NetlinkSocket, route: NewRoute): void {
  try {
    socket.request(`delete ${describe(route)}`, RTM_DELROUTE, 0, message(route, true));
  } catch (error) {
    if (!(error instanceof KernelError && error.code === "ESRCH")) throw error;
  }
}

export function to(socket: NetlinkSocket, address: string): Route | undefined {
  const bytes = toBytes(address);
  const family = bytes.length === 4 ? AF_INET : AF_INET6;
  const builder = new Builder(header({ family, prefix: bytes.length * 8 })).attr(RTA_DST, bytes);
  try {
    const [message] = socket.request(`route to ${address}`, RTM_GETROUTE, 0, builder);
    return message && parse(message);
  } catch (error) {
    if (error instanceof KernelError && (error.code === "ENETUNREACH" || error.code === "EHOSTUNREACH")) {
      return undefined;
    }
    throw error;
  }
}
