/**
 * Services' virtual addresses as tables, one per family and combination of networks, computed once for however many
 * containers show it; and the small steps from a table that is loaded to the one that should be.
 */
import { toIpv6 } from "../base/dual-stack.ts";
import { callableNetworks, vipsOf } from "./balance.ts";
import type { VipService } from "./balancer/types.ts";
import { updateVip, vipTable } from "./balancer/vip.ts";
import type { Cluster } from "./cluster.ts";
import type { Core } from "./core.ts";
import { dualStack } from "./drivers/overlay.ts";
import { type PlannedTable, tableId } from "./plan/table.ts";
import { type SandboxState, sandboxKey } from "./state.ts";

type Family = 4 | 6;

interface Vips {
  readonly services: readonly VipService[];
  readonly table: PlannedTable;
  /** Scripts that lead here from earlier states, by their bodies. */
  readonly paths: Map<string, string>;
}

/**
 * For so long after its last task a service still refuses: connections that were open would otherwise wait for an
 * answer to their last packet as long as TCP is willing to.
 */
const lateMs = 10 * 60_000;

interface Late {
  readonly service: VipService;
  readonly until: number;
}

export class VipTables {
  readonly #core: Core;
  readonly #cluster: Cluster;
  /** By family and network; dropped when the network's participants change. */
  readonly #services = new Map<string, readonly VipService[]>();
  /** Services by family and network, then by VIP, that were there lately. */
  readonly #late = new Map<string, Map<string, Late>>();
  /** By family and the networks of a container, joined: the table that all such containers have. */
  readonly #vips = new Map<string, Vips>();
  /** What a loaded body was made of, to find the way from it to the next: the last few of each combination. */
  readonly #earlier = new Map<string, Vips[]>();

  constructor(core: Core, cluster: Cluster) {
    this.#core = core;
    this.#cluster = cluster;
  }

  /** The participants of a network changed. */
  changed(networkId: string): void {
    for (const family of [4, 6] as const) this.#services.delete(keyOf(family, networkId));
    for (const [key, vips] of this.#vips) {
      if (!key.split(" ").includes(networkId)) continue;
      this.#vips.delete(key);
      this.#earlier.set(key, [vips, ...(this.#earlier.get(key) ?? [])].slice(0, 4));
    }
  }

  tablesOf(sandbox: SandboxState): PlannedTable[] {
    const networks = callableNetworks(this.#core.world, sandbox);
    const dual = networks.filter((id) => this.#dual(id));
    return [this.#tableOf(sandbox, 4, networks), this.#tableOf(sandbox, 6, dual)].flatMap((table) => table ?? []);
  }

  #dual(networkId: string) {
    const spec = this.#core.networks.get(networkId)?.spec;
    return spec && dualStack(spec);
  }

  #tableOf(sandbox: SandboxState, family: Family, networks: readonly string[]): PlannedTable | undefined {
    if (networks.length === 0) return undefined;
    const key = keyOf(family, ...networks);
    let vips = this.#vips.get(key);
    if (!vips) {
      const services = networks.flatMap((networkId) => this.#servicesOf(networkId, family));
      vips = { services, table: vipTable(services, family), paths: new Map() };
      this.#vips.set(key, vips);
    }
    if (vips.services.length === 0) return undefined;
    const loaded = this.#core.namespaces.find(sandboxKey(sandbox.id))?.loaded.get(tableId(vips.table))?.body;
    if (loaded === undefined || loaded === vips.table.body) return vips.table;
    let script = vips.paths.get(loaded);
    if (script === undefined) {
      const before = this.#earlier.get(key)?.find(({ table }) => table.body === loaded);
      if (!before) return vips.table;
      script = pathBetween(before.services, vips.services);
      vips.paths.set(loaded, script);
    }
    return { ...vips.table, patch: { from: loaded, script } };
  }

  #servicesOf(networkId: string, family: Family): readonly VipService[] {
    const key = keyOf(family, networkId);
    const known = this.#services.get(key);
    if (known) return known;
    const now = this.#core.clock.steady();
    const services = vipsOf(networkId, this.#cluster.participants(networkId), family);
    const late = this.#late.get(key) ?? new Map<string, Late>();
    for (const service of services)
      late.set(service.vip, { service: { ...service, backends: [] }, until: now + lateMs });
    // An address that somebody else has now is no late service's any more.
    for (const address of this.#taken(networkId, family)) late.delete(address);
    for (const [vip, { until }] of late) if (until <= now) late.delete(vip);
    this.#late.set(key, late);
    const here = new Set(services.map((service) => service.vip));
    const gone = [...late.values()].flatMap(({ service }) => (here.has(service.vip) ? [] : [service]));
    const all = apart([...services, ...gone]);
    this.#services.set(key, all);
    return all;
  }

  #taken(networkId: string, family: Family): string[] {
    const taken = this.#cluster.taken(networkId);
    const dual = family === 6 ? this.#dual(networkId) : undefined;
    return dual ? taken.flatMap((address) => toIpv6(dual, address) ?? []) : taken;
  }

  forget(networkId: string): void {
    for (const map of [this.#services, this.#late, this.#vips, this.#earlier]) {
      for (const key of map.keys()) if (key.split(" ").includes(networkId)) map.delete(key);
    }
  }
}

const keyOf = (family: Family, ...networks: readonly string[]): string => [family, ...networks].join(" ");

/** One service may have several addresses: while they change (`--endpoint-mode`, networks), and of the former ones, lately. */
export function apart(services: readonly VipService[]): VipService[] {
  const ids = new Set<string>();
  return services.map((service) => {
    const id = ids.has(service.id) ? `${service.id}.${service.vip.replaceAll(":", "-")}` : service.id;
    ids.add(id);
    return { ...service, id };
  });
}

/**
 * The changes that lead from one set of services to another; ids and addresses are unique in each. What goes goes first:
 * another one may come to its address, or to its id.
 */
export function pathBetween(before: readonly VipService[], after: readonly VipService[]): string {
  const nameOf = ({ id, vip }: VipService) => `${id} ${vip}`;
  const old = new Map(before.map((service) => [nameOf(service), service]));
  const kept = new Set(after.map(nameOf));
  const script = before.flatMap((service) => (kept.has(nameOf(service)) ? [] : updateVip(service, undefined)));
  for (const service of after) {
    const was = old.get(nameOf(service));
    if (JSON.stringify(was) !== JSON.stringify(service)) script.push(updateVip(was, service));
  }
  return script.join("");
}
