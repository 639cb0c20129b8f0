/**
 * The door of the embedded DNS: what it is asked to know (`NameView`) and how it is run (`Resolver`).
 */
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { NetNs } from "../../kernel/types.ts";

/**
 * The addresses of one name on one network. A record is immutable: a change is a new object, because its
 * encoded form is kept with it.
 */
export interface NameRecord {
  readonly ipv4: readonly string[];
  readonly ipv6: readonly string[];
}

export interface SrvTarget {
  /** A name that this network answers for. */
  readonly target: string;
  readonly port: number;
}

/** What one network knows by name. All names come and go in lower case; all calls are on the hot path. */
export interface NameNetwork {
  /** The network's name, which may end a question: `<container>.<network>`. */
  readonly name: string;
  /** Names, aliases, services, `tasks.<service>`; undefined when the name is not known here. */
  lookup(name: string): NameRecord | undefined;
  /** The name behind an address of this network, "<container>.<network>". */
  reverse(address: string): string | undefined;
  /** This sandbox's own names for others (`--link`): the name to look up instead. */
  alias?(name: string): string | undefined;
  srv?(name: string): readonly SrvTarget[] | undefined;
}

/** What one sandbox can see. */
export interface NameView {
  /** The sandbox's networks in the order in which they are asked: overlays first, then the others. */
  networks(): readonly NameNetwork[];
}

/** A name server that is asked for what no network knows. */
export interface Upstream {
  readonly address: string;
  /** Default 53. */
  readonly port?: number;
  /** Where the question is asked from; default the daemon's namespace. */
  readonly from?: "host" | "sandbox";
}

/** What is to be done with a question. */
export type Answer =
  | { readonly kind: "reply"; readonly message: Buffer }
  /** Not ours: an upstream's to answer. */
  | { readonly kind: "forward" }
  /** Not a question at all: silence. */
  | { readonly kind: "drop" };

export interface AnswerOptions {
  /** Seconds that answers may be kept; default 5. */
  readonly ttl?: number;
  /** `ndots` when the user set it above 0: single labels are then not forwarded. */
  readonly ndots?: number;
  /** Truncates to 512 bytes or what the question allows; default "udp". */
  readonly transport?: "udp" | "tcp";
  /** For the order of several addresses: [0, 1). */
  readonly random?: () => number;
}

export interface ResolverPorts {
  readonly udp: number;
  readonly tcp: number;
}

export interface ResolverOptions {
  /** The sandbox's namespace. The resolver does not close the handle. */
  readonly ns: NetNs;
  readonly view: NameView;
  /** In order; only the first three are used. None: unknown names are NXDOMAIN at once. */
  readonly upstreams: readonly Upstream[];
  readonly log: Logger;
  readonly ttl?: number;
  readonly ndots?: number;
  readonly clock?: Clock;
}

/** Counters since the start. */
export interface ResolverStats {
  readonly queries: number;
  readonly forwarded: number;
  readonly failed: number;
  /** Questions to upstreams waiting now. */
  readonly pending: number;
}

/** The DNS server of one sandbox, listening on 127.0.0.11. */
export interface Resolver extends AsyncDisposable {
  readonly ports: ResolverPorts;
  setUpstreams(upstreams: readonly Upstream[]): void;
  stats(): ResolverStats;
}
