/** Reads from the kernel what a plan is compared with: only the kinds of things that the plan can concern. */
import { createHash } from "node:crypto";
import { errnoOf } from "../../base/errors.ts";
import { type ForwardPolicy, forwardPolicies } from "../../kernel/forward-policy.ts";
import { readSysctl } from "../../kernel/sysctl.ts";
import { tablePrefix } from "../plan/table.ts";
import { type NamespacePlan, ruleMark } from "../plan/types.ts";
import type { Actual } from "./diff.ts";
import type { OpenNamespace } from "./namespaces.ts";

/**
 * "tables": only nftables, against what was loaded last; for changes of discovery, which come in bursts.
 * "quick": all, with nftables as loaded last. "deep": nftables as the kernel lists them, too, but for large tables.
 * "pass": those as well where somebody touched nftables since they were listed.
 */
export type Depth = "tables" | "quick" | "deep" | "pass";

/**
 * Characters of a body from which on it is listed by passes only: after somebody touched nftables, or else in so many
 * passes once, for what was touched in the same moment in which it was loaded.
 */
export const bigTable = 50_000;
const looksAtBig = 20;

export interface SnapshotOptions {
  readonly depth: Depth;
  readonly brokenPairs: ReadonlySet<string>;
}

export function snapshot(open: OpenNamespace, plan: NamespacePlan, options: SnapshotOptions): Actual {
  const { rtnl } = open;
  const ours = plan.ownership === "ours";
  const switching = plan.links.some((link) => link.kind === "vxlan");
  return {
    links: rtnl.links(),
    addrs: plan.addrs.length > 0 || ours ? rtnl.addrs() : [],
    // A host's main table may hold the whole internet, and none of it is ours.
    routes:
      plan.ownTable !== undefined ? rtnl.routes(plan.ownTable) : plan.routes.length > 0 || ours ? rtnl.routes() : [],
    rules: plan.rules.length > 0 || plan.ownTable !== undefined || ours ? rtnl.rules() : [],
    neighs: plan.neighs.length > 0 || switching ? rtnl.neighs() : [],
    fdb: plan.fdb.length > 0 || switching ? rtnl.fdb() : [],
    sysctls: sysctls(open, plan),
    tables: tables(open, plan, options.depth),
    brokenPairs: options.brokenPairs,
    forwarding: forwarding(open, plan, options.depth),
  };
}

/** Looked at when somebody touched nftables, by passes, and when other devices than before are to pass. */
function forwarding(open: OpenNamespace, plan: NamespacePlan, depth: Depth): ForwardPolicy[] | undefined {
  if (plan.passages === undefined || depth === "tables") return undefined;
  if (depth === "quick" && open.passages === plan.passages.join(" ")) return undefined;
  return forwardPolicies(open.nft, ruleMark);
}

function sysctls(open: OpenNamespace, plan: NamespacePlan): Record<string, string | undefined> {
  const read = () => {
    const found: Record<string, string | undefined> = {};
    for (const key of Object.keys(plan.sysctls)) found[key] = sysctlOf(key);
    return found;
  };
  return open.ns ? open.ns.run(read) : read();
}

function sysctlOf(key: string): string | undefined {
  try {
    return readSysctl(key);
  } catch (error) {
    if (errnoOf(error) === "ENOENT" || errnoOf(error) === "EINVAL") return undefined;
    throw error;
  }
}

function tables(open: OpenNamespace, plan: NamespacePlan, depth: Depth): Map<string, string | undefined> {
  const deep = depth === "deep" || depth === "pass";
  const found = new Map<string, string | undefined>();
  if (plan.tables.length === 0 && open.loaded.size === 0 && open.surveyed && !deep) return found;
  if (deep || !open.surveyed) {
    // A fresh namespace of a container has no nftables; asking costs a context, so only the host is asked at first.
    if (deep || open.key === "host") {
      for (const table of open.nft.tables()) {
        if (!table.name.startsWith(tablePrefix)) continue;
        const id = `${table.family} ${table.name}`;
        found.set(id, intact(open, id, depth === "pass"));
      }
    }
    open.surveyed = true;
    if (deep) return found;
  }
  for (const [id, { body }] of open.loaded) found.set(id, body);
  return found;
}

/** The body that the table was loaded with, if its content is still what that gave. */
export function intact(open: Pick<OpenNamespace, "loaded" | "nft">, id: string, pass: boolean): string | undefined {
  const loaded = open.loaded.get(id);
  if (!loaded) return undefined;
  // Listing what a thousand services need takes half a second, in which nothing else happens.
  if (loaded.body.length > bigTable) {
    const due = pass && (loaded.looks++ % looksAtBig === 0 || loaded.suspect);
    if (!due) return loaded.body;
  }
  loaded.suspect = false;
  const now = fingerprint(open.nft.list(`table ${id}`));
  loaded.fingerprint ??= now;
  return loaded.fingerprint === now ? loaded.body : undefined;
}

/** A digest of a listing without what changes by itself: handles, counters, elements of dynamic sets. */
export function fingerprint(listing: unknown): string {
  const text = JSON.stringify(listing, function (key, value) {
    if (key === "handle" || key === "packets" || key === "bytes" || key === "expires") return undefined;
    if (key === "elem" && isDynamic(this)) return undefined;
    return value;
  });
  return createHash("sha256")
    .update(text ?? "")
    .digest("base64");
}

function isDynamic(holder: unknown): boolean {
  if (typeof holder !== "object" || holder === null || !("flags" in holder)) return false;
  const { flags } = holder;
  return Array.isArray(flags) && (flags.includes("dynamic") || flags.includes("timeout"));
}
