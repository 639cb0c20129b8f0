/**
 * Services' virtual addresses, in the namespace of each container that can call them: table `ip skein-vips`, and
 * `ip6 skein-vips` on networks with IPv6, where a service's address is the twin of its IPv4 one as everybody's is.
 *
 * The walk of a packet: the container's connect() to a VIP; nat `output`, once per connection: the destination is
 * looked up in `services`, the service's chain rewrites it to one of the tasks at random. From there it is an
 * ordinary packet between two containers, on this host or another: the task sees the caller's own address, nothing
 * is kept in the middle, and no connection is cut for being idle. Ping works as everything else does. `prerouting`
 * does the same for what is only routed through (a container with containers of its own).
 *
 * Cost: one look-up whatever the number of services. When a task goes, its connections are forgotten in conntrack: their
 * next packet is then dealt to another task, which resets what it does not know.
 */
import { familyOf } from "../../kernel/inet.ts";
import { type PlannedTable, replaceScript } from "../plan/table.ts";
import { baseChain, body, chain, DSTNAT, dnatToOneOf, namedMap, REFUSAL, REFUSAL6 } from "./text.ts";
import type { VipService } from "./types.ts";

const NAME = "skein-vips";
const words = {
  4: { family: "ip", type: "ipv4_addr", refusal: REFUSAL },
  6: { family: "ip6", type: "ipv6_addr", refusal: REFUSAL6 },
} as const;

const chainOf = (service: VipService): string => `svc-${service.id}`;
const elementOf = (service: VipService): string => `${service.vip} : goto ${chainOf(service)}`;

const wordsOf = ({ vip }: VipService) => words[familyOf(vip)];

const rulesOf = (service: VipService): readonly string[] =>
  service.backends.length > 0 ? [dnatToOneOf(service.backends)] : wordsOf(service).refusal;

/** All services are of the family. */
export function vipTable(services: readonly VipService[], of: 4 | 6 = 4): PlannedTable {
  const { family, type } = words[of];
  const entry = [`${family} daddr vmap @services`];
  return {
    family,
    name: NAME,
    body: body(
      namedMap("services", `${type} : verdict`, services.map(elementOf)),
      ...services.map((service) => chain(chainOf(service), rulesOf(service))),
      baseChain("output", "nat", "output", DSTNAT, entry),
      baseChain("prerouting", "nat", "prerouting", DSTNAT, entry),
    ),
  };
}

/** A script that puts the whole table in place, whatever was there. */
export function renderVips(services: readonly VipService[], of: 4 | 6 = 4): string {
  return replaceScript(vipTable(services, of));
}

/**
 * The smallest transaction from one state of a service to another; undefined for a service that is not there
 * (before) or goes (after). The table must be in place.
 */
export function updateVip(before: VipService | undefined, after: VipService | undefined): string {
  const one = after ?? before;
  if (!one) return "";
  if (before && after && before.id !== after.id) return updateVip(before, undefined) + updateVip(undefined, after);
  const table = `${wordsOf(one).family} ${NAME}`;
  const lines: string[] = [];
  const moved = before?.vip !== after?.vip;
  if (before && moved) lines.push(`delete element ${table} services { ${before.vip} }`);
  if (after) {
    const name = `${table} ${chainOf(after)}`;
    lines.push(before ? `flush chain ${name}` : `add chain ${name}`);
    lines.push(...rulesOf(after).map((rule) => `add rule ${name} ${rule}`));
    if (moved) lines.push(`add element ${table} services { ${elementOf(after)} }`);
  } else if (before) {
    lines.push(`flush chain ${table} ${chainOf(before)}`, `delete chain ${table} ${chainOf(before)}`);
  }
  return `${lines.join("\n")}\n`;
}
