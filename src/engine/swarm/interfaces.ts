/** The host's interfaces, read from the kernel. */
import type { Rtnl } from "../../kernel/types.ts";
import type { HostInterface } from "./address.ts";

export function hostInterfaces(rtnl: Rtnl): HostInterface[] {
  const addresses = rtnl.addrs();
  return rtnl.links().map((link) => ({
    name: link.name,
    kind: link.kind,
    up: link.up,
    loopback: link.name === "lo",
    addresses: addresses
      .filter((address) => address.link === link.index && address.scope !== "link")
      .map((address) => address.address),
  }));
}
