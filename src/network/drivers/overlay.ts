/** Options of overlay networks. */
import { type DualStack, dualStackOf } from "../../base/dual-stack.ts";
import { invalid, notImplemented } from "../../base/errors.ts";
import { parseCidr, type Subnet } from "../address.ts";
import type { IpamPool, NetworkSpec } from "../types.ts";
import { mtuOption } from "./options.ts";

const vniOption = "com.docker.network.driver.overlay.vxlanid_list";
/** Bytes that VXLAN puts around a frame's payload: inner Ethernet 14, VXLAN 8, UDP 8, IPv4 20 or IPv6 40. */
const vxlanOverhead = (dataPathAddress = ""): number => (dataPathAddress.includes(":") ? 70 : 50);

/** What lies under the networks of a host. */
export interface Underlay {
  readonly pathMtu: number;
  readonly cluster: { readonly dataPathAddress: string } | undefined;
}

export interface OverlaySubnet {
  readonly subnet: Subnet;
  /** Plain address of `br<n>`, "" where the network has none. */
  readonly gateway: string;
  readonly vni: number;
}

export interface OverlayOptions {
  /** Of IPv4, each with a bridge and a tunnel of its own. */
  readonly subnets: readonly OverlaySubnet[];
  /** Where the addresses of the first subnet lie in IPv6; undefined for networks of IPv4 only. */
  readonly dual: DualStack | undefined;
  /** Plain address of `br0` in IPv6, "" where it has none. */
  readonly gateway6: string;
  readonly mtu: number;
}

export type OverlaySpec = Pick<NetworkSpec, "options" | "ipam" | "enableIPv6">;

/** IPv6 of an overlay network. */
export const dualStack = (spec: Pick<OverlaySpec, "ipam" | "enableIPv6">): DualStack | undefined =>
  spec.enableIPv6 ? dualStackOf(spec.ipam.config) : undefined;

/** By option, or what the path takes. */
const underlayMtu = (spec: Pick<OverlaySpec, "options">, underlay: Underlay): number =>
  mtuOption(spec.options, underlay.pathMtu);

/** Whether the network's packets are larger than the path takes, because the user said so. */
export const isTooLarge = (spec: Pick<OverlaySpec, "options">, underlay: Underlay): boolean =>
  underlayMtu(spec, underlay) > underlay.pathMtu;

const anyUnderlay: Underlay = { pathMtu: 1500, cluster: undefined };

export function parseOverlay(spec: OverlaySpec, underlay: Underlay = anyUnderlay): OverlayOptions {
  if ("encrypted" in spec.options) throw notImplemented("encrypted overlay networks (--opt encrypted)");
  if ("dsr" in spec.options) throw notImplemented("the overlay option dsr");
  const list = spec.options[vniOption];
  if (!list) throw invalid("no VNI provided");
  const vnis = list.split(",").map((text) => {
    const vni = Number(text);
    if (!/^\d+$/.test(text) || vni < 1 || vni > 0xffffff) throw invalid(`invalid vxlan id value "${text}" passed`);
    return vni;
  });
  const isIpv6 = (pool: IpamPool) => pool.subnet.includes(":");
  const ipv4 = spec.ipam.config.filter((pool) => !isIpv6(pool));
  if (ipv4.length === 0) throw invalid("ipv4 pool is empty");
  const subnets = ipv4.map((pool, index) => {
    const parsed = parseCidr(pool.subnet);
    const vni = vnis[index];
    if (!parsed) throw invalid(`invalid subnet ${pool.subnet}: invalid CIDR block notation`);
    if (vni === undefined) throw invalid("insufficient vnis passed to overlay network");
    return { subnet: parsed.subnet, gateway: pool.gateway?.split("/")[0] ?? "", vni };
  });
  const dual = dualStack(spec);
  const gateway6 = (dual && spec.ipam.config.find(isIpv6)?.gateway?.split("/")[0]) ?? "";
  return {
    subnets,
    dual,
    gateway6,
    mtu: underlayMtu(spec, underlay) - vxlanOverhead(underlay.cluster?.dataPathAddress),
  };
}
