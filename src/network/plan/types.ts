/**
 * What should be in a network namespace, as plain data. Links are named, never numbered: a plan
 * can be made, compared, printed and tested without a kernel.
 */
import type { PlannedTable } from "./table.ts";

/** "host", "overlay/<network id>" or "sandbox/<sandbox id>". */
export type NamespaceKey = "host" | `overlay/${string}` | `sandbox/${string}`;

interface LinkBase {
  readonly name: string;
  readonly mtu: number;
}

export type PlannedLink =
  | (LinkBase & { readonly kind: "bridge"; readonly mac?: string; readonly alias: string; readonly byUser?: boolean })
  | (LinkBase & {
      readonly kind: "vxlan";
      readonly vni: number;
      readonly port: number;
      /** Outer source address. Always set, or the kernel may choose another than the one that was advertised. */
      readonly local: string;
      readonly master: string;
    })
  /** The outer half of a veth pair; making it makes the inner half in the other namespace too. */
  | (LinkBase & {
      readonly kind: "veth";
      readonly master: string;
      readonly isolated: boolean;
      readonly alias: string;
      readonly inner: { readonly namespace: NamespaceKey; readonly name: string; readonly mac: string };
    })
  /** The inner half of a veth pair, made by the plan of the namespace that has the outer half. */
  | (LinkBase & {
      readonly kind: "inner";
      readonly mac: string;
      readonly outer: { readonly namespace: NamespaceKey; readonly name: string };
    })
  /** Made on a device of the host and moved in. */
  | (LinkBase & { readonly kind: "macvlan"; readonly mac: string; readonly lower: string; readonly mode: MacvlanMode })
  | (LinkBase & { readonly kind: "ipvlan"; readonly lower: string; readonly mode: IpvlanMode })
  | (LinkBase & { readonly kind: "dummy"; readonly alias: string })
  | (LinkBase & { readonly kind: "vlan"; readonly lower: string; readonly id: number; readonly alias: string })
  | { readonly kind: "loopback"; readonly name: "lo" };

export type MacvlanMode = "bridge" | "private" | "vepa" | "passthru";
export type IpvlanMode = "l2" | "l3" | "l3s";

export interface PlannedAddr {
  readonly link: string;
  readonly address: string;
  readonly prefix: number;
  /** "link": no source for what leaves by other devices. */
  readonly scope?: "link";
}

export interface PlannedRoute {
  readonly dst: string;
  readonly family: 4 | 6;
  readonly link: string;
  readonly gateway?: string;
  readonly table?: number;
  readonly onlink?: boolean;
}

export interface PlannedRule {
  readonly family: 4 | 6;
  readonly priority: number;
  readonly mark: number;
  readonly mask: number;
  readonly table: number;
}

export interface PlannedNeigh {
  readonly link: string;
  readonly address: string;
  readonly mac: string;
}

export interface PlannedFdb {
  readonly link: string;
  readonly mac: string;
  readonly dst: string;
}

export interface NamespacePlan {
  readonly key: NamespaceKey;
  /** One line for a person: what this namespace is for. */
  readonly purpose: string;
  /**
   * Who else may put things here. "ours": nobody, all that is not planned goes. "shared": the host's or
   * a container's own things stay; only what carries our alias is ours.
   */
  readonly ownership: "ours" | "shared";
  readonly links: readonly PlannedLink[];
  readonly addrs: readonly PlannedAddr[];
  readonly routes: readonly PlannedRoute[];
  readonly rules: readonly PlannedRule[];
  readonly neighs: readonly PlannedNeigh[];
  readonly fdb: readonly PlannedFdb[];
  /** In a shared namespace: a routing table that is ours alone, with the rules that lead to it. */
  readonly ownTable?: number;
  /** Dotted name to value. */
  readonly sysctls: Readonly<Record<string, string>>;
  readonly tables: readonly PlannedTable[];
  /** Devices whose packets pass the forward chain of iptables' own table, whatever its policy. */
  readonly passages?: readonly string[];
}

/** What a link that we made is known by in a shared namespace. */
export const aliasPrefix = "skeind: ";

export const emptyPlan = (key: NamespaceKey, purpose: string, ownership: "ours" | "shared"): NamespacePlan => ({
  key,
  purpose,
  ownership,
  links: [],
  addrs: [],
  routes: [],
  rules: [],
  neighs: [],
  fdb: [],
  sysctls: {},
  tables: [],
});

/** What a rule that we made in somebody else's table is known by. */
export const ruleMark = "skeind";

/** A device's name as part of a sysctl's dotted name. */
export const sysctlName = (link: string): string => link.replaceAll(".", "/");

/**
 * Frames within a bridge are no packets of the host: with br_netfilter on, its `prerouting` would translate them on the
 * bridge, where they cannot turn back. Ports that may not talk to each other are isolated instead.
 */
export const bridgedIsNotRouted: Readonly<Record<string, string>> = {
  "net.bridge.bridge-nf-call-iptables": "0",
  "net.bridge.bridge-nf-call-ip6tables": "0",
  "net.bridge.bridge-nf-call-arptables": "0",
};
