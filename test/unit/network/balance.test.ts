import assert from "node:assert/strict";
import { test } from "node:test";
import {
  hostState,
  meshEntries,
  meshHost,
  meshPorts,
  meshSandbox,
  meshTask,
  vipsOf,
} from "../../../src/network/balance.ts";
import type { MeshDoor } from "../../../src/network/overlay/mesh.ts";
import { decodeDoor, encodeDoor } from "../../../src/network/overlay/mesh.ts";
import type { Participant } from "../../../src/network/overlay/records.ts";
import { tunnelTable } from "../../../src/network/plan/tunnels.ts";
import { ingressSandboxId } from "../../../src/network/state.ts";
import { endpoint, ipam, network, sandbox, world } from "./fixtures.ts";

const ingress = network({
  id: "ing",
  name: "ingress",
  driver: "overlay",
  ingress: true,
  ipam: ipam({ subnet: "10.0.0.0/24", gateway: "10.0.0.1" }),
});
const gwbridge = network({
  id: "gw",
  name: "docker_gwbridge",
  driver: "bridge",
  options: { "com.docker.network.bridge.name": "docker_gwbridge" },
  ipam: ipam({ subnet: "172.18.0.0/16", gateway: "172.18.0.1" }),
});
const door = sandbox(
  ingressSandboxId,
  [
    endpoint({ networkId: "ing", role: "lb", ipv4: "10.0.0.2/24", mac: "02:42:00:00:00:02" }),
    endpoint({ networkId: "gw", role: "gateway", ifName: "eth1", ipv4: "172.18.0.2/16" }),
  ],
  { kind: "ingress" },
);
const port = (publishedPort: number, targetPort = 80, protocol: "tcp" | "udp" = "tcp") => ({
  name: "",
  protocol,
  targetPort,
  publishedPort,
});
const task = (n: number, owner: string, ports = [port(8080)], partial: Partial<Participant> = {}): Participant => ({
  endpointId: `e${n}`,
  name: `web.${n}`,
  aliases: [],
  address: `10.0.0.${n}`,
  address6: "",
  service: { id: "s1", name: "web", vip: "10.0.0.200", aliases: [], ingressPorts: ports },
  draining: false,
  hostAddress: "192.0.2.1",
  owner,
  local: owner === "",
  ...partial,
});
const doors = new Map<string, MeshDoor>([
  ["skein2", { address: "10.0.0.3", mac: "02:42:00:00:00:03", returns: true, leg: "06:42:00:00:00:03" }],
  ["skein3", { address: "10.0.0.4", mac: "02:42:00:00:00:04", returns: false }],
]);

test("mesh: clients are kept towards nodes that can answer through the entry node, hidden from the others", () => {
  const ports = meshPorts([task(11, ""), task(12, "skein2"), task(13, "skein3"), task(14, "docker")], doors, true);
  assert.deepEqual(ports, [
    {
      protocol: "tcp",
      publishedPort: 8080,
      backends: [
        { address: "10.0.0.11", returnsToEntry: true, returnsToLeg: true },
        { address: "10.0.0.12", returnsToEntry: true, returnsToLeg: true },
        { address: "10.0.0.13", returnsToEntry: false },
        { address: "10.0.0.14", returnsToEntry: false },
      ],
    },
  ]);
});

test("mesh: a port is bound as soon as one task says so, to the addresses of all that do; closed where none is told", () => {
  const bound = (...places: string[]) => [{ ...port(8080), bound: places }];
  const binding = (...tasks: Participant[]) => meshPorts(tasks, doors, true)[0]?.bound;
  assert.equal(binding(task(11, "")), undefined);
  assert.deepEqual(binding(task(11, ""), task(12, "skein2", bound("127.0.0.1/32"))), ["127.0.0.1/32"]);
  assert.deepEqual(
    binding(task(11, "skein2", bound("127.0.0.1/32")), task(12, "skein2", bound("10.1.0.0/16", "127.0.0.1/32"))),
    ["10.1.0.0/16", "127.0.0.1/32"],
  );
  assert.deepEqual(binding(task(11, ""), task(12, "skein2", bound(), { draining: true })), []);
  const w = world([ingress, gwbridge], [door]);
  const host = (...places: string[]) => meshHost(w, meshPorts([task(11, "", bound(...places))], doors, true))?.ports;
  assert.deepEqual(host("127.0.0.1/32", "::1/128"), [
    { protocol: "tcp", publishedPort: 8080, bound: ["127.0.0.1/32"] },
  ]);
  assert.deepEqual(host("::1/128"), [{ protocol: "tcp", publishedPort: 8080, bound: [] }], "at no IPv4 address");
});

test("mesh: a local port has the tasks of this node only, and without one it is not there", () => {
  const local = [{ ...port(8080), local: true }, port(9090)];
  const shown = (...tasks: Participant[]) =>
    meshPorts(tasks, doors, true).map((p) => [p.publishedPort, p.backends.map((b) => b.address)]);
  assert.deepEqual(shown(task(11, "", local), task(12, "skein2", local)), [
    [8080, ["10.0.0.11"]],
    [9090, ["10.0.0.11", "10.0.0.12"]],
  ]);
  assert.deepEqual(shown(task(12, "skein2", local)), [[9090, ["10.0.0.12"]]]);
  assert.deepEqual(shown(task(11, "", local, { draining: true }), task(12, "skein2", local)), [[9090, ["10.0.0.12"]]]);
  assert.deepEqual(shown(task(11, ""), task(12, "skein2", local)).length, 2, "one that is local makes all so");
});

test("mesh: draining tasks serve no port, but keep it; an update with two sets of ports serves both", () => {
  const ports = meshPorts(
    [task(11, "", [port(8080)], { draining: true }), task(12, "", [port(8080), port(9053, 53, "udp")])],
    doors,
    true,
  );
  assert.deepEqual(
    ports.map((p) => [p.protocol, p.publishedPort, p.backends.map((b) => b.address)]),
    [
      ["tcp", 8080, ["10.0.0.12"]],
      ["udp", 9053, ["10.0.0.12"]],
    ],
  );
  const last = meshPorts([task(11, "", [port(8080)], { draining: true })], doors, true);
  assert.deepEqual(last, [{ protocol: "tcp", publishedPort: 8080, backends: [] }]);
});

test("mesh: the host sends to ingress_sbox, which sends to tasks; doors are told in order", () => {
  const w = world([ingress, gwbridge], [door]);
  const ports = meshPorts([task(11, "")], doors, true);
  assert.deepEqual(meshHost({ ...w, legless: true }, ports), {
    bridge: "docker_gwbridge",
    bridgeSubnet: "172.18.0.0/16",
    sandbox: "172.18.0.2",
    ingressSubnet: "10.0.0.0/24",
    ports: [{ protocol: "tcp", publishedPort: 8080 }],
  });
  assert.equal(meshHost({ ...w, legless: true }, []), undefined, "nothing published, nothing there");
  assert.deepEqual(meshHost(w, [])?.leg?.ports, [], "but what ends by the leg is still led there");
  assert.equal(meshHost(world([ingress, gwbridge], []), ports), undefined, "no door yet");
  const { ports: _, ...devices } = meshSandbox(w, ports) ?? { ports: [] };
  assert.deepEqual(devices, {
    ingressDevice: "eth0",
    ingressAddress: "10.0.0.2",
    gatewayDevice: "eth1",
    gatewaySubnet: "172.18.0.0/16",
  });
  assert.deepEqual(
    meshEntries(w, doors).map((entry) => entry.address),
    ["10.0.0.2", "10.0.0.3", "10.0.0.4"],
  );
});

test("mesh: by the host's own leg go ports all of whose tasks can answer to it", () => {
  const w = world([ingress, gwbridge], [door]);
  const old = new Map<string, MeshDoor>([...doors, ["old", { address: "10.0.0.5", mac: "02:42:5", returns: true }]]);
  const byLeg = (...tasks: Participant[]) =>
    meshHost(w, meshPorts(tasks, old, true))?.leg?.ports.map(({ publishedPort, tasks: to }) => [publishedPort, to]);
  assert.deepEqual(byLeg(task(11, ""), task(12, "skein2")), [[8080, ["10.0.0.11", "10.0.0.12"]]]);
  for (const owner of ["docker", "skein3", "old"]) {
    assert.deepEqual(byLeg(task(11, ""), task(12, owner, [port(8080), port(9090)]), task(13, "", [port(81)])), [
      [81, ["10.0.0.13"]],
    ]);
  }
  assert.deepEqual(byLeg(task(11, "", [port(8080)], { draining: true })), [], "without a task ingress_sbox refuses");
  // Whose address means nothing in a task's namespace, or something else.
  assert.deepEqual(meshHost(w, meshPorts([task(11, "")], old, true))?.leg?.near, [
    "10.0.0.0/24",
    "127.0.0.0/8",
    "172.18.0.0/16",
  ]);
  const two = { ...ingress.spec, ipam: ipam({ subnet: "10.0.0.0/24" }, { subnet: "10.9.0.0/24" }) };
  const wide = meshHost(world([{ ...ingress, spec: two }, gwbridge], [door]), meshPorts([task(11, "")], old, true));
  assert.equal(wide?.leg, undefined, "a network of two switches has no leg");
  assert.deepEqual(
    meshEntries(w, old).map(({ address, leg }) => [address, leg]),
    [
      ["10.0.0.2", "06:42:00:00:00:02"],
      ["10.0.0.3", "06:42:00:00:00:03"],
      ["10.0.0.4", undefined],
      ["10.0.0.5", undefined],
    ],
  );
});

test("mesh: a node that came back under another name is one door, and its last", () => {
  const [, first] = [...doors][0] ?? [];
  assert.ok(first);
  const returned = new Map([...doors, ["again", { ...first, mac: "02:42:0a:00:00:99" }]]);
  const w = world([ingress, gwbridge], [door]);
  const entries = meshEntries(w, returned);
  assert.equal(new Set(entries.map(({ address }) => address)).size, entries.length);
  assert.equal(entries.find(({ address }) => address === first.address)?.mac, "02:42:0a:00:00:99");
  // Its own door is known best; a stranger's claim to it counts for nothing.
  const own = meshEntries(w, new Map([["me", { ...first, address: "10.0.0.2" }]]));
  assert.deepEqual(
    own.map(({ address, mac }) => [address, mac === first.mac]),
    [["10.0.0.2", false]],
  );
});

test("mesh: a task's half is there only where it has ports", () => {
  const service = { id: "s1", name: "web", vip: "", aliases: [], ingressPorts: [port(8080)] };
  const served = sandbox("t1", [
    endpoint({ networkId: "ing", ifName: "eth1", ipv4: "10.0.0.11/24", service }),
    endpoint({ networkId: "gw", role: "gateway", ifName: "eth2", ipv4: "172.18.0.9/16" }),
  ]);
  const plain = sandbox("t2", [endpoint({ networkId: "gw", role: "gateway" })]);
  const w = world([ingress, gwbridge], [door, served, plain]);
  const none = () => undefined;
  assert.equal(meshTask(w, plain, [], true, none), undefined);
  assert.deepEqual(meshTask(w, served, [], true, none), {
    ingressDevice: "eth1",
    ingressAddress: "10.0.0.11",
    ingressSubnet: "10.0.0.0/24",
    defaultSource: "172.18.0.9",
    ports: [{ protocol: "tcp", publishedPort: 8080, targetPort: 80 }],
    headed: [],
    entries: [],
    egressHook: true,
  });
  const proxied = [{ ...port(8080), proxy: true }, port(8081), { ...port(53, 53, "udp"), proxy: true }];
  const asked = sandbox("t3", [
    endpoint({ networkId: "ing", ipv4: "10.0.0.12/24", service: { ...service, ingressPorts: proxied } }),
  ]);
  const leads = (proxyOf: (port: number) => number | undefined) =>
    meshTask(w, asked, [], true, proxyOf)?.ports.map((p) => [p.publishedPort, p.targetPort]);
  assert.deepEqual(
    leads(() => 40000),
    [
      [8080, 40000],
      [8081, 80],
    ],
    "the proxy is the only way to the port",
  );
  assert.deepEqual(leads(none), [[8081, 80]], "and without it the port is closed");
});

test("VIPs in IPv6: of services with tasks that are reached over it, and these alone", () => {
  const six = (n: number) => ({ address6: `fd00::${n}`, vip6: "fd00::200" });
  const list = [task(11, "", [], six(11)), task(12, "x", [], { ...six(12), draining: true }), task(13, "docker", [])];
  const [service, ...others] = vipsOf("net1aaaaaaaaaaaaaaaaaaaaa", list, 6);
  assert.deepEqual([service?.vip, service?.backends, others], ["fd00::200", ["fd00::11"], []]);
  assert.deepEqual(vipsOf("net1aaaaaaaaaaaaaaaaaaaaa", [task(13, "docker", [])], 6), []);
});

test("VIPs: one per service, its tasks without the draining ones", () => {
  const list = [task(11, ""), task(12, "x"), task(13, "x", [], { draining: true })];
  assert.deepEqual(vipsOf("net1aaaaaaaaaaaaaaaaaaaaa", list), [
    { id: "s1.net1aaaaaaaa", vip: "10.0.0.200", backends: ["10.0.0.11", "10.0.0.12"] },
  ]);
  const dnsrr = task(11, "");
  assert.deepEqual(vipsOf("n", [{ ...dnsrr, service: dnsrr.service && { ...dnsrr.service, vip: "" } }]), []);
});

test("published ports lead to the address by which the host reaches the container", () => {
  const published = sandbox("p1", [endpoint({ networkId: "gw", ipv4: "172.18.0.7/16" })], {
    ports: [
      { protocol: "tcp", containerPort: 80, hostIp: "0.0.0.0", hostPort: 8000 },
      { protocol: "tcp", containerPort: 80, hostIp: "::", hostPort: 8000 },
    ],
  });
  assert.deepEqual(hostState(world([gwbridge], [published])).ports, [
    { protocol: "tcp", hostIp: "0.0.0.0", hostPort: 8000, address: "172.18.0.7", containerPort: 80 },
  ]);
});

test("doors of other nodes are believed only as far as they make sense", () => {
  const good: MeshDoor = { address: "10.0.0.3", mac: "02:42:00:00:00:03", returns: true };
  assert.deepEqual(decodeDoor(encodeDoor(good)), good);
  const legged = { ...good, leg: "06:42:00:00:00:03" };
  assert.deepEqual(decodeDoor(encodeDoor(legged)), legged);
  for (const bad of [
    "",
    "{}",
    "null",
    JSON.stringify({ ...good, mac: "x" }),
    JSON.stringify({ ...good, leg: "x" }),
    JSON.stringify({ ...good, address: "1.2.3.4 } drop" }),
  ]) {
    assert.equal(decodeDoor(Buffer.from(bad)), undefined, bad);
  }
});

test("tunnels: only the swarm's hosts are heard, on the data path address", () => {
  const place = { bindAddress: "", advertiseAddress: "192.0.2.1", dataPathAddress: "192.0.2.1", dataPathPort: 4789 };
  assert.equal(
    tunnelTable(place, ["192.0.2.3", "192.0.2.2", "192.0.2.3"]).body,
    `  set hosts4 { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2, 192.0.2.3 } }
  set hosts6 { type ipv6_addr; }
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    ip daddr 192.0.2.1 udp dport 4789 notrack
  }
  chain output {
    type filter hook output priority raw; policy accept;
    ip saddr 192.0.2.1 udp dport 4789 notrack
  }
  chain input {
    type filter hook input priority filter; policy accept;
    meta l4proto != udp accept
    udp dport != 4789 accept
    fib daddr . iif type != local drop
    ip daddr 192.0.2.1 ip saddr @hosts4 accept
    drop
  }
`,
  );
});
