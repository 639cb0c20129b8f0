/**
 * The difference between a plan and a kernel, as an ordered list of steps. Pure.
 *
 * Order matters: switches and filters before anything can flow, old links away before new ones want
 * their names, a bridge before its ports, addresses before the routes that need them.
 */
import { type ForwardPolicy, type Passage, passageChanges } from "../../kernel/forward-policy.ts";
import type { Addr, FdbEntry, Link, Neigh, Route, Rule } from "../../kernel/types.ts";
import { type PlannedTable, tableId, tablePrefix } from "../plan/table.ts";
import {
  aliasPrefix,
  type NamespacePlan,
  type PlannedAddr,
  type PlannedFdb,
  type PlannedLink,
  type PlannedNeigh,
  type PlannedRoute,
  type PlannedRule,
  sysctlName,
} from "../plan/types.ts";

/** What a namespace holds, as far as its plan concerns it. */
export interface Actual {
  readonly links: readonly Link[];
  readonly addrs: readonly Addr[];
  readonly routes: readonly Route[];
  readonly rules: readonly Rule[];
  readonly neighs: readonly Neigh[];
  readonly fdb: readonly FdbEntry[];
  readonly sysctls: Readonly<Record<string, string | undefined>>;
  /** Id of each table of ours that is loaded and is still as we loaded it: the body it was loaded with. */
  readonly tables: ReadonlyMap<string, string | undefined>;
  /** Outer veth halves whose inner half is missing from its namespace. */
  readonly brokenPairs: ReadonlySet<string>;
  /** Of iptables' own tables; undefined where it was not looked at. */
  readonly forwarding?: readonly ForwardPolicy[] | undefined;
}

export interface LinkChange {
  readonly mtu?: number;
  readonly mac?: string;
  readonly up?: boolean;
  /** "" frees the link from its bridge. */
  readonly master?: string;
  readonly isolated?: boolean;
}

export type Step =
  | { readonly do: "set sysctl"; readonly path: string; readonly value: string; readonly was: string | undefined }
  | { readonly do: "load table"; readonly table: PlannedTable; readonly had: string | undefined }
  | { readonly do: "delete table"; readonly family: string; readonly name: string }
  | { readonly do: "delete link"; readonly name: string; readonly index: number }
  | { readonly do: "add link"; readonly link: PlannedLink }
  | { readonly do: "change link"; readonly name: string; readonly change: LinkChange }
  | ({ readonly do: "delete address" } & PlannedAddr)
  | ({ readonly do: "add address" } & PlannedAddr)
  | ({ readonly do: "delete route" } & PlannedRoute)
  | ({ readonly do: "set route" } & PlannedRoute)
  | ({ readonly do: "delete rule" } & PlannedRule)
  | ({ readonly do: "add rule" } & PlannedRule)
  | ({ readonly do: "delete neighbour" } & PlannedNeigh)
  | ({ readonly do: "set neighbour" } & PlannedNeigh)
  | ({ readonly do: "delete fdb" } & PlannedFdb)
  | ({ readonly do: "set fdb" } & PlannedFdb)
  | ({ readonly do: "add passage" } & Passage)
  | ({ readonly do: "delete passage"; readonly handle: number } & Passage)
  /** The inner half of a pair is missing; the namespace with the outer half makes it. */
  | { readonly do: "await inner"; readonly name: string };

export function diff(plan: NamespacePlan, actual: Actual): Step[] {
  const byName = new Map(actual.links.map((link) => [link.name, link]));
  const byIndex = new Map(actual.links.map((link) => [link.index, link]));
  const nameOf = (index: number) => byIndex.get(index)?.name ?? `#${index}`;

  const linkSteps = diffLinks(plan, actual, byName, byIndex);
  // Addresses and routes of links that are made or remade now are gone whatever the dump says.
  const fresh = new Set<string>();
  for (const step of linkSteps) {
    if (step.do === "add link") fresh.add(step.link.name);
    if (step.do === "delete link") fresh.add(step.name);
  }
  const kept = <T extends { link: number }>(entries: readonly T[]) => entries.filter((e) => !fresh.has(nameOf(e.link)));

  const sysctls = diffSysctls(plan, actual);
  const perLink = (path: string) => plan.links.some((link) => path.includes(`.${sysctlName(link.name)}.`));
  return [
    ...sysctls.filter((step) => !perLink(step.path)),
    ...diffTables(plan, actual),
    ...linkSteps,
    ...sysctls.filter((step) => perLink(step.path)),
    ...diffAddrs(plan, kept(actual.addrs), nameOf),
    ...diffRoutes(plan, kept(actual.routes), nameOf),
    ...diffRules(plan, actual.rules),
    ...diffNeighs(plan, kept(actual.neighs), nameOf),
    ...diffFdb(plan, kept(actual.fdb), nameOf),
    ...diffPassages(plan, actual),
  ];
}

function diffPassages(plan: NamespacePlan, actual: Actual): Step[] {
  if (!plan.passages || !actual.forwarding) return [];
  const { add, remove } = passageChanges(actual.forwarding, plan.passages);
  return [
    ...remove.map((passage) => ({ do: "delete passage", ...passage }) as const),
    ...add.map((passage) => ({ do: "add passage", ...passage }) as const),
  ];
}

function diffSysctls(plan: NamespacePlan, actual: Actual) {
  const steps: Extract<Step, { do: "set sysctl" }>[] = [];
  for (const [path, value] of Object.entries(plan.sysctls)) {
    const was = actual.sysctls[path];
    // A kernel without br_netfilter has nothing to switch off.
    if (was === undefined && path.startsWith("net.bridge.")) continue;
    // Some sysctls print several numbers apart by tabs where they are written with blanks.
    if (was?.replace(/\s+/g, " ") !== value) steps.push({ do: "set sysctl", path, value, was });
  }
  return steps;
}

/** The part of the difference that discovery changes: no links, no addresses, no dump of the kernel needed. */
export function diffTables(plan: NamespacePlan, actual: Pick<Actual, "tables">): Step[] {
  const steps: Step[] = [];
  const wanted = new Map(plan.tables.map((table) => [tableId(table), table]));
  for (const id of actual.tables.keys()) {
    const [family = "", name = ""] = id.split(" ");
    if (!wanted.has(id) && name.startsWith(tablePrefix)) steps.push({ do: "delete table", family, name });
  }
  for (const [id, table] of wanted) {
    if (actual.tables.get(id) !== table.body) steps.push({ do: "load table", table, had: actual.tables.get(id) });
  }
  return steps;
}

function diffLinks(
  plan: NamespacePlan,
  actual: Actual,
  byName: ReadonlyMap<string, Link>,
  byIndex: ReadonlyMap<number, Link>,
): Step[] {
  const deletes: Step[] = [];
  const adds: Step[] = [];
  const changes: Step[] = [];
  const planned = new Set(plan.links.map((link) => link.name));

  for (const link of actual.links) {
    if (planned.has(link.name) || link.name === "lo") continue;
    const ours = plan.ownership === "ours" ? link.kind !== "" : link.alias.startsWith(aliasPrefix);
    if (ours) deletes.push({ do: "delete link", name: link.name, index: link.index });
  }
  for (const want of plan.links) {
    const have = byName.get(want.name);
    if (want.kind === "loopback") {
      if (!have?.up) changes.push({ do: "change link", name: want.name, change: { up: true } });
      continue;
    }
    if (want.kind === "inner") {
      if (!have) adds.push({ do: "await inner", name: want.name });
      else pushChange(changes, want.name, changeOf(want, have, byIndex));
      continue;
    }
    if (have && !sameDevice(want, have, actual.brokenPairs)) {
      deletes.push({ do: "delete link", name: have.name, index: have.index });
      adds.push({ do: "add link", link: want });
    } else if (have) {
      pushChange(changes, want.name, changeOf(want, have, byIndex));
    } else {
      adds.push({ do: "add link", link: want });
    }
  }
  const order = (step: Step) => (step.do === "add link" && step.link.kind === "bridge" ? 0 : 1);
  adds.sort((a, b) => order(a) - order(b));
  return [...deletes, ...adds, ...changes];
}

/** Whether the device can become the wanted one by changes, or must be made anew. */
function sameDevice(want: PlannedLink, have: Link, brokenPairs: ReadonlySet<string>): boolean {
  switch (want.kind) {
    case "bridge":
    case "dummy":
    case "vlan":
    case "macvlan":
    case "ipvlan":
      return have.kind === want.kind;
    case "veth":
      return have.kind === "veth" && !brokenPairs.has(want.name);
    case "inner":
    case "loopback":
      return true;
    case "vxlan":
      return (
        have.kind === "vxlan" &&
        have.vxlan?.vni === want.vni &&
        have.vxlan.port === want.port &&
        have.vxlan.local === want.local &&
        !have.vxlan.learning &&
        have.vxlan.proxy
      );
  }
}

function changeOf(want: PlannedLink, have: Link, byIndex: ReadonlyMap<number, Link>): LinkChange {
  if (want.kind === "loopback") return {};
  const mac =
    (want.kind === "bridge" || want.kind === "inner" || want.kind === "macvlan") &&
    want.mac !== undefined &&
    want.mac !== have.mac
      ? { mac: want.mac }
      : {};
  const master = want.kind === "vxlan" || want.kind === "veth" ? want.master : undefined;
  const hasMaster = have.master === 0 ? "" : (byIndex.get(have.master)?.name ?? "?");
  return {
    // 0: as the kernel made it. A bridge that a user made keeps the user's.
    ...(want.mtu !== 0 && want.mtu !== have.mtu && !(want.kind === "bridge" && want.byUser) ? { mtu: want.mtu } : {}),
    ...mac,
    ...(master !== undefined && master !== hasMaster ? { master } : {}),
    // A port forgets its isolation with its bridge.
    ...(want.kind === "veth" && want.isolated && master !== hasMaster ? { isolated: true } : {}),
    ...(have.up ? {} : { up: true }),
  };
}

function pushChange(steps: Step[], name: string, change: LinkChange): void {
  if (Object.keys(change).length > 0) steps.push({ do: "change link", name, change });
}

function diffAddrs(plan: NamespacePlan, actual: readonly Addr[], nameOf: (index: number) => string): Step[] {
  const steps: Step[] = [];
  const key = (a: { link: string; address: string; prefix: number }) => `${a.link} ${a.address}/${a.prefix}`;
  const wanted = new Set(plan.addrs.map(key));
  const present = new Set<string>();
  for (const addr of actual) {
    const named = { link: nameOf(addr.link), address: addr.address, prefix: addr.prefix };
    present.add(key(named));
    const ours = plan.ownership === "ours" && named.link !== "lo" && addr.scope === "global";
    if (ours && !wanted.has(key(named))) steps.push({ do: "delete address", ...named });
  }
  for (const addr of plan.addrs) if (!present.has(key(addr))) steps.push({ do: "add address", ...addr });
  return steps;
}

const mainTable = 254;

function diffRoutes(plan: NamespacePlan, actual: readonly Route[], nameOf: (index: number) => string): Step[] {
  const steps: Step[] = [];
  const key = (r: PlannedRoute) => `${r.family} ${r.dst} ${r.gateway ?? ""} ${r.link} ${r.table ?? mainTable}`;
  const wanted = new Set(plan.routes.map(key));
  const present = new Set<string>();
  for (const route of actual) {
    if (route.type !== "unicast") continue;
    const named: PlannedRoute = {
      dst: route.dst,
      family: route.family,
      link: nameOf(route.link),
      ...(route.gateway === undefined ? {} : { gateway: route.gateway }),
      table: route.table,
    };
    present.add(key(named));
    const made = route.protocol !== "kernel" && route.protocol !== "ra" && route.family === 4;
    const ours = plan.ownership === "ours" || route.table === plan.ownTable;
    if (ours && made && !wanted.has(key(named))) steps.push({ do: "delete route", ...named });
  }
  for (const route of plan.routes) if (!present.has(key(route))) steps.push({ do: "set route", ...route });
  return steps;
}

function diffRules(plan: NamespacePlan, actual: readonly Rule[]): Step[] {
  const key = (r: PlannedRule) => `${r.family} ${r.priority} ${r.mark}/${r.mask} ${r.table}`;
  const wanted = new Set(plan.rules.map(key));
  const present = new Set<string>();
  const steps: Step[] = [];
  for (const rule of actual) {
    const full = { ...rule, mark: rule.mark ?? 0, mask: rule.mask ?? 0 };
    present.add(key(full));
    const ours = plan.ownership === "ours" || rule.table === plan.ownTable;
    if (ours && rule.mark !== undefined && !wanted.has(key(full))) {
      const { family, priority, mark, mask, table } = full;
      steps.push({ do: "delete rule", family, priority, mark, mask, table });
    }
  }
  for (const rule of plan.rules) if (!present.has(key(rule))) steps.push({ do: "add rule", ...rule });
  return steps;
}

/** Neighbours are ours where we plan some: on VXLAN devices and the dummy next hop of the mesh. */
function diffNeighs(plan: NamespacePlan, actual: readonly Neigh[], nameOf: (index: number) => string): Step[] {
  const steps: Step[] = [];
  const managed = managedLinks(plan, plan.neighs);
  const wanted = new Map(plan.neighs.map((n) => [`${n.link} ${n.address}`, n]));
  const present = new Set<string>();
  for (const neigh of actual) {
    const link = nameOf(neigh.link);
    const key = `${link} ${neigh.address}`;
    const want = wanted.get(key);
    if (want && neigh.permanent && neigh.mac === want.mac) present.add(key);
    else if (!want && neigh.permanent && managed.has(link)) {
      steps.push({ do: "delete neighbour", link, address: neigh.address, mac: neigh.mac });
    }
  }
  for (const [key, neigh] of wanted) if (!present.has(key)) steps.push({ do: "set neighbour", ...neigh });
  return steps;
}

function diffFdb(plan: NamespacePlan, actual: readonly FdbEntry[], nameOf: (index: number) => string): Step[] {
  const steps: Step[] = [];
  const managed = managedLinks(plan, plan.fdb);
  const wanted = new Map(plan.fdb.map((f) => [`${f.link} ${f.mac}`, f]));
  const present = new Set<string>();
  for (const entry of actual) {
    const link = nameOf(entry.link);
    if (entry.owner !== "self" || entry.dst === undefined || !managed.has(link)) continue;
    const key = `${link} ${entry.mac}`;
    const want = wanted.get(key);
    if (want && entry.permanent && entry.dst === want.dst) present.add(key);
    else if (!want || entry.dst !== want.dst) steps.push({ do: "delete fdb", link, mac: entry.mac, dst: entry.dst });
  }
  for (const [key, entry] of wanted) if (!present.has(key)) steps.push({ do: "set fdb", ...entry });
  return steps;
}

function managedLinks(plan: NamespacePlan, entries: readonly { link: string }[]): Set<string> {
  const managed = new Set(entries.map((entry) => entry.link));
  for (const link of plan.links) if (link.kind === "vxlan") managed.add(link.name);
  return managed;
}

/** A step as a person reads it: in drift events and logs. */
export function describe(step: Step): string {
  switch (step.do) {
    case "set sysctl":
      return `set sysctl ${step.path} = ${step.value} (was ${step.was ?? "absent"})`;
    case "load table":
      return `${step.had === undefined ? "load" : "renew"} table ${tableId(step.table)}`;
    case "delete table":
      return `delete table ${step.family} ${step.name}`;
    case "delete link":
      return `delete link ${step.name}`;
    case "add link":
      return `add link ${step.link.name} (${step.link.kind})`;
    case "change link":
      return `change link ${step.name} ${Object.entries(step.change)
        .map(([k, v]) => `${k}=${v}`)
        .join(" ")}`;
    case "add address":
    case "delete address":
      return `${step.do} ${step.address}/${step.prefix} on ${step.link}`;
    case "set route":
    case "delete route":
      return `${step.do} ${step.dst}${step.gateway ? ` via ${step.gateway}` : ""} on ${step.link}`;
    case "add rule":
    case "delete rule":
      return `${step.do} fwmark ${step.mark} lookup ${step.table}`;
    case "set neighbour":
    case "delete neighbour":
      return `${step.do} ${step.address} at ${step.mac} on ${step.link}`;
    case "set fdb":
    case "delete fdb":
      return `${step.do} ${step.mac} to ${step.dst} on ${step.link}`;
    case "add passage":
    case "delete passage":
      return `${step.do.replace("passage", "rule")} for ${step.direction} ${step.device} in ${step.family} filter FORWARD`;
    case "await inner":
      return `link ${step.name} is missing`;
  }
}
