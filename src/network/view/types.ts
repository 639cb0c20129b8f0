/**
 * What people can see of the network room: plain data, made on demand, nothing secret in it. It goes to clients as it
 * stands, so that names and meanings here are kept.
 */
import type { RepairKind } from "../repairs.ts";
import type { DriverName } from "../types.ts";

export interface NetworkView {
  readonly differences: () => Promise<NamespaceDifferences[]>;
  readonly repairs: () => RepairsView;
  /** Undefined while this host is in no swarm. */
  readonly gossip: () => GossipView | undefined;
  readonly networks: () => Promise<NetworkLook[]>;
  readonly services: () => ServiceLook[];
  readonly ports: () => PortLook[];
  /** Undefined for sandboxes that are not here. `from`: what the sandbox is called. */
  readonly trace: (sandboxId: string, from: string, to: string) => Promise<Trace | undefined>;
}

/** What plan and kernel differ in now, in the words of what would be done about it. */
export interface NamespaceDifferences {
  /** "host", "overlay/<network id>", "sandbox/<container id>". */
  readonly namespace: string;
  readonly differences: readonly string[];
}

export interface Repair {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly namespace: string;
  readonly difference: string;
}

/** What others changed in the kernel and was put right, since the daemon's start. */
export interface RepairsView {
  readonly total: number;
  readonly byKind: Partial<Record<RepairKind, number>>;
  /** The last few, oldest first. */
  readonly recent: readonly Repair[];
}

export type NodeState = "alive" | "suspect" | "dead" | "left" | "unknown";

export interface GossipView {
  /** Undefined while it waits for its keys. */
  readonly name: string | undefined;
  readonly address: string;
  readonly port: number;
  /** Lifeguard's awareness: 0 is well; each point slows this node's own probes and judgements. */
  readonly health: number;
  /** Never the keys themselves. */
  readonly keys: readonly { readonly id: string; readonly lamportTime: string; readonly use: "send" | "read" }[];
  readonly members: readonly {
    readonly name: string;
    readonly address: string;
    readonly port: number;
    readonly state: NodeState;
    readonly sinceMs: number;
    readonly incarnation: number;
    readonly self: boolean;
    /** A node of ours; false for real Docker ones. */
    readonly skein: boolean;
    readonly networks: number;
  }[];
  /** Messages that wait, by queue. */
  readonly queues: Readonly<Record<string, number>>;
  /** Messages that were not used, by reason. */
  readonly dropped: Readonly<Record<string, number>>;
  /** Everything else that is counted. */
  readonly counters: Readonly<Record<string, number>>;
}

export interface NetworkLook {
  readonly id: string;
  readonly name: string;
  readonly driver: DriverName;
  readonly scope: "local" | "swarm";
  readonly ingress: boolean;
  readonly internal: boolean;
  readonly subnets: readonly { readonly subnet: string; readonly gateway: string; readonly vni?: number }[];
  /** Of an overlay network. */
  readonly mtu?: number;
  /** Where the namespace of an overlay network is pinned. */
  readonly namespace?: string;
  /** This node's load balancer address. */
  readonly balancer?: string;
  readonly here: readonly LocalEndpoint[];
  readonly elsewhere: readonly RemoteEndpoint[];
  readonly hosts: readonly NetworkHost[];
  readonly links: readonly LinkLook[];
  /** Between plan and kernel, in the network's own namespace, now. */
  readonly differences: readonly string[];
  /** In the network's own namespace. */
  readonly repairs: readonly Repair[];
}

export interface LinkLook {
  readonly name: string;
  /** "bridge", "vxlan", "veth": what is planned, or what stands there unplanned. */
  readonly kind: string;
  /** What it leads to, for a person. */
  readonly purpose: string;
  readonly mtu?: number;
  readonly state: "up" | "down" | "missing" | "unplanned";
}

export interface LocalEndpoint {
  readonly endpointId: string;
  readonly name: string;
  /** The container's id, "ingress-sbox" or "lb-<network>". */
  readonly sandbox: string;
  readonly kind: "container" | "lb" | "ingress";
  readonly address: string;
  readonly address6: string;
  readonly mac: string;
  /** Its end of the pair in the network's switch. */
  readonly link: string;
  /** In discovery: with names and balanced, withdrawn before its end, or not (yet). */
  readonly state: "active" | "draining" | "inactive";
  readonly service: string;
}

export interface RemoteEndpoint {
  readonly endpointId: string;
  /** "" where only its address is told: balancers, and tasks that do not serve (yet). */
  readonly name: string;
  readonly service: string;
  readonly address: string;
  /** Its twin in IPv6, "" where the network has none. */
  readonly address6: string;
  readonly mac: string;
  /** The host behind which it is: where its frames are sent. */
  readonly host: string;
  /** Who told it. */
  readonly announcedBy: { readonly node: string; readonly address: string; readonly state: NodeState };
  readonly state: "active" | "draining" | "suspended" | "address only" | "no address";
  /** Nobody stands behind the record any more, but it is probably still true: a daemon was restarted. */
  readonly doubted: boolean;
  /** "" when it is in the plan; otherwise why not. */
  readonly unused: string;
  /** What the kernel has of it: "ok", "missing", or the other value that is there. */
  readonly neighbour: string;
  readonly fdb: string;
}

export interface NetworkHost {
  readonly address: string;
  /** Its name in gossip; "" where only records speak of it. */
  readonly node: string;
  readonly state: NodeState;
  readonly self: boolean;
  readonly skein: boolean;
  /** Tables of this network were exchanged with it. */
  readonly synced: boolean;
  readonly endpoints: number;
  /** Largest packet that arrives there; undefined where that is not known. */
  readonly pathMtu?: number;
  readonly expectedMtu?: number;
}

export interface ServiceLook {
  readonly id: string;
  readonly name: string;
  readonly networks: readonly {
    readonly network: string;
    readonly networkId: string;
    readonly ingress: boolean;
    /** "" for `--endpoint-mode dnsrr`. */
    readonly vip: string;
    /** "" on networks without IPv6. */
    readonly vip6: string;
    readonly backends: readonly Backend[];
  }[];
  readonly ports: readonly { readonly protocol: string; readonly published: number; readonly target: number }[];
}

export interface Backend {
  /** The task's name: "web.1.<task id>". */
  readonly task: string;
  readonly endpointId: string;
  readonly address: string;
  readonly address6: string;
  readonly host: string;
  readonly here: boolean;
  readonly state: "serving" | "draining" | "suspended";
  /** Its part of new connections through the VIP or the mesh, as this node's tables give it: 0 to 1. */
  readonly share: number;
}

/** Who answers at a port of this host. */
export type PortLook =
  | {
      readonly kind: "mesh";
      readonly protocol: string;
      readonly port: number;
      /** Subnets of host addresses at which it answers; absent: all addresses, none: nowhere. */
      readonly addresses?: readonly string[];
      /** "local": only tasks of this host are asked, and without one connections are refused. */
      readonly policy: "mesh" | "local";
      /** Tasks are told the client's address by the PROXY protocol. */
      readonly proxy: boolean;
      readonly services: readonly string[];
      readonly target: readonly number[];
      /**
       * Where it comes in: `ingress_sbox` on `docker_gwbridge`, and on the ingress network; and the host's own device there,
       * "" where clients from outside do not go by it.
       */
      readonly door: { readonly gateway: string; readonly ingress: string; readonly leg: string };
      readonly backends: readonly (Backend & { readonly keepsClientAddress: boolean })[];
    }
  | {
      readonly kind: "container";
      readonly protocol: string;
      readonly port: number;
      readonly addresses: readonly string[];
      readonly container: string;
      readonly address: string;
      readonly target: number;
    };

/** The way of a packet, as far as this host knows it. */
export interface Trace {
  readonly from: string;
  readonly to: string;
  /** What comes before the ways part. */
  readonly steps: readonly TraceStep[];
  /** One per task of a service, or per address of a name; none where it ends before. */
  readonly ways: readonly {
    readonly address: string;
    /** Its part of new connections, 0 to 1. */
    readonly share: number;
    readonly steps: readonly TraceStep[];
    /** Nothing on it is amiss, as far as this host knows. */
    readonly reaches: boolean;
  }[];
}

export interface TraceStep {
  /** A container's name, a namespace, "host". */
  readonly where: string;
  readonly what: string;
  readonly ok: boolean;
}
