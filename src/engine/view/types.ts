/**
 * What `skein show` shows, as JSON: this host's part from the network room, and what it knows of the swarm. A reading of
 * the moment; no secrets in it. Field names are kept once they are here.
 */
import type {
  Backend,
  GossipView,
  NamespaceDifferences,
  NetworkLook,
  PortLook,
  ServiceLook,
  Trace,
} from "../../network/view/types.ts";

export interface Views {
  status(): Promise<StatusView>;
  networks(): Promise<NetworkRow[]>;
  /** By name, id or id prefix; throws for unknown ones and those of the swarm that are not on this node. */
  network(ref: string): Promise<NetworkLook>;
  gossip(): NamedGossip;
  services(): ServiceView[];
  service(ref: string): ServiceView;
  /** `port`: "8080" or "8080/udp". */
  ports(port?: string): PortView[];
  /** From a container of this host to a name or an address. */
  trace(from: string, to: string): Promise<Trace>;
}

export interface StatusView {
  readonly host: {
    readonly name: string;
    readonly version: string;
    readonly kernel: string;
    readonly startedAt: string;
    readonly containers: { readonly running: number; readonly total: number };
  };
  readonly swarm: {
    readonly state: string;
    readonly role: "leader" | "manager" | "worker" | "none";
    readonly nodeId: string;
    readonly address: string;
    /** Where VXLAN goes from, "192.0.2.1:4789". */
    readonly dataPath: string;
    readonly error: string;
    readonly managers: readonly string[];
    /** On managers only. */
    readonly nodes?: readonly NodeRow[];
  };
  readonly gossip?: {
    readonly health: number;
    readonly alive: number;
    readonly suspect: number;
    readonly dead: number;
    readonly keys: number;
  };
  readonly networks: { readonly overlay: number; readonly local: number; readonly endpoints: number };
  readonly kernel: {
    readonly namespaces: number;
    readonly differences: readonly NamespaceDifferences[];
    readonly repairs: { readonly total: number; readonly byKind: Readonly<Record<string, number>> };
  };
  readonly paths: readonly { readonly host: string; readonly mtu: number | null; readonly expected: number }[];
  /** What deserves a look, in words. */
  readonly warnings: readonly string[];
}

export interface NodeRow {
  readonly id: string;
  readonly hostname: string;
  readonly address: string;
  readonly role: "leader" | "manager" | "worker";
  readonly state: string;
  readonly availability: string;
  readonly reachable?: boolean;
  readonly engine: string;
}

export interface NetworkRow {
  readonly id: string;
  readonly name: string;
  readonly driver: string;
  readonly scope: string;
  readonly subnets: readonly string[];
  readonly vnis: readonly number[];
  readonly mtu?: number;
  readonly here: number;
  readonly elsewhere: number;
  readonly hosts: number;
  readonly differences: number;
  readonly repairs: number;
}

export interface NamedGossip extends Omit<GossipView, "members"> {
  readonly members: readonly (GossipView["members"][number] & { readonly hostname: string })[];
}

export interface ServiceView extends Omit<ServiceLook, "networks"> {
  readonly networks: readonly (Omit<ServiceLook["networks"][number], "backends"> & {
    readonly backends: readonly (Backend & { readonly hostname: string })[];
  })[];
  /** What the managers say of its tasks that are wanted; on managers only. */
  readonly tasks?: readonly {
    readonly id: string;
    readonly name: string;
    readonly node: string;
    readonly state: string;
    readonly message: string;
    /** This node has it among the backends. */
    readonly announced: boolean;
  }[];
}

export type PortView = PortLook & {
  /** Of this host's containers by id, of nodes by address. */
  readonly names: Readonly<Record<string, string>>;
};
