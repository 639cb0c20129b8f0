/** What each kind of device has of its own (IFLA_INFO_DATA, IFLA_PROTINFO). */
import { familyOf, toBytes } from "../inet.ts";
import type { Builder } from "../netlink/codec.ts";
import type { LinkChange, NewLink } from "../types.ts";

export const MACVLAN_MODES = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const;
const IPVLAN_MODES = { l2: 0, l3: 1, l3s: 2 } as const;

const IFLA_BR_AGEING_TIME = 4;
const IFLA_BR_STP_STATE = 5;
const IFLA_BR_VLAN_DEFAULT_PVID = 39;

const IFLA_VLAN_ID = 1;

const IFLA_VXLAN_ID = 1;
const IFLA_VXLAN_LINK = 3;
const IFLA_VXLAN_LOCAL = 4;
const IFLA_VXLAN_LEARNING = 7;
const IFLA_VXLAN_PROXY = 11;
const IFLA_VXLAN_L2MISS = 13;
const IFLA_VXLAN_L3MISS = 14;
const IFLA_VXLAN_PORT = 15;
const IFLA_VXLAN_LOCAL6 = 17;
const IFLA_VXLAN_UDP_CSUM = 18;

const IFLA_BRPORT_MODE = 4;
const IFLA_BRPORT_LEARNING = 8;
const IFLA_BRPORT_ISOLATED = 33;

export function linkData(data: Builder, link: Exclude<NewLink, { kind: "veth" }>): void {
  switch (link.kind) {
    case "dummy":
      return;
    case "vlan":
      data.u16(IFLA_VLAN_ID, link.id);
      return;
    case "bridge":
      if (link.vlanDefaultPvid !== undefined) data.u16(IFLA_BR_VLAN_DEFAULT_PVID, link.vlanDefaultPvid);
      if (link.stp !== undefined) data.u32(IFLA_BR_STP_STATE, link.stp ? 1 : 0);
      // Seconds here, hundredths there.
      if (link.ageingTime !== undefined) data.u32(IFLA_BR_AGEING_TIME, link.ageingTime * 100);
      return;
    case "vxlan":
      data.u32(IFLA_VXLAN_ID, link.vni);
      data.be16(IFLA_VXLAN_PORT, link.port);
      if (link.local !== "") {
        const attribute = familyOf(link.local) === 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6;
        data.attr(attribute, toBytes(link.local));
      }
      if (link.lower !== undefined) data.u32(IFLA_VXLAN_LINK, link.lower);
      data.u8(IFLA_VXLAN_LEARNING, link.learning ? 1 : 0);
      data.u8(IFLA_VXLAN_PROXY, link.proxy ? 1 : 0);
      if (link.l2miss !== undefined) data.u8(IFLA_VXLAN_L2MISS, link.l2miss ? 1 : 0);
      if (link.l3miss !== undefined) data.u8(IFLA_VXLAN_L3MISS, link.l3miss ? 1 : 0);
      if (link.udpCsum !== undefined) data.u8(IFLA_VXLAN_UDP_CSUM, link.udpCsum ? 1 : 0);
      return;
    case "macvlan":
      data.u32(1, MACVLAN_MODES[link.mode]);
      return;
    case "ipvlan":
      data.u16(1, IPVLAN_MODES[link.mode]);
      return;
  }
}

export function bridgePort(data: Builder, change: Pick<LinkChange, "hairpin" | "isolated" | "bridgeLearning">): void {
  const flag = (type: number, value: boolean | undefined) => {
    if (value !== undefined) data.u8(type, value ? 1 : 0);
  };
  flag(IFLA_BRPORT_MODE, change.hairpin);
  flag(IFLA_BRPORT_LEARNING, change.bridgeLearning);
  flag(IFLA_BRPORT_ISOLATED, change.isolated);
}
