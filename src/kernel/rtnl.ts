/** rtnetlink: the objects are in rtnl/, one file each; here they are put together on one socket. */
import { Mutex } from "../base/async.ts";
import { errnoOf } from "../base/errors.ts";
import { NETLINK_ROUTE, NetlinkSocket } from "./netlink/socket.ts";
import * as addrs from "./rtnl/addrs.ts";
import * as fdb from "./rtnl/fdb.ts";
import * as links from "./rtnl/links.ts";
import { delLinkMessage, RTM_DELLINK } from "./rtnl/links.ts";
import * as neighs from "./rtnl/neighs.ts";
import * as routes from "./rtnl/routes.ts";
import * as rules from "./rtnl/rules.ts";
import type { AddrOptions, Link, LinkChange, NetNs, NewLink, NewRoute, Rtnl, Rule } from "./types.ts";

/** Opens an rtnetlink socket in `ns`, default the thread's own namespace. */
export function openRtnl(ns?: NetNs): Rtnl {
  const open = () => new NetlinkSocket(NETLINK_ROUTE);
  return new Socket(ns ? ns.run(open) : open(), ns ? ns.run(open) : open());
}

class Socket implements Rtnl {
  #socket: NetlinkSocket;
  /** Deletions sleep in the kernel: they have a socket of their own, used by one at a time. */
  #slow: NetlinkSocket;
  #deletions = new Mutex();
  #closed = false;

  constructor(socket: NetlinkSocket, slow: NetlinkSocket) {
    this.#socket = socket;
    this.#slow = slow;
  }

  links(options: { stats?: boolean } = {}): Link[] {
    return links.list(this.#socket, options.stats ?? false);
  }

  link(nameOrIndex: string | number): Link | undefined {
    return links.get(this.#socket, nameOrIndex);
  }

  addLink(link: NewLink): Link {
    links.add(this.#socket, link);
    if (link.kind === "veth") this.#finishPeer(link.peer);
    return this.#in(link.ns, (there) => {
      const made = found(there.link(link.name), link.name);
      if (link.alias === undefined) return made;
      // The kernel takes an alias only in a change.
      there.setLink(made.index, { alias: link.alias });
      return { ...made, alias: link.alias };
    });
  }

  /** What the kernel does not take for a peer at its creation. */
  #finishPeer(peer: Extract<NewLink, { kind: "veth" }>["peer"]): void {
    const { up, master, alias } = peer;
    if (up === undefined && master === undefined && alias === undefined) return;
    this.#in(peer.ns, (there) => {
      const { index } = found(there.link(peer.name), peer.name);
      there.setLink(index, {
        ...(master !== undefined && { master }),
        ...(alias !== undefined && { alias }),
        ...(up !== undefined && { up }),
      });
    });
  }

  #in<T>(ns: NetNs | undefined, fn: (there: Rtnl) => T): T {
    if (!ns) return fn(this);
    using there = openRtnl(ns);
    return fn(there);
  }

  setLink(index: number, change: LinkChange): void {
    links.set(this.#socket, index, change);
  }

  delLink(index: number): Promise<void> {
    return this.#deletions.run(async () => {
      try {
        await this.#slow.requestAsync(`delete link ${index}`, RTM_DELLINK, 0, delLinkMessage(index));
      } catch (error) {
        if (errnoOf(error) !== "ENODEV") throw error;
      }
    });
  }

  addrs = () => addrs.list(this.#socket);
  addAddr = (link: number, address: string, prefix: number, options: AddrOptions = {}) =>
    addrs.add(this.#socket, link, address, prefix, options);
  delAddr = (link: number, address: string, prefix: number) => addrs.del(this.#socket, link, address, prefix);

  routes = (table?: number) => routes.list(this.#socket, table);
  setRoute = (route: NewRoute) => routes.set(this.#socket, route);
  delRoute = (route: NewRoute) => routes.del(this.#socket, route);
  routeTo = (address: string) => routes.to(this.#socket, address);

  neighs = () => neighs.list(this.#socket);
  setNeigh = (link: number, address: string, mac: string) => neighs.set(this.#socket, link, address, mac);
  delNeigh = (link: number, address: string) => neighs.del(this.#socket, link, address);

  fdb = () => fdb.list(this.#socket);
  setFdb = (link: number, mac: string, dst: string) => fdb.set(this.#socket, link, mac, dst);
  delFdb = (link: number, mac: string, owner: "self" | "master", dst?: string) =>
    fdb.del(this.#socket, link, mac, owner, dst);

  rules = () => rules.list(this.#socket);
  addRule = (rule: Rule) => rules.add(this.#socket, rule);
  delRule = (rule: Rule) => rules.del(this.#socket, rule);

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket[Symbol.dispose]();
    // A deletion under way still reads its answer.
    void this.#deletions.run(() => this.#slow[Symbol.dispose]());
  }
}

function found(link: Link | undefined, name: string): Link {
  if (!link) throw new Error(`link ${name} vanished while it was made`);
  return link;
}
