/** A plan as a person reads it: what is there, line by line, in the order of how a packet meets it. */
import { tableId } from "./table.ts";
import type { NamespacePlan, PlannedLink } from "./types.ts";

export function explain(plan: NamespacePlan, options: { tables: boolean } = { tables: false }): string {
  const lines = [`${plan.key}: ${plan.purpose}`];
  for (const link of plan.links) {
    lines.push(`  ${describeLink(link)}`);
    for (const addr of plan.addrs)
      if (addr.link === link.name) lines.push(`    address ${addr.address}/${addr.prefix}`);
    for (const route of plan.routes) {
      if (route.link !== link.name) continue;
      const via = route.gateway ? ` via ${route.gateway}` : "";
      lines.push(`    route ${route.dst}${via}${route.table ? ` in table ${route.table}` : ""}`);
    }
    for (const entry of plan.fdb)
      if (entry.link === link.name) lines.push(`    frames to ${entry.mac} go to host ${entry.dst}`);
    for (const neigh of plan.neighs)
      if (neigh.link === link.name) lines.push(`    ${neigh.address} is at ${neigh.mac}`);
  }
  for (const rule of plan.rules) {
    lines.push(`  packets marked 0x${rule.mark.toString(16)}/0x${rule.mask.toString(16)} use table ${rule.table}`);
  }
  for (const [key, value] of Object.entries(plan.sysctls)) lines.push(`  ${key} = ${value}`);
  for (const table of plan.tables) {
    lines.push(`  nftables ${tableId(table)}`);
    if (options.tables)
      lines.push(
        ...table.body
          .trimEnd()
          .split("\n")
          .map((line) => `    ${line}`),
      );
  }
  return `${lines.join("\n")}\n`;
}

function describeLink(link: PlannedLink): string {
  switch (link.kind) {
    case "loopback":
      return "lo";
    case "bridge":
      return `${link.name}: bridge, mtu ${link.mtu}`;
    case "dummy":
      return `${link.name}: dummy`;
    case "vlan":
      return `${link.name}: VLAN ${link.id} on ${link.lower}`;
    case "vxlan":
      return `${link.name}: vxlan ${link.vni} from ${link.local} port ${link.port}, mtu ${link.mtu}, on ${link.master}`;
    case "veth":
      return `${link.name}: to ${link.inner.name} of ${link.inner.namespace}, mtu ${link.mtu}, on ${link.master}${link.isolated ? ", isolated" : ""}`;
    case "inner":
      return `${link.name}: ${link.mac}, mtu ${link.mtu}, from ${link.outer.name} of ${link.outer.namespace}`;
    case "macvlan":
      return `${link.name}: ${link.mac}, macvlan ${link.mode} on ${link.lower}`;
    case "ipvlan":
      return `${link.name}: ipvlan ${link.mode} on ${link.lower}`;
  }
}
