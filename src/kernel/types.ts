/**
 * The door of the kernel room: what the other rooms may ask of Linux. No containers, no policies here.
 * Everything is synchronous unless it returns a promise; synchronous calls take microseconds.
 */

/** An open handle on a network namespace. Dispose closes the handle, not the namespace. */
export interface NetNs extends Disposable {
  readonly fd: number;
  /** Identity: two handles on one namespace have the same inode. */
  readonly inode: number;
  /** Runs `fn` inside the namespace. `fn` must be synchronous and must not start asynchronous work. */
  run<T>(fn: () => T): T;
}

export interface Link {
  readonly index: number;
  readonly name: string;
  /** rtnetlink kind: "bridge", "veth", "vxlan", "dummy", "macvlan"…; "" for hardware and loopback. */
  readonly kind: string;
  readonly mac: string;
  readonly mtu: number;
  readonly up: boolean;
  /** Carrier and operational state up. */
  readonly running: boolean;
  /** Index of the bridge it is enslaved to, 0 for none. */
  readonly master: number;
  /** IFLA_LINK: the peer's index for veth, the lower device for macvlan; 0 for none. */
  readonly peer: number;
  readonly alias: string;
  readonly promiscuous: boolean;
  readonly vxlan?: { vni: number; port: number; local: string | undefined; learning: boolean; proxy: boolean };
  readonly macvlan?: { mode: string };
  readonly stats?: {
    rxBytes: bigint;
    txBytes: bigint;
    rxPackets: bigint;
    txPackets: bigint;
    rxErrors: bigint;
    txErrors: bigint;
    rxDropped: bigint;
    txDropped: bigint;
  };
}

interface LinkCommon {
  readonly name: string;
  readonly mtu?: number;
  readonly mac?: string;
  readonly up?: boolean;
  readonly alias?: string;
  readonly master?: number;
  /** Create the device in this namespace instead of the socket's own (IFLA_NET_NS_FD). */
  readonly ns?: NetNs;
}

export type NewLink =
  | (LinkCommon & { kind: "bridge"; vlanDefaultPvid?: number; stp?: boolean; ageingTime?: number })
  | (LinkCommon & { kind: "dummy" })
  | (LinkCommon & { kind: "vlan"; lower: number; id: number })
  | (LinkCommon & { kind: "veth"; peer: LinkCommon })
  | (LinkCommon & {
      kind: "vxlan";
      vni: number;
      port: number;
      local: string;
      learning: boolean;
      proxy: boolean;
      l2miss?: boolean;
      l3miss?: boolean;
      udpCsum?: boolean;
      lower?: number;
    })
  | (LinkCommon & { kind: "macvlan"; lower: number; mode: "bridge" | "private" | "vepa" | "passthru" })
  | (LinkCommon & { kind: "ipvlan"; lower: number; mode: "l2" | "l3" | "l3s" });

export interface LinkChange {
  readonly name?: string;
  readonly mtu?: number;
  readonly mac?: string;
  readonly up?: boolean;
  readonly alias?: string;
  /** 0 frees the device from its bridge. */
  readonly master?: number;
  /** Move to this namespace; may be combined with `name`. */
  readonly ns?: NetNs;
  readonly hairpin?: boolean;
  readonly isolated?: boolean;
  readonly bridgeLearning?: boolean;
}

export interface AddrOptions {
  /** IPv6: used at once, without asking whether somebody else has it. */
  readonly nodad?: boolean;
  readonly replace?: boolean;
  /** "link": nobody beyond the device is told of it, nor is it anybody's choice as a source. Default "global". */
  readonly scope?: "global" | "link";
}

/** Addresses are textual: "10.0.1.3" and prefix length apart. */
export interface Addr {
  readonly link: number;
  readonly family: 4 | 6;
  readonly address: string;
  readonly prefix: number;
  readonly scope: "global" | "link" | "host" | "site" | "nowhere";
}

export interface Route {
  readonly family: 4 | 6;
  /** CIDR, or "default". */
  readonly dst: string;
  readonly gateway?: string;
  readonly link: number;
  readonly source?: string;
  readonly table: number;
  readonly scope: "global" | "link" | "host" | "site" | "nowhere";
  readonly protocol: "kernel" | "static" | "boot" | "ra" | "dhcp" | number;
  readonly metric: number;
  readonly onlink?: boolean;
  readonly type: "unicast" | "local" | "broadcast" | "multicast" | "blackhole" | "unreachable" | "prohibit";
}

export interface NewRoute {
  readonly dst: string;
  readonly gateway?: string;
  readonly link?: number;
  readonly source?: string;
  readonly table?: number;
  readonly scope?: "global" | "link" | "host";
  readonly metric?: number;
  readonly onlink?: boolean;
  readonly family?: 4 | 6;
}

export interface Neigh {
  readonly link: number;
  readonly address: string;
  readonly mac: string;
  readonly permanent: boolean;
  readonly state: string;
}

export interface FdbEntry {
  readonly link: number;
  readonly mac: string;
  /** The VTEP, for entries of a VXLAN device itself ("self"). */
  readonly dst?: string;
  /** "self": the device's own table; "master": its bridge's. */
  readonly owner: "self" | "master";
  readonly permanent: boolean;
}

export interface Rule {
  readonly family: 4 | 6;
  readonly priority: number;
  readonly mark?: number;
  readonly mask?: number;
  readonly table: number;
}

/** An rtnetlink socket in one namespace. Additions throw `KernelError` with the kernel's own words. */
export interface Rtnl extends Disposable {
  links(options?: { stats?: boolean }): Link[];
  link(nameOrIndex: string | number): Link | undefined;
  addLink(link: NewLink): Link;
  setLink(index: number, change: LinkChange): void;
  /** Asynchronous because the kernel waits for RCU grace periods; unknown devices are no error. */
  delLink(index: number): Promise<void>;
  addrs(): Addr[];
  addAddr(link: number, address: string, prefix: number, options?: AddrOptions): void;
  delAddr(link: number, address: string, prefix: number): void;
  /** Of all tables, or of one: the main one may hold the whole internet. */
  routes(table?: number): Route[];
  /** Creates or replaces. */
  setRoute(route: NewRoute): void;
  delRoute(route: NewRoute): void;
  /** The kernel's choice for a destination. */
  routeTo(address: string): Route | undefined;
  neighs(): Neigh[];
  setNeigh(link: number, address: string, mac: string): void;
  delNeigh(link: number, address: string): void;
  fdb(): FdbEntry[];
  setFdb(link: number, mac: string, dst: string): void;
  delFdb(link: number, mac: string, owner: "self" | "master", dst?: string): void;
  rules(): Rule[];
  addRule(rule: Rule): void;
  delRule(rule: Rule): void;
}

/** nftables in one namespace, through libnftables. */
export interface Nft extends Disposable {
  /** Runs a script as one atomic transaction; throws `KernelError` with nft's own message. */
  run(script: string): void;
  /**
   * As `run`, on a pool thread: for scripts of thousands of elements, which take tens of milliseconds. One
   * after another, in the order of the calls; `run` meanwhile goes ahead of those that wait.
   */
  runAsync(script: string): Promise<void>;
  /** `nft -j list …`, parsed. Undefined when what is listed does not exist. */
  list(what: string): unknown[] | undefined;
  /** Name and family of each table. */
  tables(): { family: string; name: string }[];
}

export interface ConntrackFilter {
  readonly family: 4 | 6;
  readonly protocol?: number;
  readonly origSrc?: string;
  readonly origDst?: string;
  readonly origDstPort?: number;
  /** One address, or any of several: a listing each would walk the machine's whole table each time. */
  readonly replySrc?: string | readonly string[];
  readonly mark?: { value: number; mask: number };
}

/** A connection as whoever began it sees it. */
export interface ConntrackFlow {
  readonly protocol: number;
  readonly src: string;
  readonly dst: string;
  /** 0 where the protocol has no ports. */
  readonly srcPort: number;
  readonly dstPort: number;
  /** The other side has answered. */
  readonly answered: boolean;
}

export interface Conntrack extends Disposable {
  /** Deletes the entries that match; gives their number. The kernel looks for addresses, so few come up here. */
  flush(filter: ConntrackFilter): number;
  /** The same; gives what they were. */
  take(filter: ConntrackFilter): ConntrackFlow[];
  count(): number;
  losses(): TrackingLosses;
}

/** What a namespace's table could not keep, since the namespace was made. */
export interface TrackingLosses {
  /** Packets of new connections that were dropped because the table was full. */
  readonly refused: number;
  /** Connections nobody had answered yet, forgotten to make room. */
  readonly displaced: number;
}

/** A TCP connection as its one end has it. */
export interface TcpConnection {
  readonly src: string;
  readonly srcPort: number;
  readonly dst: string;
  readonly dstPort: number;
}

/** A TCP socket that listens or is connected (`tcpSockets`). */
export interface TcpSocket {
  readonly state: "listen" | "connected";
  readonly localPort: number;
  /** Bound to, or reached by, a loopback address. */
  readonly loopback: boolean;
  /** Bytes that the program has not read yet; of a listener: connections not accepted yet. */
  readonly receiveQueue: number;
  /** Bytes that the other side has not confirmed yet. */
  readonly sendQueue: number;
  /** Milliseconds since data last went out, or came in. */
  readonly sentMsAgo: number;
  readonly receivedMsAgo: number;
}
