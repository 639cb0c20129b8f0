/** Options of overlay networks. */
import { invalid, notImplemented } from "../../base/errors.ts";
import { parseCidr, type Subnet } from "../address.ts";
import type { NetworkSpec } from "../types.ts";
import { mtuOption } from "./options.ts";

export const vniOption = "com.docker.network.driver.overlay.vxlanid_list";
/** Bytes that VXLAN puts around a frame's payload over IPv4: inner Ethernet 14, VXLAN 8, UDP 8, IP 20. */
export const vxlanOverhead = 50;

export interface OverlaySubnet {
  readonly subnet: Subnet;
  /** Plain address of `br<n>`, "" where the network has none. */
  readonly gateway: string;
  readonly vni: number;
}

export interface OverlayOptions {
  readonly subnets: readonly OverlaySubnet[];
  readonly mtu: number;
}

export function parseOverlay(spec: Pick<NetworkSpec, "id" | "options" | "ipam">, pathMtu = 1500): OverlayOptions {
  if ("encrypted" in spec.options) throw notImplemented("encrypted overlay networks (--opt encrypted)");
  if ("dsr" in spec.options) throw notImplemented("the overlay option dsr");
  const list = spec.options[vniOption];
  if (!list) throw invalid("no VNI provided");
  const vnis = list.split(",").map((text) => {
    const vni = Number(text);
    if (!/^\d+$/.test(text) || vni < 1 || vni > 0xffffff) throw invalid(`invalid vxlan id value "${text}" passed`);
    return vni;
  });
  const subnets = spec.ipam.config.map((pool, index) => {
    const parsed = parseCidr(pool.subnet);
    const vni = vnis[index];
    if (!parsed) throw invalid(`invalid subnet ${pool.subnet}: invalid CIDR block notation`);
    if (vni === undefined) throw invalid("insufficient vnis passed to overlay network");
    return { subnet: parsed.subnet, gateway: pool.gateway?.split("/")[0] ?? "", vni };
  });
  return { subnets, mtu: mtuOption(spec.options, pathMtu) - vxlanOverhead };
}
