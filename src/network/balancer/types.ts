/**
 * The door of the balancer: what is to be balanced and published, in four places. Functions of this room turn
 * these into nftables text; the caller runs the text through `Nft` of the right namespace.
 */
export type Protocol = "tcp" | "udp" | "sctp";

/** A service's virtual address in one family on one network, as one container sees it. */
export interface VipService {
  /** Unique in the namespace; letters, digits, `-`, `_`, `.`. Several networks: "<service>.<network>". */
  readonly id: string;
  readonly vip: string;
  /** Addresses of the tasks in the VIP's family; none: connections are refused. */
  readonly backends: readonly string[];
}

/** A published port of the routing mesh and where its tasks are. */
export interface MeshPort {
  readonly protocol: Protocol;
  readonly publishedPort: number;
  readonly backends: readonly MeshBackend[];
  /** Subnets of host addresses at which it is answered, CIDR; undefined: all. */
  readonly bound?: readonly string[];
}

export interface MeshBackend {
  /** The task's address on the ingress network. */
  readonly address: string;
  /**
   * The task's node sends replies back through the entry node (a Skein node whose kernel can). Otherwise the
   * client's address is hidden behind the entry node's, as Docker does.
   */
  readonly returnsToEntry: boolean;
  /** It does so for clients that come by the entry host's own leg, too. Absent: no. */
  readonly returnsToLeg?: boolean;
  /** The task expects the PROXY protocol; here our nodes' doors say the header themselves. */
  readonly headedPort?: number;
}

/** The host's half of the mesh. */
export interface MeshHost {
  /** Device name of the gateway bridge: "docker_gwbridge". */
  readonly bridge: string;
  /** CIDR of the gateway bridge's network. */
  readonly bridgeSubnet: string;
  /** ingress_sbox's address on the gateway bridge. */
  readonly sandbox: string;
  /** CIDR of the ingress network. */
  readonly ingressSubnet: string;
  readonly ports: readonly MeshHostPort[];
  /** The host's own way to the tasks, where it has one. */
  readonly leg?: MeshLeg;
}

/** The host's own leg in the ingress network, and what goes by it. */
export interface MeshLeg {
  readonly device: string;
  /** Of packets and connections that go by it. */
  readonly mark: number;
  readonly mask: number;
  /** Subnets of clients that do not: CIDR, none within another. */
  readonly near: readonly string[];
  /** Those of the published ports that do, and their tasks' addresses, one at least. */
  readonly ports: readonly {
    readonly protocol: Protocol;
    readonly publishedPort: number;
    readonly tasks: readonly string[];
  }[];
}

export interface MeshHostPort {
  readonly protocol: Protocol;
  readonly publishedPort: number;
  /**
   * IPv4 subnets (CIDR, none within another) of host addresses at which it is published; none: nowhere. Undefined:
   * everywhere, loopback included.
   */
  readonly bound?: readonly string[];
}

/** ingress_sbox's half of the mesh. */
export interface MeshSandbox {
  /** Its device on the ingress network ("eth0") and its own address there. */
  readonly ingressDevice: string;
  readonly ingressAddress: string;
  /** Its device on the gateway bridge ("eth1") and that network's CIDR. */
  readonly gatewayDevice: string;
  readonly gatewaySubnet: string;
  readonly ports: readonly MeshPort[];
}

/** A node's door to the mesh: its ingress_sbox on the ingress network, and its host's own leg there. */
export interface MeshEntry {
  /** Of ingress_sbox; a leg has none. */
  readonly address: string;
  readonly mac: string;
  /** The leg's MAC. */
  readonly leg?: string;
}

/** A task's half of the mesh. */
export interface MeshTask {
  readonly ingressDevice: string;
  readonly ingressAddress: string;
  /** CIDR of the ingress network. */
  readonly ingressSubnet: string;
  /**
   * The source address that the kernel chooses by the default route: the task's address on the gateway bridge.
   * Datagram servers bound to no address answer from it.
   */
  readonly defaultSource: string;
  readonly ports: readonly {
    readonly protocol: Protocol;
    readonly publishedPort: number;
    readonly targetPort: number;
  }[];
  /** Ports at which the doors of our nodes, and nobody else, say who their clients are. */
  readonly headed: readonly number[];
  /** Every Skein node that has a door to the mesh, this one included. */
  readonly entries: readonly MeshEntry[];
  /** Feature "nftEgress" of the kernel. Without it entry nodes must hide clients (`returnsToEntry: false`). */
  readonly egressHook: boolean;
}

/** A bridge network of the host. */
export interface HostBridge {
  /** Device name. */
  readonly name: string;
  /** CIDRs of both families. */
  readonly subnets: readonly string[];
}

/** A published port of one container: `-p hostIp:hostPort:containerPort/protocol`. */
export interface HostPort {
  readonly protocol: Protocol;
  /** "" for every address; "0.0.0.0" and "::" for every address of a family. */
  readonly hostIp: string;
  readonly hostPort: number;
  /** The container's address; a port published on both families is two of these. */
  readonly address: string;
  readonly containerPort: number;
}

export interface HostState {
  readonly bridges: readonly HostBridge[];
  readonly ports: readonly HostPort[];
}
