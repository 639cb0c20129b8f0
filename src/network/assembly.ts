/**
 * The parts of the network room, and who tells whom. Many know of each other; what one hands another is a function that
 * is called when all of them are there.
 */
import { messageOf } from "../base/errors.ts";
import { readSysctl } from "../kernel/sysctl.ts";
import { Announcements } from "./announce.ts";
import { reachOf } from "./balance.ts";
import { isUserChainWhole, relayedScript, userChainScript } from "./balancer/user.ts";
import { Cluster } from "./cluster.ts";
import { ConnectionTables, tablesOf } from "./connection-tables.ts";
import type { Core } from "./core.ts";
import { Datapath } from "./datapath.ts";
import { Following } from "./following.ts";
import { HostLiveness } from "./liveness.ts";
import { Names } from "./names.ts";
import { Neighbours } from "./neighbours.ts";
import { Networks } from "./networks.ts";
import { Overlays } from "./overlays.ts";
import { PathMtu } from "./path-mtu.ts";
import { neighbourSysctls } from "./plan/host.ts";
import { HostPorts } from "./ports.ts";
import { Presence } from "./presence.ts";
import { Proxies } from "./proxies.ts";
import { Repairs } from "./repairs.ts";
import { Sandboxes } from "./sandboxes.ts";
import { Upkeep } from "./upkeep.ts";
import { View } from "./view/view.ts";

/** What calls come to. */
export type Parts = ReturnType<typeof assemble>;

export function assemble(core: Core) {
  const ports = new HostPorts({
    reach: (owner) => ({
      ...reachOf(core.world, owner),
      ...(!core.sandboxes.has(owner) && {
        routeOf: (port, client, at) => proxies.routeOf(datapath.meshPort(port), client, at),
      }),
    }),
    relaying: (relayed) => core.namespaces.host.nft.run(relayedScript(relayed)),
    log: core.log,
  });
  const networks = new Networks(core);
  const neighbours = new Neighbours(core);
  const tables = new ConnectionTables({ clock: core.clock, log: core.log, read: () => tablesOf(core) });
  const cluster = new Cluster(
    core,
    (networkId, changed) => {
      following
        .changed(networkId, ...changed)
        .catch((error) => core.log.error("cannot follow a change of the network", { error: messageOf(error) }));
    },
    () => following.hostCame(),
  );
  const names = new Names(core, (networkId) => cluster.participants(networkId));
  const proxies = new Proxies(core);
  const datapath = new Datapath(core, cluster, names, ports, proxies);
  const sandboxes = new Sandboxes(core, ports, {
    prepareOverlay: (network) => overlays.ensure(network),
    gatewayBridge: () => networks.ensureGatewayBridge(),
    joining: (sandbox) => presence.serve(sandbox),
    joined: (sandbox, endpoint) => presence.joined(sandbox, endpoint),
    leaving: (_sandbox, endpoint) => presence.leaving(endpoint),
    left: (sandbox, endpoint) => presence.left(sandbox, endpoint),
    sandboxGone: (sandbox) => presence.sandboxGone(sandbox),
  });
  const pathMtu = new PathMtu(core, () => cluster.hosts());
  const overlays = new Overlays(core, networks, sandboxes, cluster);
  const announcements = new Announcements({
    clock: core.clock,
    log: core.log,
    gossip: () => cluster.gossip,
    isOurs: (peer) => cluster.doors().has(peer),
    standing: (networkId, endpointId) => following.standing(networkId, endpointId),
  });
  const liveness = new HostLiveness(() => cluster.gossip);
  const following = new Following({
    core,
    cluster,
    datapath,
    names,
    neighbours,
    pathMtu,
    applied: (networkId) => announcements.applied(networkId),
  });
  const presence = new Presence({
    core,
    cluster,
    following,
    names,
    neighbours,
    proxies,
    sandbox: (id) => sandboxes.get(id),
    emptied: (networkId) => overlays.removeIfVanished(networkId),
  });
  const repairs = new Repairs();
  const upkeep = new Upkeep({
    core,
    repairs,
    before: () => compareAll(),
    repin: (which) => overlays.repin(which),
    after: () => {
      for (const { spec } of core.networks.values()) if (spec.driver === "overlay") neighbours.follow(spec.id, true);
    },
  });
  const view = new View({
    core,
    cluster,
    datapath,
    paths: pathMtu.paths,
    repairs,
    names,
  });
  core.events.on((event) => {
    if (event.kind === "destroy") following.forget(event.network.id);
  });
  const sysctls = neighbourSysctls((key) => {
    try {
      return Number(readSysctl(key));
    } catch {
      // Only the initial namespace has them.
      return undefined;
    }
  });
  core.contributions = {
    remotePeers: (networkId) => cluster.remotePeers(networkId),
    sandboxExtras: (sandbox) => datapath.sandboxExtras(sandbox),
    hostTables: () => datapath.hostTables(),
    hostSysctls: () => ({ ...sysctls, ...datapath.hostSysctls() }),
  };

  /** What plans are computed from, and what no plan covers, compared with where it comes from. */
  async function compareAll(): Promise<void> {
    ensureUserChain(core, ports);
    for (const networkId of cluster.resync()) {
      const network = core.networks.get(networkId);
      names.changed(networkId);
      if (network) datapath.changed(network);
    }
    await networks.sweepUnused();
    datapath.reserve();
    await pathMtu.follow();
  }

  return {
    ...{ announcements, cluster, datapath, liveness, names, networks, overlays, pathMtu },
    ...{ ports, presence, proxies, sandboxes, tables, upkeep, view },
  };
}

/** Makes the operator's chain where it is missing, or somebody took away what leads to it. */
export function ensureUserChain({ namespaces }: Core, ports: HostPorts): void {
  const { nft } = namespaces.host;
  if (!isUserChainWhole(nft.list("table inet operator"))) nft.run(userChainScript(ports.relayed()));
}
