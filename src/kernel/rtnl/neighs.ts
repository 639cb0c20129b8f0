/** Neighbour entries (ARP and its IPv6 kin). */
import { KernelError } from "../error.ts";
import { fromBytes, macFromBytes, macToBytes, toBytes } from "../inet.ts";
import { AF_INET, AF_INET6 } from "../libc.ts";
import { attributes, Builder, type Message, NLM_F_CREATE, NLM_F_REPLACE } from "../netlink/codec.ts";
import type { NetlinkSocket } from "../netlink/socket.ts";
import type { Neigh } from "../types.ts";

export const RTM_NEWNEIGH = 28;
export const RTM_DELNEIGH = 29;
export const RTM_GETNEIGH = 30;
export const NDA_DST = 1;
export const NDA_LLADDR = 2;
export const NUD_PERMANENT = 0x80;

const STATES: Record<number, string> = {
  0: "none",
  1: "incomplete",
  2: "reachable",
  4: "stale",
  8: "delay",
  16: "probe",
  32: "failed",
  64: "noarp",
  128: "permanent",
};

/** struct ndmsg */
export function header(family: number, link = 0, state = 0, flags = 0): Buffer {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt8(family, 0);
  bytes.writeInt32LE(link, 4);
  bytes.writeUInt16LE(state, 8);
  bytes.writeUInt8(flags, 10);
  return bytes;
}

export function list(socket: NetlinkSocket): Neigh[] {
  return socket.dump("list neighbours", RTM_GETNEIGH, new Builder(header(0))).flatMap((message) => {
    const neigh = parse(message);
    return neigh ? [neigh] : [];
  });
}

function parse({ type, body }: Message): Neigh | undefined {
  const family = body.readUInt8(0);
  if (type !== RTM_NEWNEIGH || (family !== AF_INET && family !== AF_INET6)) return undefined;
  const attrs = attributes(body, 12);
  const address = attrs.get(NDA_DST);
  if (!address) return undefined;
  const mac = attrs.get(NDA_LLADDR);
  const state = body.readUInt16LE(8);
  return {
    link: body.readInt32LE(4),
    address: fromBytes(address),
    mac: mac?.length === 6 ? macFromBytes(mac) : "",
    permanent: (state & NUD_PERMANENT) !== 0,
    state: STATES[state] ?? String(state),
  };
}

function message(link: number, address: string, state: number): Builder {
  const bytes = toBytes(address);
  return new Builder(header(bytes.length === 4 ? AF_INET : AF_INET6, link, state)).attr(NDA_DST, bytes);
}

/** Permanent; replaces what is there. */
export function set(socket: NetlinkSocket, link: number, address: string, mac: string): void {
  const builder = message(link, address, NUD_PERMANENT).attr(NDA_LLADDR, macToBytes(mac));
  socket.request(`set neighbour ${address}`, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, builder);
}

/** An entry that is not there is no error. */
export function del(socket: NetlinkSocket, link: number, address: string): void {
  try {
    socket.request(`delete neighbour ${address}`, RTM_DELNEIGH, 0, message(link, address, 0));
  } catch (error) {
    if (!(error instanceof KernelError && error.code === "ENOENT")) throw error;
  }
}
