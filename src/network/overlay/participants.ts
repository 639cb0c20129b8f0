/** Who takes part in discovery on a network, here and elsewhere. Pure. */
import { toIpv6 } from "../../base/dual-stack.ts";
import { plainIp } from "../address.ts";
import { dualStack } from "../drivers/overlay.ts";
import { attachedTo, type World } from "../plan/world.ts";
import type { Participant } from "./records.ts";

/**
 * This node's active endpoints, then the others'. `remote`: those that were told, reachable and not suspected; `isOurs`:
 * whether a node, by its gossip name, is a Skein node.
 */
export function participantsOf(
  world: World,
  networkId: string,
  remote: readonly Participant[],
  isOurs: (node: string) => boolean,
): Participant[] {
  const all = [...localParticipants(world, networkId), ...remote];
  const spec = world.networks.get(networkId)?.spec;
  const dual = spec && dualStack(spec);
  if (!dual) return all;
  return all.map((p) => {
    // Docker's nodes do not carry IPv6 over a tunnel, so that only what is here and on ours has an address to tell.
    const address6 = p.local ? p.address6 : (isOurs(p.owner) && toIpv6(dual, p.address)) || "";
    const vip6 = address6 && p.service?.vip ? toIpv6(dual, p.service.vip) : undefined;
    return { ...p, address6, ...(vip6 !== undefined && { vip6 }) };
  });
}

function localParticipants(world: World, networkId: string): Participant[] {
  const hostAddress = world.cluster?.advertiseAddress ?? "";
  return attachedTo(world, networkId)
    .filter(({ sandbox, endpoint }) => endpoint.role === "user" && sandbox.activity !== "inactive")
    .map(({ sandbox, endpoint }) => ({
      endpointId: endpoint.id,
      name: endpoint.name,
      aliases: endpoint.aliases,
      address: plainIp(endpoint.ipv4),
      address6: plainIp(endpoint.ipv6),
      service: endpoint.service,
      draining: sandbox.activity === "draining",
      hostAddress,
      owner: "",
      local: true,
    }));
}
