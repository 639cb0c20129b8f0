/**
 * Tells cheaply whether somebody changed a namespace: rtnetlink's own notifications, collected by the kernel and looked
 * at now and then without waiting, and the generation number of nftables, which grows with every transaction.
 */
import { errnoOf } from "../base/errors.ts";
import * as libc from "./libc.ts";
import { attributes, Builder, messages } from "./netlink/codec.ts";
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkSocket } from "./netlink/socket.ts";
import type { NetNs } from "./types.ts";

/** RTMGRP_…: links, neighbours, addresses and routes of both families, rules of IPv4. */
const groups = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400;
const RTM_NEWLINK = 16;
const RTM_DELADDR = 21;
const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_NEWNEIGH = 28;
const RTM_DELNEIGH = 29;
const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTPROT_KERNEL = 2;
const AF_BRIDGE = 7;
const NUD_PERMANENT = 0x80;
const NFT_MSG_GETGEN = (10 << 8) | 16;
const NFTA_GEN_ID = 1;
const MSG_DONTWAIT = 0x40;
/** So many datagrams are read in one look; a storm is a change whatever it says. */
const mostRead = 256;

const scratch = Buffer.alloc(1 << 15);

/** What somebody touched since the last look. */
export interface Touched {
  /** Links, addresses, routes, rules, permanent neighbours and forwarding entries. */
  readonly routing: boolean;
  readonly tables: boolean;
}

export interface Watch extends Disposable {
  /** What was touched since the last look or `forget`. Never waits. */
  look(): Touched;
  /** What was touched up to now was our own doing. */
  forget(): void;
}

export function openWatch(ns?: NetNs): Watch {
  return ns ? ns.run(() => new Watcher()) : new Watcher();
}

/** struct sockaddr_nl; the kernel chooses the port. */
function sockaddrNl(): Buffer {
  const address = Buffer.alloc(12);
  address.writeUInt16LE(libc.AF_NETLINK);
  address.writeUInt32LE(groups, 8);
  return address;
}

class Watcher implements Watch {
  readonly #fd: number;
  readonly #tables: NetlinkSocket;
  #generation: number;

  constructor() {
    this.#fd = libc.socket(libc.AF_NETLINK, libc.SOCK_RAW, NETLINK_ROUTE);
    libc.bind(this.#fd, sockaddrNl(), "bind netlink");
    this.#tables = new NetlinkSocket(NETLINK_NETFILTER);
    this.#generation = this.#readGeneration();
  }

  look(): Touched {
    const routing = this.#drain();
    const generation = this.#readGeneration();
    const tables = generation !== this.#generation;
    this.#generation = generation;
    return { routing, tables };
  }

  forget(): void {
    this.look();
  }

  #drain(): boolean {
    let touched = false;
    for (let i = 0; i < mostRead; i++) {
      let length: number;
      try {
        length = libc.recv(this.#fd, scratch, MSG_DONTWAIT);
      } catch (error) {
        // ENOBUFS: there was more than the kernel keeps.
        if (errnoOf(error) === "ENOBUFS") touched = true;
        else if (errnoOf(error) === "EAGAIN") return touched;
        else if (errnoOf(error) !== "EINTR") throw error;
        continue;
      }
      for (const { type, body } of messages(scratch.subarray(0, length))) touched ||= matters(type, body);
    }
    return true;
  }

  #readGeneration(): number {
    // struct nfgenmsg: any family, version 0.
    const [answer] = this.#tables.request("generation", NFT_MSG_GETGEN, 0, new Builder(Buffer.alloc(4)));
    const id = answer && attributes(answer.body, 4).get(NFTA_GEN_ID);
    return id && id.length >= 4 ? id.readUInt32BE() : 0;
  }

  [Symbol.dispose](): void {
    libc.close(this.#fd);
    this.#tables[Symbol.dispose]();
  }
}

/** Whether a notification is about something that is set, rather than learned or noticed by the kernel itself. */
function matters(type: number, body: Buffer): boolean {
  if (type >= RTM_NEWLINK && type <= RTM_DELADDR) return true;
  if (type === RTM_NEWROUTE || type === RTM_DELROUTE) return body.length > 5 && body[5] !== RTPROT_KERNEL;
  if (type === RTM_NEWRULE || type === RTM_DELRULE) return true;
  if (type !== RTM_NEWNEIGH && type !== RTM_DELNEIGH) return false;
  if (body.length < 12) return false;
  const permanent = (body.readUInt16LE(8) & NUD_PERMANENT) !== 0;
  // A permanent neighbour that is deleted is announced as failed.
  return permanent || (type === RTM_DELNEIGH && body[0] !== AF_BRIDGE);
}
