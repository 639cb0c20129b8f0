/**
 * The connection table (ctnetlink). Changing a map of backends does not move live connections: they follow
 * their entry here until it is deleted.
 */
import { KernelError } from "./error.ts";
import { fromBytes, toBytes } from "./inet.ts";
import { AF_INET, AF_INET6 } from "./libc.ts";
import { type Attributes, attributes, Builder, type Message, nested } from "./netlink/codec.ts";
import { NETLINK_NETFILTER, NetlinkSocket } from "./netlink/socket.ts";
import type { Conntrack, ConntrackFilter, ConntrackFlow, NetNs, TrackingLosses } from "./types.ts";

const CTNETLINK = 1 << 8;
const CT_GET = CTNETLINK | 1;
const CT_DELETE = CTNETLINK | 2;
const CT_GET_STATS_CPU = CTNETLINK | 4;
const CT_GET_STATS = CTNETLINK | 5;

const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_MARK = 8;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_FILTER = 25;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
const FILTER_IP_SRC = 1;
const FILTER_IP_DST = 2;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_V4_SRC = 1;
const CTA_IP_V4_DST = 2;
const CTA_IP_V6_SRC = 3;
const CTA_IP_V6_DST = 4;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_SRC_PORT = 2;
const CTA_PROTO_DST_PORT = 3;
const CTA_STATUS = 3;
const IPS_SEEN_REPLY = 1 << 1;
const CTA_STATS_GLOBAL_ENTRIES = 1;
const CTA_STATS_DROP = 10;
const CTA_STATS_EARLY_DROP = 11;

/** Deletions per system call: their acknowledgements must fit the socket's buffer. */
const BATCH = 100;

/** struct nfgenmsg */
const header = (family: number) => Buffer.from([family, 0, 0, 0]);

/** Opens the connection table of `ns`, default the thread's own namespace. */
export function openConntrack(ns?: NetNs): Conntrack {
  const open = () => new NetlinkSocket(NETLINK_NETFILTER);
  return new Table(ns ? ns.run(open) : open());
}

class Table implements Conntrack {
  #socket: NetlinkSocket;

  constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  flush(filter: ConntrackFilter): number {
    return this.take(filter).length;
  }

  take(filter: ConntrackFilter): ConntrackFlow[] {
    // Listing walks the table of the whole machine, all namespaces' connections: not for a namespace that has none.
    if (this.count() === 0) return [];
    const family = filter.family === 4 ? AF_INET : AF_INET6;
    const matches = matcher(filter);
    const found = this.#dump(family, filter)
      .map(({ body }) => attributes(body, 4))
      .filter(matches);
    const deleted: ConntrackFlow[] = [];
    for (let at = 0; at < found.length; at += BATCH) {
      const batch = found.slice(at, at + BATCH);
      const errors = this.#socket.batch(
        "delete connections",
        batch.map((entry) => ({ type: CT_DELETE, flags: 0, builder: deletion(family, entry) })),
      );
      for (const [index, error] of errors.entries()) {
        const entry = batch[index];
        if (!error && entry) deleted.push(flowOf(entry));
        // Gone by itself in between.
        else if (error && error.code !== "ENOENT") throw error;
      }
    }
    return deleted;
  }

  /** Kernels before 5.8 ignore or refuse the filter: what comes is always matched here again. */
  #dump(family: number, filter: ConntrackFilter): Message[] {
    try {
      return this.#socket.dump("list connections", CT_GET, filtered(family, filter));
    } catch (error) {
      if (!(error instanceof KernelError) || !["EINVAL", "EOPNOTSUPP"].includes(error.code)) throw error;
      return this.#socket.dump("list connections", CT_GET, new Builder(header(family)));
    }
  }

  count(): number {
    const [message] = this.#socket.request("count connections", CT_GET_STATS, 0, new Builder(header(0)));
    return (message && attributes(message.body, 4).get(CTA_STATS_GLOBAL_ENTRIES)?.readUInt32BE()) ?? 0;
  }

  losses(): TrackingLosses {
    const cpus = this.#socket
      .dump("connection statistics", CT_GET_STATS_CPU, new Builder(header(0)))
      .map(({ body }) => attributes(body, 4));
    const sum = (what: number) => cpus.reduce((all, cpu) => all + (cpu.get(what)?.readUInt32BE() ?? 0), 0);
    return { refused: sum(CTA_STATS_DROP), displaced: sum(CTA_STATS_EARLY_DROP) };
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

function flowOf(entry: Attributes): ConntrackFlow {
  const orig = nested(entry, CTA_TUPLE_ORIG);
  const ip = nested(orig, CTA_TUPLE_IP);
  const proto = nested(orig, CTA_TUPLE_PROTO);
  const address = (v4: number, v6: number) => {
    const bytes = ip.get(v4) ?? ip.get(v6);
    return bytes ? fromBytes(bytes) : "";
  };
  return {
    protocol: proto.get(CTA_PROTO_NUM)?.readUInt8() ?? 0,
    src: address(CTA_IP_V4_SRC, CTA_IP_V6_SRC),
    dst: address(CTA_IP_V4_DST, CTA_IP_V6_DST),
    srcPort: proto.get(CTA_PROTO_SRC_PORT)?.readUInt16BE() ?? 0,
    dstPort: proto.get(CTA_PROTO_DST_PORT)?.readUInt16BE() ?? 0,
    answered: ((entry.get(CTA_STATUS)?.readUInt32BE() ?? 0) & IPS_SEEN_REPLY) !== 0,
  };
}

/** By the original tuple and the entry's id, so that a new connection of the same tuple is left alone. */
function deletion(family: number, entry: Attributes): Builder {
  const builder = new Builder(header(family));
  const tuple = entry.get(CTA_TUPLE_ORIG);
  const id = entry.get(CTA_ID);
  const zone = entry.get(CTA_ZONE);
  if (tuple) builder.attr(CTA_TUPLE_ORIG | 0x8000, tuple);
  if (id) builder.attr(CTA_ID, id);
  if (zone) builder.attr(CTA_ZONE, zone);
  return builder;
}

/** A request for the entries with the filter's addresses only. */
function filtered(family: number, filter: ConntrackFilter): Builder {
  const [src, dst] = filter.family === 4 ? [CTA_IP_V4_SRC, CTA_IP_V4_DST] : [CTA_IP_V6_SRC, CTA_IP_V6_DST];
  const builder = new Builder(header(family));
  const tuple = (type: number, from: string | undefined, to: string | undefined): number => {
    if (from === undefined && to === undefined) return 0;
    builder.nest(type, (inner) => {
      inner.nest(CTA_TUPLE_IP, (ip) => {
        if (from !== undefined) ip.attr(src, toBytes(from));
        if (to !== undefined) ip.attr(dst, toBytes(to));
      });
    });
    return (from === undefined ? 0 : FILTER_IP_SRC) | (to === undefined ? 0 : FILTER_IP_DST);
  };
  const orig = tuple(CTA_TUPLE_ORIG, filter.origSrc, filter.origDst);
  const sources = [filter.replySrc ?? []].flat();
  const reply = sources.length === 1 ? tuple(CTA_TUPLE_REPLY, sources[0], undefined) : 0;
  if (orig || reply) {
    builder.nest(CTA_FILTER, (flags) => {
      if (orig) flags.u32(CTA_FILTER_ORIG_FLAGS, orig);
      if (reply) flags.u32(CTA_FILTER_REPLY_FLAGS, reply);
    });
  }
  return builder;
}

function matcher(filter: ConntrackFilter): (entry: Attributes) => boolean {
  const origSrc = filter.origSrc === undefined ? undefined : toBytes(filter.origSrc);
  const origDst = filter.origDst === undefined ? undefined : toBytes(filter.origDst);
  const replySrc =
    filter.replySrc && new Set([filter.replySrc].flat().map((address) => toBytes(address).toString("latin1")));
  const [src, dst] = filter.family === 4 ? [CTA_IP_V4_SRC, CTA_IP_V4_DST] : [CTA_IP_V6_SRC, CTA_IP_V6_DST];
  const { mark, protocol, origDstPort } = filter;
  return (entry) => {
    const orig = nested(entry, CTA_TUPLE_ORIG);
    if (origSrc || origDst) {
      const ip = nested(orig, CTA_TUPLE_IP);
      if (origSrc && !ip.get(src)?.equals(origSrc)) return false;
      if (origDst && !ip.get(dst)?.equals(origDst)) return false;
    }
    if (replySrc) {
      const ip = nested(nested(entry, CTA_TUPLE_REPLY), CTA_TUPLE_IP);
      if (!replySrc.has(ip.get(src)?.toString("latin1") ?? "")) return false;
    }
    if (protocol !== undefined || origDstPort !== undefined) {
      const proto = nested(orig, CTA_TUPLE_PROTO);
      if (protocol !== undefined && proto.get(CTA_PROTO_NUM)?.readUInt8() !== protocol) return false;
      if (origDstPort !== undefined && proto.get(CTA_PROTO_DST_PORT)?.readUInt16BE() !== origDstPort) return false;
    }
    if (mark) {
      const value = entry.get(CTA_MARK)?.readUInt32BE() ?? 0;
      if ((value & mark.mask) >>> 0 !== (mark.value & mark.mask) >>> 0) return false;
    }
    return true;
  };
}
