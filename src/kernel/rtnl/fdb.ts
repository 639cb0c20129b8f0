/** Forwarding entries of bridges and VXLAN devices. */
import { KernelError } from "../error.ts";
import { fromBytes, macFromBytes, macToBytes, toBytes } from "../inet.ts";
import { AF_BRIDGE } from "../libc.ts";
import { attributes, Builder, type Message, NLM_F_CREATE, NLM_F_REPLACE } from "../netlink/codec.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import type { FdbEntry } from "../types.ts";
import { header, NDA_DST, NDA_LLADDR, NUD_PERMANENT, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH } from "./neighs.ts";

const NTF_SELF = 2;
const NTF_MASTER = 4;

export function list(socket: NetlinkSocket): FdbEntry[] {
  return socket.dump("list forwarding entries", RTM_GETNEIGH, new Builder(header(AF_BRIDGE))).flatMap((message) => {
    const entry = parse(message);
    return entry ? [entry] : [];
  });
}

function parse({ type, body }: Message): FdbEntry | undefined {
  if (type !== RTM_NEWNEIGH || body.readUInt8(0) !== AF_BRIDGE) return undefined;
  const attrs = attributes(body, 12);
  const mac = attrs.get(NDA_LLADDR);
  if (mac?.length !== 6) return undefined;
  const dst = attrs.get(NDA_DST);
  return {
    link: body.readInt32LE(4),
    mac: macFromBytes(mac),
    ...(dst && { dst: fromBytes(dst) }),
    owner: body.readUInt8(10) & NTF_SELF ? "self" : "master",
    permanent: (body.readUInt16LE(8) & NUD_PERMANENT) !== 0,
  };
}

/** One VTEP per MAC: a replacement, so that an endpoint that moved has no second way. */
export function set(socket: NetlinkSocket, link: number, mac: string, dst: string): void {
  const builder = new Builder(header(AF_BRIDGE, link, NUD_PERMANENT, NTF_SELF))
    .attr(NDA_LLADDR, macToBytes(mac))
    .attr(NDA_DST, toBytes(dst));
  socket.request(`set forwarding ${mac} to ${dst}`, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, builder);
}

/** An entry that is not there is no error. */
export function del(
  socket: NetlinkSocket,
  link: number,
  mac: string,
  owner: "self" | "master",
  dst: string | undefined,
): void {
  const flags = owner === "self" ? NTF_SELF : NTF_MASTER;
  const builder = new Builder(header(AF_BRIDGE, link, 0, flags)).attr(NDA_LLADDR, macToBytes(mac));
  if (dst !== undefined) builder.attr(NDA_DST, toBytes(dst));
  try {
    socket.request(`delete forwarding ${mac}`, RTM_DELNEIGH, 0, builder);
  } catch (error) {
    if (!(error instanceof KernelError && error.code === "ENOENT")) throw error;
  }
}
