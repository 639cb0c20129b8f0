/** An overlay network as people see it: what was told, what became of it in the plan, what the kernel has. Pure. */
import { toIpv6 } from "../../base/dual-stack.ts";
import type { Link } from "../../kernel/types.ts";
import { plainIp } from "../address.ts";
import { type OverlayOptions, parseOverlay } from "../drivers/overlay.ts";
import type { Told } from "../overlay/tables.ts";
import { subnetIndex } from "../plan/overlay.ts";
import type { NamespacePlan, PlannedLink } from "../plan/types.ts";
import { attachedTo, type World } from "../plan/world.ts";
import type { Actual } from "../reconcile/diff.ts";
import type { NetworkState } from "../state.ts";
import type { LinkLook, LocalEndpoint, NodeState, RemoteEndpoint } from "./types.ts";

/** What is known of who told something. */
export interface Announcer {
  stateOf(node: string): NodeState;
  isSuspended(node: string): boolean;
}

export function localEndpoints(world: World, networkId: string): LocalEndpoint[] {
  return attachedTo(world, networkId).map(({ sandbox, endpoint }) => ({
    endpointId: endpoint.id,
    name: endpoint.name,
    sandbox: sandbox.id,
    kind: sandbox.kind,
    address: plainIp(endpoint.ipv4),
    address6: plainIp(endpoint.ipv6),
    mac: endpoint.mac,
    link: endpoint.outerName,
    state: sandbox.activity,
    service: endpoint.service?.name ?? "",
  }));
}

/** `actual` is undefined where the network's namespace was not looked at. */
export function remoteEndpoints(
  told: readonly Told[],
  network: NetworkState,
  world: World,
  plan: NamespacePlan | undefined,
  actual: Actual | undefined,
  announcer: Announcer,
): RemoteEndpoint[] {
  const options = parseOverlay(network.spec, world);
  const planned = new Set(plan?.fdb.map(({ mac, dst }) => `${mac} ${dst}`));
  const answered = new Set(plan?.neighs.map(({ address, mac }) => `${address} ${mac}`));
  const neighs = new Map(actual?.neighs.filter((one) => one.permanent).map((one) => [one.address, one.mac]));
  const fdb = new Map(actual?.fdb.flatMap(({ owner, mac, dst }) => (owner === "self" && dst ? [[mac, dst]] : [])));
  const found = told.map(({ endpointId, owner, ownerAddress, peer, participant, doubted }): RemoteEndpoint => {
    const used =
      peer !== undefined && planned.has(`${peer.mac} ${peer.vtep}`) && answered.has(`${peer.address} ${peer.mac}`);
    const verdict = (has: string | undefined, wanted: string) => (has === wanted ? "ok" : (has ?? "missing"));
    return {
      endpointId,
      name: participant?.name ?? "",
      service: participant?.service?.name ?? "",
      address: peer?.address ?? participant?.address ?? "",
      address6: (options.dual && peer && toIpv6(options.dual, peer.address)) ?? "",
      mac: peer?.mac ?? "",
      host: peer?.vtep ?? "",
      announcedBy: { node: owner, address: ownerAddress, state: announcer.stateOf(owner) },
      state: standing(participant, peer !== undefined, announcer.isSuspended(owner)),
      doubted,
      unused: used || !peer ? "" : whyUnused(peer, options, world),
      neighbour: used && actual ? verdict(neighs.get(peer.address), peer.mac) : "",
      fdb: used && actual ? verdict(fdb.get(peer.mac), peer.vtep) : "",
    };
  });
  return found.sort((a, b) => compareAddresses(a.address, b.address));
}

function standing(participant: Told["participant"], reachable: boolean, suspended: boolean): RemoteEndpoint["state"] {
  if (!participant) return "address only";
  if (!reachable) return "no address";
  if (suspended) return "suspended";
  return participant.draining ? "draining" : "active";
}

function whyUnused(peer: NonNullable<Told["peer"]>, options: OverlayOptions, world: World): string {
  if (!world.cluster) return "this host is in no swarm";
  if (peer.vtep === world.cluster.dataPathAddress) return "claims to be on this host";
  const index = subnetIndex(options, peer.address);
  if (index < 0) return "outside of the network's subnets";
  if (options.subnets[index]?.subnet.prefix !== peer.prefix) return "has another mask than the network";
  return "a later record has its address or MAC";
}

export function linkLooks(plan: NamespacePlan, actual: Actual): LinkLook[] {
  const there = new Map(actual.links.map((link) => [link.name, link]));
  const planned = plan.links.filter(({ kind }) => kind !== "loopback");
  const names = new Set(plan.links.map(({ name }) => name));
  const state = (link: Link | undefined) => (!link ? "missing" : link.up ? "up" : "down");
  return [
    ...planned.map(
      (link): LinkLook => ({
        name: link.name,
        kind: link.kind,
        purpose: purposeOf(link),
        ...("mtu" in link && { mtu: there.get(link.name)?.mtu ?? link.mtu }),
        state: state(there.get(link.name)),
      }),
    ),
    ...actual.links
      .filter(({ name }) => !names.has(name))
      .map(({ name, kind, mtu }): LinkLook => ({ name, kind, purpose: "", mtu, state: "unplanned" })),
  ];
}

function purposeOf(link: PlannedLink): string {
  switch (link.kind) {
    case "vxlan":
      return `VNI ${link.vni} from ${link.local} port ${link.port}`;
    case "veth":
      return `${link.inner.name} of ${link.inner.namespace.replace(/^sandbox\//, "")}`;
    default:
      return "";
  }
}

/** By their numbers, IPv4 before IPv6. */
export function compareAddresses(a: string, b: string): number {
  const key = (text: string) =>
    text
      .split(".")
      .map((part) => part.padStart(3, "0"))
      .join(".");
  return Number(a.includes(":")) - Number(b.includes(":")) || (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0);
}
