import assert from "node:assert/strict";
import { test } from "node:test";
import type { Link } from "../../../src/kernel/types.ts";
import { planOverlay } from "../../../src/network/plan/overlay.ts";
import { aliasPrefix, emptyPlan, type NamespacePlan, type PlannedLink } from "../../../src/network/plan/types.ts";
import { type Actual, describe, diff } from "../../../src/network/reconcile/diff.ts";
import { ipam, network, world } from "./fixtures.ts";

const nothing: Actual = {
  links: [],
  addrs: [],
  routes: [],
  rules: [],
  neighs: [],
  fdb: [],
  sysctls: {},
  tables: new Map(),
  brokenPairs: new Set(),
};

const link = (partial: Partial<Link> & Pick<Link, "index" | "name" | "kind">): Link => ({
  mac: "02:00:00:00:00:01",
  mtu: 1450,
  up: true,
  running: true,
  master: 0,
  peer: 0,
  alias: "",
  promiscuous: false,
  ...partial,
});

const overlay = network({
  id: "n1",
  name: "net1",
  driver: "overlay",
  options: { "com.docker.network.driver.overlay.vxlanid_list": "4097" },
  ipam: ipam({ subnet: "10.0.1.0/24", gateway: "10.0.1.1" }),
});
const plan = planOverlay(world([overlay], []), overlay, [
  { endpointId: "e", address: "10.0.1.5", prefix: 24, mac: "02:42:00:00:00:05", vtep: "192.0.2.2" },
]);

/** A kernel in which everything is as planned. */
const asPlanned: Actual = {
  ...nothing,
  links: [
    link({ index: 1, name: "lo", kind: "", mtu: 65536 }),
    link({ index: 2, name: "br0", kind: "bridge" }),
    link({
      index: 3,
      name: "vxlan0",
      kind: "vxlan",
      master: 2,
      vxlan: { vni: 4097, port: 4789, local: "192.0.2.1", learning: false, proxy: true },
    }),
  ],
  addrs: [
    { link: 1, family: 4, address: "127.0.0.1", prefix: 8, scope: "host" },
    { link: 2, family: 4, address: "10.0.1.1", prefix: 24, scope: "global" },
  ],
  routes: [
    {
      family: 4,
      dst: "10.0.1.0/24",
      link: 2,
      table: 254,
      scope: "link",
      protocol: "kernel",
      metric: 0,
      type: "unicast",
    },
  ],
  neighs: [
    { link: 3, address: "10.0.1.5", mac: "02:42:00:00:00:05", permanent: true, state: "permanent" },
    { link: 2, address: "10.0.1.9", mac: "02:42:00:00:00:09", permanent: false, state: "stale" },
  ],
  fdb: [
    { link: 3, mac: "02:42:00:00:00:05", dst: "192.0.2.2", owner: "self", permanent: true },
    { link: 3, mac: "02:42:00:00:00:05", owner: "master", permanent: false },
  ],
  sysctls: plan.sysctls,
};

const steps = (actual: Actual, of: NamespacePlan = plan) => diff(of, actual).map(describe);

test("what is as planned needs nothing", () => {
  assert.deepEqual(steps(asPlanned), []);
});

test("an empty namespace is filled in an order that works", () => {
  assert.deepEqual(steps({ ...nothing, links: [link({ index: 1, name: "lo", kind: "", up: false })] }), [
    "set sysctl net.ipv4.ip_forward = 1 (was absent)",
    "set sysctl net.ipv6.conf.default.disable_ipv6 = 1 (was absent)",
    "set sysctl net.ipv6.conf.all.disable_ipv6 = 1 (was absent)",
    "add link br0 (bridge)",
    "add link vxlan0 (vxlan)",
    "change link lo up=true",
    "add address 10.0.1.1/24 on br0",
    "set neighbour 10.0.1.5 at 02:42:00:00:00:05 on vxlan0",
    "set fdb 02:42:00:00:00:05 to 192.0.2.2 on vxlan0",
  ]);
});

test("forged and stale entries go, missing ones come", () => {
  const [first] = asPlanned.fdb;
  assert.ok(first);
  assert.deepEqual(
    steps({
      ...asPlanned,
      fdb: [
        { ...first, dst: "203.0.113.66" },
        { ...first, mac: "02:42:00:00:00:77" },
      ],
      neighs: [{ link: 3, address: "10.0.1.66", mac: "02:42:00:00:00:77", permanent: true, state: "permanent" }],
    }),
    [
      "delete neighbour 10.0.1.66 at 02:42:00:00:00:77 on vxlan0",
      "set neighbour 10.0.1.5 at 02:42:00:00:00:05 on vxlan0",
      "delete fdb 02:42:00:00:00:05 to 203.0.113.66 on vxlan0",
      "delete fdb 02:42:00:00:00:77 to 192.0.2.2 on vxlan0",
      "set fdb 02:42:00:00:00:05 to 192.0.2.2 on vxlan0",
    ],
  );
});

test("a tunnel with another source address is made anew, with all that was on it", () => {
  const [lo, br0, vxlan0] = asPlanned.links;
  assert.ok(lo && br0 && vxlan0?.vxlan);
  assert.deepEqual(
    steps({ ...asPlanned, links: [lo, br0, { ...vxlan0, vxlan: { ...vxlan0.vxlan, local: "192.0.2.99" } }] }),
    [
      "delete link vxlan0",
      "add link vxlan0 (vxlan)",
      "set neighbour 10.0.1.5 at 02:42:00:00:00:05 on vxlan0",
      "set fdb 02:42:00:00:00:05 to 192.0.2.2 on vxlan0",
    ],
  );
});

test("in a namespace of ours strangers go; on the host only what carries our mark", () => {
  const stranger = link({ index: 9, name: "dummy9", kind: "dummy" });
  assert.deepEqual(steps({ ...asPlanned, links: [...asPlanned.links, stranger] }), ["delete link dummy9"]);
  const host = emptyPlan("host", "", "shared");
  const ours = link({ index: 10, name: "veth1234567", kind: "veth", alias: `${aliasPrefix}eth0 of x` });
  assert.deepEqual(steps({ ...nothing, links: [stranger, ours] }, host), ["delete link veth1234567"]);
});

test("a veth pair whose inner half is gone is made anew; the inner side only waits", () => {
  const outer: PlannedLink = {
    kind: "veth",
    name: "veth1234567",
    mtu: 1450,
    master: "br0",
    isolated: false,
    alias: "",
    inner: { namespace: "sandbox/x", name: "eth0", mac: "02:42:00:00:00:01" },
  };
  const host: NamespacePlan = { ...emptyPlan("host", "", "shared"), links: [outer] };
  const there = [
    link({ index: 2, name: "br0", kind: "bridge" }),
    link({ index: 5, name: "veth1234567", kind: "veth", master: 2 }),
  ];
  assert.deepEqual(steps({ ...nothing, links: there }, host), []);
  assert.deepEqual(steps({ ...nothing, links: there, brokenPairs: new Set(["veth1234567"]) }, host), [
    "delete link veth1234567",
    "add link veth1234567 (veth)",
  ]);
  const inside: NamespacePlan = {
    ...emptyPlan("sandbox/x", "", "shared"),
    links: [
      {
        kind: "inner",
        name: "eth0",
        mac: "02:42:00:00:00:01",
        mtu: 1450,
        outer: { namespace: "host", name: "veth1234567" },
      },
    ],
  };
  assert.deepEqual(steps(nothing, inside), ["link eth0 is missing"]);
  const changed = [link({ index: 2, name: "eth0", kind: "veth", mac: "02:42:00:00:00:99", mtu: 1500, up: false })];
  assert.deepEqual(steps({ ...nothing, links: changed }, inside), [
    "change link eth0 mtu=1450 mac=02:42:00:00:00:01 up=true",
  ]);
});

test("tables: loaded when missing or altered, deleted when no longer planned, strangers' never touched", () => {
  const table = { family: "inet", name: "skein_x", body: "chain c {}" } as const;
  const host: NamespacePlan = { ...emptyPlan("host", "", "shared"), tables: [table] };
  assert.deepEqual(steps(nothing, host), ["load table inet skein_x"]);
  assert.deepEqual(steps({ ...nothing, tables: new Map([["inet skein_x", undefined]]) }, host), [
    "load table inet skein_x",
  ]);
  assert.deepEqual(steps({ ...nothing, tables: new Map([["inet skein_x", table.body]]) }, host), []);
  const tables = new Map([
    ["inet skein_old", "x"],
    ["ip filter", undefined],
  ]);
  assert.deepEqual(steps({ ...nothing, tables }, emptyPlan("host", "", "shared")), ["delete table inet skein_old"]);
});

test("in a shared namespace a routing table of ours, and the rules that lead to it, are ours; no other", () => {
  const leg = { family: 4, priority: 51, mark: 0x50000000, mask: 0xf0000000, table: 5100 } as const;
  const route = { family: 4, dst: "10.0.0.0/24", link: "veth-ingress", table: 5100 } as const;
  const host: NamespacePlan = { ...emptyPlan("host", "", "shared"), ownTable: 5100, rules: [leg], routes: [route] };
  const there = { family: 4, link: 3, scope: "link", protocol: "static", metric: 0, type: "unicast" } as const;
  const actual: Actual = {
    ...nothing,
    links: [link({ index: 3, name: "veth-ingress", kind: "veth" })],
    rules: [leg, { ...leg, mark: 0x40000000 }, { ...leg, table: 200 }, { family: 4, priority: 32766, table: 254 }],
    routes: [
      { ...there, dst: "10.0.0.0/24", table: 5100 },
      { ...there, dst: "10.9.0.0/24", table: 5100 },
      { ...there, dst: "10.9.0.0/24", table: 200 },
    ],
  };
  assert.deepEqual(diff(host, actual).map(describe), [
    "delete route 10.9.0.0/24 on veth-ingress",
    "delete rule fwmark 1073741824 lookup 5100",
  ]);
  assert.deepEqual(diff({ ...host, rules: [], routes: [] }, { ...actual, routes: [] }).map(describe), [
    "delete rule fwmark 1342177280 lookup 5100",
    "delete rule fwmark 1073741824 lookup 5100",
  ]);
});
