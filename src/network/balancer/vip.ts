/**
 * Services' virtual addresses, in the namespace of each container that can call them: table `ip skein-vips`.
 *
 * The walk of a packet: the container's connect() to a VIP; nat `output`, once per connection: the destination is
 * looked up in `services`, the service's chain rewrites it to one of the tasks at random. From there it is an
 * ordinary packet between two containers, on this host or another: the task sees the caller's own address, nothing
 * is kept in the middle, and no connection is cut for being idle. Ping works as everything else does. `prerouting`
 * does the same for what is only routed through (a container with containers of its own).
 *
 * Cost: one look-up whatever the number of services. When a task goes, its connections are to be forgotten in
 * `conntrack` (`goneBackends`): their next packet is then dealt to another task, which resets what it does not know.
 */
import { type PlannedTable, replaceScript } from "../plan/table.ts";
import { baseChain, body, chain, DSTNAT, dnatToOneOf, namedMap, REFUSAL } from "./text.ts";
import type { VipService } from "./types.ts";

const FAMILY = "ip";
const NAME = "skein-vips";
const TABLE = `${FAMILY} ${NAME}`;

const chainOf = (service: VipService): string => `svc-${service.id}`;
const elementOf = (service: VipService): string => `${service.vip} : goto ${chainOf(service)}`;

const rulesOf = ({ backends }: VipService): string[] => (backends.length > 0 ? [dnatToOneOf(backends)] : REFUSAL);

export function vipTable(services: readonly VipService[]): PlannedTable {
  const entry = ["ip daddr vmap @services"];
  return {
    family: FAMILY,
    name: NAME,
    body: body(
      namedMap("services", "ipv4_addr : verdict", services.map(elementOf)),
      ...services.map((service) => chain(chainOf(service), rulesOf(service))),
      baseChain("output", "nat", "output", DSTNAT, entry),
      baseChain("prerouting", "nat", "prerouting", DSTNAT, entry),
    ),
  };
}

/** A script that puts the whole table in place, whatever was there. */
export function renderVips(services: readonly VipService[]): string {
  return replaceScript(vipTable(services));
}

/**
 * The smallest transaction from one state of a service to another; undefined for a service that is not there
 * (before) or goes (after). The table must be in place.
 */
export function updateVip(before: VipService | undefined, after: VipService | undefined): string {
  if (!before && !after) return "";
  if (before && after && before.id !== after.id) return updateVip(before, undefined) + updateVip(undefined, after);
  const lines: string[] = [];
  const moved = before?.vip !== after?.vip;
  if (before && moved) lines.push(`delete element ${TABLE} services { ${before.vip} }`);
  if (after) {
    const name = `${TABLE} ${chainOf(after)}`;
    lines.push(before ? `flush chain ${name}` : `add chain ${name}`);
    lines.push(...rulesOf(after).map((rule) => `add rule ${name} ${rule}`));
    if (moved) lines.push(`add element ${TABLE} services { ${elementOf(after)} }`);
  } else if (before) {
    lines.push(`flush chain ${TABLE} ${chainOf(before)}`, `delete chain ${TABLE} ${chainOf(before)}`);
  }
  return `${lines.join("\n")}\n`;
}

/** Tasks that `before` had and `after` has not: forget their connections (`replySrc`, with `origDst` the VIP). */
export function goneBackends(
  before: readonly VipService[],
  after: readonly VipService[],
): { vip: string; backend: string }[] {
  const kept = new Set(after.flatMap(({ vip, backends }) => backends.map((backend) => `${vip} ${backend}`)));
  return before.flatMap(({ vip, backends }) =>
    backends.filter((backend) => !kept.has(`${vip} ${backend}`)).map((backend) => ({ vip, backend })),
  );
}
