/** Network devices: listing, creating, changing. */
import { KernelError } from "../error.ts";
import { fromBytes, macFromBytes, macToBytes } from "../inet.ts";
import { AF_BRIDGE } from "../libc.ts";
import {
  type Attributes,
  attributes,
  Builder,
  be16Of,
  type Message,
  NLM_F_CREATE,
  NLM_F_EXCL,
  nested,
  textOf,
  u8Of,
  u32Of,
} from "../netlink/codec.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import type { Link, LinkChange, NewLink } from "../types.ts";
import { bridgePort, linkData, MACVLAN_MODES } from "./kinds.ts";

const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const RTM_SETLINK = 19;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_PROTINFO = 12;
const IFLA_OPERSTATE = 16;
const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_STATS64 = 23;
const IFLA_NET_NS_FD = 28;
const IFLA_EXT_MASK = 29;
const IFLA_PROMISCUITY = 30;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const RTEXT_FILTER_SKIP_STATS = 8;

const IFF_UP = 1;
const IFF_RUNNING = 0x40;
const OPER_UNKNOWN = 0;
const OPER_UP = 6;

/** struct ifinfomsg */
function header(index = 0, options: { family?: number; flags?: number; change?: number } = {}): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt8(options.family ?? 0, 0);
  bytes.writeInt32LE(index, 4);
  bytes.writeUInt32LE(options.flags ?? 0, 8);
  bytes.writeUInt32LE(options.change ?? 0, 12);
  return bytes;
}

export function list(socket: NetlinkSocket, stats: boolean): Link[] {
  const builder = new Builder(header());
  if (!stats) builder.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  return socket.dump("list links", RTM_GETLINK, builder).flatMap((message) => parse(message, stats) ?? []);
}

export function get(socket: NetlinkSocket, nameOrIndex: string | number): Link | undefined {
  const builder =
    typeof nameOrIndex === "number"
      ? new Builder(header(nameOrIndex))
      : new Builder(header()).text(IFLA_IFNAME, nameOrIndex);
  try {
    const [message] = socket.request(`get link ${nameOrIndex}`, RTM_GETLINK, 0, builder);
    return message && parse(message, true);
  } catch (error) {
    if (error instanceof KernelError && error.code === "ENODEV") return undefined;
    throw error;
  }
}

function parse({ type, body }: Message, stats: boolean): Link | undefined {
  if (type !== RTM_NEWLINK || body.readUInt8() === AF_BRIDGE) return undefined;
  const attrs = attributes(body, 16);
  const flags = body.readUInt32LE(8);
  const info = nested(attrs, IFLA_LINKINFO);
  const kind = textOf(info, IFLA_INFO_KIND) ?? "";
  const data = nested(info, IFLA_INFO_DATA);
  const oper = u8Of(attrs, IFLA_OPERSTATE) ?? OPER_UNKNOWN;
  const address = attrs.get(IFLA_ADDRESS);
  return {
    index: body.readInt32LE(4),
    name: textOf(attrs, IFLA_IFNAME) ?? "",
    kind,
    mac: address?.length === 6 ? macFromBytes(address) : "",
    mtu: u32Of(attrs, IFLA_MTU) ?? 0,
    up: (flags & IFF_UP) !== 0,
    running: (flags & IFF_RUNNING) !== 0 && (oper === OPER_UP || oper === OPER_UNKNOWN),
    master: u32Of(attrs, IFLA_MASTER) ?? 0,
    peer: u32Of(attrs, IFLA_LINK) ?? 0,
    alias: textOf(attrs, IFLA_IFALIAS) ?? "",
    promiscuous: (u32Of(attrs, IFLA_PROMISCUITY) ?? 0) > 0,
    ...(kind === "vxlan" && { vxlan: vxlanOf(data) }),
    ...(kind === "macvlan" && { macvlan: { mode: macvlanMode(data) } }),
    ...(stats && statsOf(attrs)),
  };
}

function vxlanOf(data: Attributes): NonNullable<Link["vxlan"]> {
  const local = data.get(4) ?? data.get(17);
  return {
    vni: u32Of(data, 1) ?? 0,
    port: be16Of(data, 15) ?? 0,
    local: local?.some((byte) => byte !== 0) ? fromBytes(local) : undefined,
    learning: u8Of(data, 7) === 1,
    proxy: u8Of(data, 11) === 1,
  };
}

function macvlanMode(data: Attributes): string {
  const mode = u32Of(data, 1);
  return Object.entries(MACVLAN_MODES).find(([, value]) => value === mode)?.[0] ?? String(mode);
}

function statsOf(attrs: Attributes): Pick<Link, "stats"> {
  const stats = attrs.get(IFLA_STATS64);
  if (!stats || stats.length < 64) return {};
  const at = (index: number) => stats.readBigUInt64LE(index * 8);
  return {
    stats: {
      rxPackets: at(0),
      txPackets: at(1),
      rxBytes: at(2),
      txBytes: at(3),
      rxErrors: at(4),
      txErrors: at(5),
      rxDropped: at(6),
      txDropped: at(7),
    },
  };
}

type Common = { [K in "name" | "mtu" | "mac" | "alias" | "master" | "ns"]?: NewLink[K] | undefined };

function common(builder: Builder, link: Common): void {
  if (link.name !== undefined) builder.text(IFLA_IFNAME, link.name);
  if (link.mtu !== undefined) builder.u32(IFLA_MTU, link.mtu);
  if (link.mac !== undefined) builder.attr(IFLA_ADDRESS, macToBytes(link.mac));
  if (link.alias !== undefined) builder.text(IFLA_IFALIAS, link.alias);
  if (link.master !== undefined) builder.u32(IFLA_MASTER, link.master);
  if (link.ns !== undefined) builder.u32(IFLA_NET_NS_FD, link.ns.fd);
}

const flagsOf = (up: boolean | undefined) =>
  up === undefined ? {} : ({ flags: up ? IFF_UP : 0, change: IFF_UP } as const);

export function add(socket: NetlinkSocket, link: NewLink): void {
  const builder = new Builder(header(0, flagsOf(link.up)));
  common(builder, link);
  if ("lower" in link && link.lower !== undefined && link.kind !== "vxlan") builder.u32(IFLA_LINK, link.lower);
  builder.nest(IFLA_LINKINFO, (info) => {
    info.text(IFLA_INFO_KIND, link.kind);
    if (link.kind === "veth") {
      const { peer } = link;
      info.nest(IFLA_INFO_DATA, (data) => {
        data.nest(1, (inner) => {
          inner.raw(header());
          // The kernel refuses to bring up half a pair and ignores the rest: `finishPeer` does it.
          common(inner, { name: peer.name, mtu: peer.mtu, mac: peer.mac, ns: peer.ns });
        });
      });
    } else {
      info.nest(IFLA_INFO_DATA, (data) => linkData(data, link));
    }
  });
  socket.request(`add ${link.kind} ${link.name}`, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, builder);
}

export function set(socket: NetlinkSocket, index: number, change: LinkChange): void {
  const { hairpin, isolated, bridgeLearning, up, master, ...rest } = change;
  const builder = new Builder(header(index, flagsOf(up)));
  common(builder, rest);
  if (master !== undefined) builder.u32(IFLA_MASTER, master);
  socket.request(`set link ${change.name ?? index}`, RTM_NEWLINK, 0, builder);
  if (hairpin === undefined && isolated === undefined && bridgeLearning === undefined) return;
  const port = new Builder(header(index, { family: AF_BRIDGE }));
  port.nest(IFLA_PROTINFO, (info) => bridgePort(info, { hairpin, isolated, bridgeLearning }));
  socket.request(`set bridge port ${index}`, RTM_SETLINK, 0, port);
}

export function delLinkMessage(index: number): Builder {
  return new Builder(header(index));
}
