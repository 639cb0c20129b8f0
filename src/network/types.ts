/**
 * The door of the network room: networks, sandboxes (a container's network namespace) and endpoints.
 * Every call changes the wanted state, reconciles the kernel to it and resolves when the kernel agrees.
 */
import type { Emitter } from "../base/async.ts";
import type { PublishOptions } from "../base/publish.ts";
import type { GossipKey } from "../gossip/types.ts";
import type { NetworkView } from "./view/types.ts";

export type DriverName = "bridge" | "host" | "null" | "overlay" | "macvlan" | "ipvlan";

export interface IpamPool {
  readonly subnet: string;
  readonly ipRange?: string;
  readonly gateway?: string;
  readonly auxAddresses?: Record<string, string>;
}

/** What was asked for and decided about a network; pools are filled in by `create`. */
export interface NetworkSpec {
  readonly id: string;
  readonly name: string;
  readonly driver: DriverName;
  readonly scope: "local" | "swarm";
  /** RFC 3339 with nanoseconds. */
  readonly created: string;
  readonly enableIPv4: boolean;
  readonly enableIPv6: boolean;
  readonly internal: boolean;
  readonly attachable: boolean;
  readonly ingress: boolean;
  readonly configOnly: boolean;
  readonly configFrom: string;
  readonly ipam: { driver: string; options: Record<string, string> | null; config: IpamPool[] };
  readonly options: Record<string, string>;
  readonly labels: Record<string, string>;
}

export interface PortBinding {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly containerPort: number;
  /** "" for all addresses of both families. */
  readonly hostIp: string;
  /** 0: choose one. A range is tried in order. */
  readonly hostPort: number;
  readonly hostPortEnd: number;
}

/** A binding in force, as `docker port` tells it. */
export interface PublishedPort {
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly containerPort: number;
  readonly hostIp: string;
  /** 0: no port of the host, but the container's own address (gateway mode "routed"). */
  readonly hostPort: number;
}

export interface DnsConfig {
  readonly servers: string[];
  readonly search: string[];
  readonly options: string[];
}

export interface SandboxRequest {
  /** The container's id. */
  readonly id: string;
  readonly mode: "private" | "host";
  readonly hostname: string;
  readonly domainname: string;
  readonly dns: DnsConfig;
  /** "name:ip" as of --add-host. */
  readonly extraHosts: string[];
  readonly ports: PortBinding[];
  readonly sysctls?: Record<string, string>;
}

export interface Sandbox {
  readonly id: string;
  /** Path of the pinned namespace; undefined for host mode. */
  readonly path: string | undefined;
}

/** How a service task takes part in discovery and balancing on one network. */
export interface ServiceBinding {
  readonly id: string;
  readonly name: string;
  /** Plain address; "" for dnsrr. */
  readonly vip: string;
  readonly aliases: string[];
  /** Only on the ingress network. */
  readonly ingressPorts: readonly IngressPort[];
}

/** A port of the routing mesh, and how it is to be answered. */
export interface IngressPort extends PublishOptions {
  readonly name: string;
  readonly protocol: "tcp" | "udp" | "sctp";
  readonly targetPort: number;
  readonly publishedPort: number;
  /** With the PROXY protocol: where the doors of our nodes connect that say the header themselves. */
  readonly headedPort?: number | undefined;
}

export interface EndpointRequest {
  readonly networkId: string;
  /** The container's name: its primary DNS name and what `network inspect` shows. */
  readonly name: string;
  /** Further DNS names on this network: user aliases, short id, hostname. */
  readonly aliases: string[];
  /** Plain or CIDR. For swarm networks the managers' choice. */
  readonly ipv4?: string;
  readonly ipv6?: string;
  readonly mac?: string;
  readonly driverOptions?: Record<string, string>;
  readonly service?: ServiceBinding;
}

export interface Endpoint {
  readonly id: string;
  readonly networkId: string;
  readonly sandboxId: string;
  readonly name: string;
  readonly aliases: string[];
  /** "eth0" in the container; "" in host mode. */
  readonly ifName: string;
  readonly mac: string;
  /** CIDR; "" when there is none. */
  readonly ipv4: string;
  readonly ipv6: string;
  readonly gateway: string;
  readonly gateway6: string;
}

/** An endpoint as `network inspect` lists it: containers by id, `lb-<network>`, `ingress-sbox`, `gateway_<id>`. */
export interface ListedEndpoint {
  /** Key in the `Containers` map: container id, "lb-<network>", "ingress-sbox", "gateway_…" owner. */
  readonly key: string;
  readonly name: string;
  readonly endpointId: string;
  readonly mac: string;
  readonly ipv4: string;
  readonly ipv6: string;
}

export interface VerboseService {
  readonly name: string;
  readonly vip: string;
  readonly ports: string[];
  readonly tasks: { name: string; endpointId: string; endpointIp: string; hostIp: string }[];
}

export type NetworkEvent =
  | { kind: "create" | "destroy"; network: NetworkSpec }
  | { kind: "connect" | "disconnect"; network: NetworkSpec; containerId: string }
  /** `total`: differences mended since the start, these included. */
  | { kind: "drift"; namespace: string; differences: string[]; total: number }
  /** Packets of more than `mtu` bytes do not reach a host, though this host's device could send `expected`. */
  | { kind: "path"; host: string; mtu: number; expected: number };

/** Where this node stands in the swarm's network; given when it joins. */
export interface ClusterNetworking {
  readonly bindAddress: string;
  readonly advertiseAddress: string;
  readonly dataPathAddress: string;
  /** 4789 unless the cluster says otherwise. */
  readonly dataPathPort: number;
}

export interface NetworkController extends AsyncDisposable {
  readonly events: Emitter<NetworkEvent>;
  /** Names of the drivers that this kernel can do, as in `docker info`. */
  drivers(): DriverName[];

  /**
   * Creates a network. Local ones get their pools and gateways chosen here; swarm ones come complete
   * and may carry this node's load balancer address. Throws Docker's messages for bad input.
   */
  create(spec: NetworkSpec, options?: { lbAddress?: string }): Promise<NetworkSpec>;
  /** Throws forbidden while endpoints of containers exist ("has active endpoints"). */
  remove(id: string): Promise<void>;
  get(id: string): NetworkSpec | undefined;
  list(): NetworkSpec[];
  /** The endpoints on this host. */
  endpoints(networkId: string): ListedEndpoint[];
  /** Gossip members of a swarm network. */
  peers(networkId: string): { name: string; address: string }[];
  /** Services and tasks of a network, swarm-wide (`network inspect --verbose`). */
  services(networkId: string): VerboseService[];

  createSandbox(request: SandboxRequest): Promise<Sandbox>;
  /** Removes the namespace and all its endpoints. Unknown ids are no error. */
  removeSandbox(id: string): Promise<void>;
  sandbox(id: string): Sandbox | undefined;
  connect(sandboxId: string, request: EndpointRequest): Promise<Endpoint>;
  disconnect(sandboxId: string, networkId: string): Promise<void>;
  sandboxEndpoints(sandboxId: string): Endpoint[];
  publishedPorts(sandboxId: string): PublishedPort[];
  /** Contents of /etc/hosts and /etc/resolv.conf as they should be now. */
  files(sandboxId: string): { hosts: string; resolvConf: string };
  renameEndpoints(sandboxId: string, name: string): Promise<void>;

  /**
   * Discovery and balancing of a sandbox: "active" publishes its names (and its service bindings),
   * "draining" withdraws them from everybody while connections go on, "inactive" deletes them.
   */
  setActivity(sandboxId: string, activity: "active" | "draining" | "inactive"): Promise<void>;
  /**
   * Resolves when all nodes of the sandbox's overlay networks act on its present activity, at the latest after two
   * seconds; gives the gossip names of nodes of ours that did not say so.
   */
  told(sandboxId: string, signal?: AbortSignal): Promise<string[]>;
  /** Whether programs in the sandbox listen on these TCP ports, for others than themselves. */
  isListening(sandboxId: string, ports: readonly number[]): boolean;
  /** Number of connections to the sandbox's programs that are in the middle of something. */
  busyConnections(sandboxId: string): number;

  /** After a restart: adopts what is there, sweeps sandboxes that are not in `alive`. */
  restore(alive: ReadonlySet<string>): Promise<void>;

  /** Joins the swarm's network: gossip starts as soon as keys are there. */
  startCluster(cluster: ClusterNetworking): Promise<void>;
  setKeys(keys: { gossip: GossipKey[]; ipsec: GossipKey[] }): Promise<void>;
  /** Hosts of the managers, for joining gossip; own address included or not. */
  setManagers(hosts: string[]): void;
  /** Whether gossip has lost a host (suspected or failed); undefined where it knows nothing of it. */
  isSilent(host: string): boolean | undefined;
  /** The load balancer address (CIDR) of this node per swarm network id; networks that vanish are torn down. */
  setLoadBalancers(addresses: ReadonlyMap<string, string>): Promise<void>;
  /** Leaves gossip and removes every swarm network. */
  stopCluster(): Promise<void>;

  /** The paths to the other hosts of this node's overlays: what fits (undefined: nobody answers), what should. */
  paths(): { host: string; mtu: number | undefined; expected: number }[];

  /** Connection tables of the kernel that are full: whose, how many entries, how many are allowed. */
  fullConnectionTables(): { owner: string; count: number; max: number; refused: number; displaced: number }[];

  /** What people can see of all this; looking changes nothing. */
  readonly view: NetworkView;

  /** One full pass of plan and reconcile over every namespace; gives what was mended. */
  reconcile(): Promise<string[]>;
  /** The plan of every namespace as a person reads it, nftables included if asked for. */
  explain(options?: { tables: boolean }): { namespace: string; text: string }[];
}

/** The mark of the packets and connections that go by the host's own leg in the ingress network, and where it leads. */
export interface MeshRouting {
  readonly mark: number;
  /** The bits that the mark is in; the others stay whosever they are. */
  readonly mask: number;
  /** Of a routing table that nobody else uses. */
  readonly table: number;
}

export interface NetworkControllerOptions {
  /** Persistent state (networks, endpoints, address leases). */
  readonly stateDir: string;
  /** Where namespaces are pinned, e.g. /run/skein/netns. */
  readonly netnsDir: string;
  /** Name server and hosts files of the host, default /etc/resolv.conf. */
  readonly resolvConf?: string;
  /** Default bridge: name, subnet; default docker0 with the first free pool. */
  readonly bip?: string;
  readonly defaultAddressPools?: { base: string; size: number }[];
  /** How the routing mesh tells the host's routing of its packets; false: it goes by `ingress_sbox` alone. */
  readonly meshRouting?: MeshRouting | false;
  readonly log: import("../base/log.ts").Logger;
  readonly clock?: import("../base/clock.ts").Clock;
}
