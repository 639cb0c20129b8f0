/** Carries the steps of a difference out. One function per kind of step; a step without one does not compile. */
import { randomBytes } from "node:crypto";
import { errnoOf } from "../../base/errors.ts";
import { closeRule, passageRule } from "../../kernel/forward-policy.ts";
import { currentNetNs } from "../../kernel/netns.ts";
import { writeSysctl } from "../../kernel/sysctl.ts";
import { replaceScript, tableId } from "../plan/table.ts";
import { aliasPrefix, type PlannedLink, type PlannedRoute, ruleMark } from "../plan/types.ts";
import type { Step } from "./diff.ts";
import type { Namespaces, OpenNamespace } from "./namespaces.ts";
import { bigTable, fingerprint } from "./snapshot.ts";

export async function apply(open: OpenNamespace, steps: readonly Step[], all: Namespaces): Promise<void> {
  for (const step of steps) {
    const pending = perform(open, step, all);
    // Only deletions of links wait; the rest must not yield between a link's making and its addresses.
    if (pending) await pending;
  }
}

/** Index of a link that the plan says is there. */
function indexOf(open: OpenNamespace, name: string): number {
  const link = open.rtnl.link(name);
  if (!link) throw new Error(`link ${name} is not in ${open.key}`);
  return link.index;
}

function perform(open: OpenNamespace, step: Step, all: Namespaces): Promise<void> | undefined {
  const { rtnl } = open;
  switch (step.do) {
    case "set sysctl":
      setSysctl(open, step.path, step.value);
      return undefined;
    case "load table":
      loadTable(open, step);
      return undefined;
    case "delete table":
      open.nft.run(`delete table ${step.family} ${step.name}`);
      open.loaded.delete(tableId(step));
      return undefined;
    case "delete link":
      return rtnl.delLink(step.index);
    case "add link": {
      const room = makeRoom(step.link, all);
      if (room) return room.then(() => addLink(open, step.link, all));
      addLink(open, step.link, all);
      return undefined;
    }
    case "change link": {
      const { master, isolated, ...rest } = step.change;
      const masterIndex = master === undefined ? {} : { master: master === "" ? 0 : indexOf(open, master) };
      rtnl.setLink(indexOf(open, step.name), {
        ...rest,
        ...masterIndex,
        ...(isolated === undefined ? {} : { isolated }),
      });
      return undefined;
    }
    case "add address":
      rtnl.addAddr(indexOf(open, step.link), step.address, step.prefix, {
        nodad: true,
        replace: true,
        ...(step.scope && { scope: step.scope }),
      });
      return undefined;
    case "delete address":
      rtnl.delAddr(indexOf(open, step.link), step.address, step.prefix);
      return undefined;
    case "set route":
      rtnl.setRoute(routeOf(open, step));
      return undefined;
    case "delete route":
      rtnl.delRoute(routeOf(open, step));
      return undefined;
    case "add rule":
    case "delete rule": {
      const { family, priority, mark, mask, table } = step;
      const rule = { family, priority, mark, mask, table };
      if (step.do === "add rule") rtnl.addRule(rule);
      else rtnl.delRule(rule);
      return undefined;
    }
    case "set neighbour":
      rtnl.setNeigh(indexOf(open, step.link), step.address, step.mac);
      return undefined;
    case "delete neighbour":
      rtnl.delNeigh(indexOf(open, step.link), step.address);
      return undefined;
    case "set fdb":
      rtnl.setFdb(indexOf(open, step.link), step.mac, step.dst);
      return undefined;
    case "delete fdb": {
      const link = indexOf(open, step.link);
      rtnl.delFdb(link, step.mac, "self", step.dst);
      // What the bridge learned about the same MAC behind this port; usually nothing.
      ignoring("ENOENT", () => rtnl.delFdb(link, step.mac, "master"));
      return undefined;
    }
    case "add passage":
      open.nft.run(passageRule(step, ruleMark));
      return undefined;
    case "delete passage":
      open.nft.run(closeRule(step));
      return undefined;
    case "await inner":
      return undefined;
  }
}

function loadTable(open: OpenNamespace, { table, had }: Extract<Step, { do: "load table" }>): void {
  const id = tableId(table);
  const { patch } = table;
  // A table that was altered by others has lost its claim to be what it was loaded with.
  const patchable = patch && had !== undefined && had === patch.from;
  if (!patchable || !takes(open, patch.script)) open.nft.run(replaceScript(table));
  // The host's filters are worth a listing at once; elsewhere, and of large ones, a pass takes the first look.
  const listed =
    open.key === "host" && table.body.length <= bigTable ? fingerprint(open.nft.list(`table ${id}`)) : undefined;
  open.loaded.set(id, { body: table.body, fingerprint: listed, looks: 0, suspect: false });
}

/** False when the kernel does not take them: the whole table is right wherever a step is not, and is not tried again and again. */
function takes(open: OpenNamespace, script: string): boolean {
  try {
    open.nft.run(script);
    return true;
  } catch {
    return false;
  }
}

function setSysctl(open: OpenNamespace, key: string, value: string): void {
  try {
    writeSysctl(key, value, open.ns);
  } catch (error) {
    // A kernel built without IPv6 has nothing to switch off.
    if (errnoOf(error) === "ENOENT" && key.startsWith("net.ipv6.")) return;
    throw error;
  }
}

function routeOf(open: OpenNamespace, route: PlannedRoute) {
  return {
    dst: route.dst,
    family: route.family,
    link: indexOf(open, route.link),
    ...(route.gateway === undefined ? {} : { gateway: route.gateway }),
    ...(route.table === undefined ? {} : { table: route.table }),
    ...(route.onlink ? { onlink: true } : {}),
  };
}

/** The host's half of a pair whose other half's namespace is gone may still be there, under the same name. */
function makeRoom(link: PlannedLink, all: Namespaces): Promise<void> | undefined {
  if (link.kind !== "veth" || link.inner.namespace !== "host") return undefined;
  const { rtnl } = all.host;
  const former = rtnl.link(link.inner.name);
  return former?.alias.startsWith(aliasPrefix) ? rtnl.delLink(former.index) : undefined;
}

function addLink(open: OpenNamespace, link: PlannedLink, all: Namespaces): void {
  const { rtnl } = open;
  const { host } = all;
  const inside = open.ns ? { ns: open.ns } : {};
  switch (link.kind) {
    case "bridge":
      rtnl.addLink({
        kind: "bridge",
        name: link.name,
        mtu: link.mtu,
        ...(link.mac ? { mac: link.mac } : {}),
        alias: link.alias,
        up: true,
      });
      return;
    case "dummy":
      rtnl.addLink({ kind: "dummy", name: link.name, mtu: link.mtu, alias: link.alias, up: true });
      return;
    case "vlan": {
      const { name, alias, id, lower } = link;
      const mtu = link.mtu ? { mtu: link.mtu } : {};
      rtnl.addLink({ kind: "vlan", name, alias, id, lower: indexOf(open, lower), up: true, ...mtu });
      return;
    }
    case "vxlan": {
      // Asked of the host's socket: the device's own packets then leave by the host's addresses and routes.
      const made = host.rtnl.addLink({
        kind: "vxlan",
        name: link.name,
        mtu: link.mtu,
        vni: link.vni,
        port: link.port,
        local: link.local,
        learning: false,
        proxy: true,
        ...inside,
      });
      rtnl.setLink(made.index, { master: indexOf(open, link.master), up: true });
      return;
    }
    case "veth": {
      // Whoever makes this pair is not in the host's namespace, so that the host must be named, too.
      using outside = link.inner.namespace === "host" ? currentNetNs() : undefined;
      const inner = outside ?? all.get(link.inner.namespace).ns;
      const made = rtnl.addLink({
        kind: "veth",
        name: link.name,
        mtu: link.mtu,
        alias: link.alias,
        master: indexOf(open, link.master),
        up: true,
        peer: {
          name: link.inner.name,
          mac: link.inner.mac,
          mtu: link.mtu,
          up: true,
          ...(outside ? { alias: link.alias } : {}),
          ...(inner ? { ns: inner } : {}),
        },
      });
      if (link.isolated) rtnl.setLink(made.index, { isolated: true });
      return;
    }
    case "macvlan":
    case "ipvlan": {
      const lower = host.rtnl.link(link.lower);
      if (!lower) throw new Error(`the parent link ${link.lower} was not found on the host`);
      // Asked of the host, older kernels (Debian 12's 6.1) look for the name among the host's devices, too, where "eth0" is taken.
      const name = `sk${randomBytes(5).toString("hex")}`;
      const common = { name, ...(link.mtu ? { mtu: link.mtu } : {}), lower: lower.index, ...inside };
      const made =
        link.kind === "macvlan"
          ? host.rtnl.addLink({ kind: "macvlan", ...common, mac: link.mac, mode: link.mode })
          : host.rtnl.addLink({ kind: "ipvlan", ...common, mode: link.mode });
      rtnl.setLink(made.index, { name: link.name });
      rtnl.setLink(made.index, { up: true });
      return;
    }
    case "inner":
    case "loopback":
      throw new Error(`a ${link.kind} link is not made here`);
  }
}

function ignoring(code: string, fn: () => void): void {
  try {
    fn();
  } catch (error) {
    if (errnoOf(error) !== code) throw error;
  }
}
