import assert from "node:assert/strict";
import { test } from "node:test";
import type { MeshPort } from "../../../src/network/balancer/types.ts";
import { encodeEndpoint, encodePeer } from "../../../src/network/overlay/records.ts";
import { NetworkTables } from "../../../src/network/overlay/tables.ts";
import { planOverlay } from "../../../src/network/plan/overlay.ts";
import type { Actual } from "../../../src/network/reconcile/diff.ts";
import { gossipView } from "../../../src/network/view/gossip.ts";
import { compareAddresses, linkLooks, localEndpoints, remoteEndpoints } from "../../../src/network/view/overlay.ts";
import { containerPortLooks, meshLooks, serviceLooks } from "../../../src/network/view/services.ts";
import { endpoint, ipam, network, sandbox, world } from "./fixtures.ts";

const overlay = network({
  id: "n1netaaaaaaaaaaaaaaaaaaaa",
  name: "net1",
  driver: "overlay",
  options: { "com.docker.network.driver.overlay.vxlanid_list": "4097" },
  ipam: ipam({ subnet: "10.0.1.0/24", gateway: "10.0.1.1" }),
});
const web = { id: "svc1", name: "web", vip: "10.0.1.2", aliases: [], ingressPorts: [] };
const here = endpoint({
  networkId: overlay.spec.id,
  id: "here",
  name: "web.1.aaa",
  outerName: "veth1",
  mac: "02:42:aa:bb:cc:01",
  ipv4: "10.0.1.4/24",
  service: web,
});
const w = world([overlay], [sandbox("c0ffee0000001111", [here])]);

/** What another node tells of an endpoint of its own. */
function hear(
  tables: NetworkTables,
  n: number,
  vtep: string,
  options: { named?: boolean; draining?: boolean; ipv4?: string; mac?: string } = {},
): void {
  const remote = endpoint({
    networkId: overlay.spec.id,
    id: `e${n}`,
    name: `web.${n}.xyz`,
    mac: options.mac ?? `02:42:00:00:00:0${n}`,
    ipv4: options.ipv4 ?? `10.0.1.${n}/24`,
    service: web,
  });
  const from = { kind: "create", owner: `node-${vtep}`, ownerAddress: vtep, local: false, key: remote.id } as const;
  tables.apply({ ...from, table: "overlay_peer_table", value: encodePeer(remote, vtep) });
  if (options.named === false) return;
  tables.apply({ ...from, table: "endpoint_table", value: encodeEndpoint(remote, options.draining ?? false) });
}

const link = (index: number, name: string, kind: string, up = true) => ({
  index,
  name,
  kind,
  mac: "",
  mtu: 1450,
  up,
  running: up,
  master: 0,
  peer: 0,
  alias: "",
  promiscuous: false,
});
const kernel: Actual = {
  links: [link(1, "br0", "bridge"), link(2, "vxlan0", "vxlan", false), link(3, "veth9", "veth")],
  addrs: [],
  routes: [],
  rules: [],
  neighs: [
    { link: 2, address: "10.0.1.5", mac: "02:42:00:00:00:05", permanent: true, state: "permanent" },
    { link: 2, address: "10.0.1.6", mac: "02:42:ff:ff:ff:ff", permanent: true, state: "permanent" },
  ],
  fdb: [
    { link: 2, mac: "02:42:00:00:00:05", dst: "192.0.2.2", owner: "self", permanent: true },
    { link: 2, mac: "02:42:00:00:00:06", dst: "192.0.2.99", owner: "self", permanent: true },
  ],
  sysctls: {},
  tables: new Map(),
  brokenPairs: new Set(),
};

test("an entry that was told: by whom, whether it is used, and what the kernel made of it", () => {
  const tables = new NetworkTables();
  hear(tables, 5, "192.0.2.2");
  hear(tables, 6, "192.0.2.3", { draining: true });
  hear(tables, 7, "192.0.2.3", { named: false });
  hear(tables, 8, "192.0.2.4", { ipv4: "10.9.9.8/24" });
  hear(tables, 9, "192.0.2.1");
  hear(tables, 3, "192.0.2.2", { ipv4: "10.0.1.7/24" });
  tables.doubt("overlay_peer_table", "e6", "node-192.0.2.3", 1);
  const plan = planOverlay(w, overlay, tables.peers());
  const looks = remoteEndpoints(tables.told(), overlay, w, plan, kernel, {
    stateOf: (node) => (node.endsWith(".4") ? "unknown" : "alive"),
    isSuspended: (node) => node === "node-192.0.2.2",
  });
  const row = (id: string) => {
    const one = looks.find(({ endpointId }) => endpointId === id);
    assert.ok(one, id);
    return [one.name, one.state, one.unused, one.neighbour, one.fdb];
  };
  assert.deepEqual(row("e5"), ["web.5.xyz", "suspended", "", "ok", "ok"]);
  assert.deepEqual(row("e6"), ["web.6.xyz", "draining", "", "02:42:ff:ff:ff:ff", "192.0.2.99"]);
  assert.deepEqual(row("e7"), ["", "address only", "a later record has its address or MAC", "", ""]);
  assert.deepEqual(row("e3"), ["web.3.xyz", "suspended", "", "missing", "missing"]);
  assert.deepEqual(row("e8"), ["web.8.xyz", "active", "outside of the network's subnets", "", ""]);
  assert.deepEqual(row("e9"), ["web.9.xyz", "active", "claims to be on this host", "", ""]);
  const six = looks.find(({ endpointId }) => endpointId === "e6");
  assert.equal(six?.doubted, true);
  assert.deepEqual(six?.announcedBy, { node: "node-192.0.2.3", address: "192.0.2.3", state: "alive" });
  assert.equal(looks.find(({ endpointId }) => endpointId === "e8")?.announcedBy.state, "unknown");
});

test("where the namespace was not looked at nothing is said of the kernel", () => {
  const tables = new NetworkTables();
  hear(tables, 5, "192.0.2.2");
  const plan = planOverlay(w, overlay, tables.peers());
  const [one] = remoteEndpoints(tables.told(), overlay, w, plan, undefined, {
    stateOf: () => "alive",
    isSuspended: () => false,
  });
  assert.deepEqual([one?.state, one?.neighbour, one?.fdb], ["active", "", ""]);
});

test("links: what is planned and how it stands, and what nobody planned", () => {
  const looks = linkLooks(planOverlay(w, overlay, []), kernel);
  assert.deepEqual(
    looks.map(({ name, kind, state }) => [name, kind, state]),
    [
      ["br0", "bridge", "up"],
      ["vxlan0", "vxlan", "down"],
      ["veth1", "veth", "missing"],
      ["veth9", "veth", "unplanned"],
    ],
  );
  assert.equal(looks[1]?.purpose, "VNI 4097 from 192.0.2.1 port 4789");
  assert.equal(looks[2]?.purpose, "eth0 of c0ffee0000001111");
});

test("endpoints of this host, addresses in the order of their numbers", () => {
  assert.deepEqual(localEndpoints(w, overlay.spec.id), [
    {
      endpointId: "here",
      name: "web.1.aaa",
      sandbox: "c0ffee0000001111",
      kind: "container",
      address: "10.0.1.4",
      address6: "",
      mac: "02:42:aa:bb:cc:01",
      link: "veth1",
      state: "active",
      service: "web",
    },
  ]);
  assert.deepEqual(["fd00::1", "10.0.1.10", "10.0.1.9"].sort(compareAddresses), ["10.0.1.9", "10.0.1.10", "fd00::1"]);
});

const participant = (n: number, fields: { draining?: boolean; local?: boolean; ports?: boolean } = {}) => ({
  endpointId: `e${n}`,
  name: `web.${n}.xyz`,
  aliases: [],
  address: `10.0.1.${n}`,
  address6: "",
  service: {
    ...web,
    ingressPorts: fields.ports
      ? [{ name: "", protocol: "tcp" as const, targetPort: 80, publishedPort: 8080 }]
      : web.ingressPorts,
  },
  draining: fields.draining ?? false,
  hostAddress: "192.0.2.2",
  owner: fields.local ? "" : "node",
  local: fields.local ?? false,
});

test("a service: its VIP, its backends, and each one's part of new connections", () => {
  const [service, ...others] = serviceLooks([
    {
      networkId: overlay.spec.id,
      name: "net1",
      ingress: false,
      counting: [participant(10), participant(9, { local: true }), participant(8, { draining: true })],
      suspended: [participant(7)],
    },
  ]);
  assert.deepEqual(others, []);
  assert.equal(service?.name, "web");
  assert.equal(service?.networks[0]?.vip, "10.0.1.2");
  assert.deepEqual(
    service?.networks[0]?.backends.map(({ address, state, share, here: local }) => [address, state, share, local]),
    [
      ["10.0.1.7", "suspended", 0, false],
      ["10.0.1.8", "draining", 0, false],
      ["10.0.1.9", "serving", 0.5, true],
      ["10.0.1.10", "serving", 0.5, false],
    ],
  );
});

test("a port of the mesh: who answers, and who is told the client's address", () => {
  const ingress = {
    networkId: "ing",
    name: "ingress",
    ingress: true,
    counting: [participant(4, { ports: true }), participant(5, { ports: true }), participant(6)],
    suspended: [],
  };
  const mesh: MeshPort[] = [
    {
      protocol: "tcp",
      publishedPort: 8080,
      backends: [
        { address: "10.0.1.4", returnsToEntry: true },
        { address: "10.0.1.5", returnsToEntry: false },
      ],
    },
  ];
  // A task of this host alone is asked where the policy is "local": what is planned counts.
  const [local] = meshLooks(
    [
      {
        protocol: "tcp",
        publishedPort: 8080,
        bound: ["192.0.2.0/24"],
        backends: [{ address: "10.0.1.5", returnsToEntry: true }],
      },
    ],
    ingress,
    undefined,
    undefined,
  );
  assert.ok(local?.kind === "mesh");
  assert.deepEqual(
    local.backends.map(({ share }) => share),
    [0, 1],
  );
  assert.deepEqual(local.addresses, ["192.0.2.0/24"]);
  const [none] = meshLooks([], ingress, undefined, undefined);
  assert.ok(
    none?.kind === "mesh" && none.backends.every(({ share }) => share === 0),
    "published, but not answered here",
  );
  const leg = { device: "veth-ingress", mark: 1, mask: 1, near: [] };
  const byLeg = [{ protocol: "tcp" as const, publishedPort: 8080, tasks: ["10.0.1.4"] }];
  assert.deepEqual(
    [byLeg, []].map((ports) => {
      const [look] = meshLooks(mesh, ingress, undefined, { ...leg, ports });
      return look?.kind === "mesh" && look.door.leg;
    }),
    ["veth-ingress", ""],
  );
  const [port] = meshLooks(mesh, ingress, undefined, undefined);
  assert.ok(port?.kind === "mesh");
  assert.deepEqual([port.port, port.services, port.target], [8080, ["web"], [80]]);
  assert.deepEqual(
    port.backends.map(({ address, share, keepsClientAddress }) => [address, share, keepsClientAddress]),
    [
      ["10.0.1.4", 0.5, true],
      ["10.0.1.5", 0.5, false],
    ],
  );
});

test("a container's port: both families are one, routed ports are none", () => {
  const published = { protocol: "tcp", containerPort: 80 } as const;
  const one = sandbox("c1", [], {
    ports: [
      { ...published, hostIp: "0.0.0.0", hostPort: 8081 },
      { ...published, hostIp: "::", hostPort: 8081 },
      { ...published, hostIp: "", hostPort: 0 },
    ],
  });
  const looks = containerPortLooks(world([], [one]), () => ({ ipv4: "172.17.0.2", ipv6: "" }));
  assert.deepEqual(looks, [
    {
      kind: "container",
      protocol: "tcp",
      port: 8081,
      addresses: ["0.0.0.0", "::"],
      container: "c1",
      address: "172.17.0.2",
      target: 80,
    },
  ]);
});

test("gossip: counters by what they are about, keys by their ids", () => {
  const cluster = {
    bindAddress: "192.0.2.1",
    advertiseAddress: "192.0.2.1",
    dataPathAddress: "192.0.2.1",
    dataPathPort: 4789,
  };
  const member = { port: 7946, incarnation: 1, sinceMs: 5, networks: ["a", "b"] };
  const view = gossipView(
    cluster,
    {
      name: "me",
      members: () => [
        { ...member, name: "other", address: "192.0.2.2", state: "suspect", self: false },
        { ...member, name: "me", address: "192.0.2.1", state: "alive", self: true },
      ],
      stats: () => ({ health: 2, "queue.members": 1, "dropped.crc": 3, "ignored.full": 4, packets: 9 }),
    },
    [{ id: "abcd1234", lamportTime: 7n, sends: true }],
    (node) => node === "other",
  );
  assert.equal(view.health, 2);
  assert.deepEqual(view.queues, { members: 1 });
  assert.deepEqual(view.dropped, { crc: 3, full: 4 });
  assert.deepEqual(view.counters, { packets: 9 });
  assert.deepEqual(view.keys, [{ id: "abcd1234", lamportTime: "7", use: "send" }]);
  assert.deepEqual(
    view.members.map(({ name, state, skein, networks }) => [name, state, skein, networks]),
    [
      ["me", "alive", true, 2],
      ["other", "suspect", true, 2],
    ],
  );
  assert.equal(gossipView(cluster, undefined, [], () => false).name, undefined);
});
