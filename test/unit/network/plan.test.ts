import assert from "node:assert/strict";
import { test } from "node:test";
import { explain } from "../../../src/network/plan/explain.ts";
import { planHost } from "../../../src/network/plan/host.ts";
import { planOverlay, type RemotePeer } from "../../../src/network/plan/overlay.ts";
import { planSandbox } from "../../../src/network/plan/sandbox.ts";
import { endpoint, ipam, network, sandbox, world } from "./fixtures.ts";

const bridge = network({
  id: "b0",
  name: "bridge",
  driver: "bridge",
  options: { "com.docker.network.bridge.name": "docker0", "com.docker.network.bridge.default_bridge": "true" },
  ipam: ipam({ subnet: "172.17.0.0/16", gateway: "172.17.0.1" }),
});
const gwbridge = network({
  id: "gw",
  name: "docker_gwbridge",
  driver: "bridge",
  options: {
    "com.docker.network.bridge.name": "docker_gwbridge",
    "com.docker.network.bridge.enable_icc": "false",
  },
  ipam: ipam({ subnet: "172.18.0.0/16", gateway: "172.18.0.1" }),
});
const overlay = network({
  id: "n1netaaaaaaaaaaaaaaaaaaaa",
  name: "net1",
  driver: "overlay",
  options: { "com.docker.network.driver.overlay.vxlanid_list": "4097" },
  ipam: ipam({ subnet: "10.0.1.0/24", gateway: "10.0.1.1" }),
});
const onOverlay = endpoint({
  networkId: overlay.spec.id,
  outerName: "veth1",
  mac: "02:42:aa:bb:cc:01",
  ipv4: "10.0.1.4/24",
});
const wayOut = endpoint({
  networkId: "gw",
  role: "gateway",
  name: "gateway_c0ffee000000",
  ifName: "eth1",
  outerName: "veth0000002",
  mac: "02:42:ac:12:00:03",
  ipv4: "172.18.0.3/16",
});
const container = sandbox("c0ffee0000001111", [onOverlay, wayOut]);
const peer = (n: number, vtep: string, partial: Partial<RemotePeer> = {}): RemotePeer => ({
  endpointId: `e${n}`,
  address: `10.0.1.${n}`,
  prefix: 24,
  mac: `02:42:00:00:00:0${n}`,
  vtep,
  ...partial,
});

test("the host of a container on an overlay: its way out is a port of docker_gwbridge, apart from the others", () => {
  const plan = planHost(world([bridge, gwbridge, overlay], [container]), []);
  assert.equal(
    explain(plan),
    `host: the host: bridges, published ports, ways out
  docker0: bridge, mtu 1500
    address 172.17.0.1/16
  docker_gwbridge: bridge, mtu 1500
    address 172.18.0.1/16
  veth0000002: to eth1 of sandbox/c0ffee0000001111, mtu 1500, on docker_gwbridge, isolated
  net.ipv4.ip_forward = 1
  net.bridge.bridge-nf-call-iptables = 0
  net.bridge.bridge-nf-call-ip6tables = 0
  net.bridge.bridge-nf-call-arptables = 0
  net.ipv4.conf.docker0.route_localnet = 1
  net.ipv6.conf.docker0.disable_ipv6 = 1
  net.ipv4.conf.docker_gwbridge.route_localnet = 1
  net.ipv6.conf.docker_gwbridge.disable_ipv6 = 1
  nftables inet skein_bridge
`,
  );
});

test("the switch of an overlay network: ports of this host, one tunnel, what the peers told and nothing else", () => {
  const plan = planOverlay(world([gwbridge, overlay], [container]), overlay, [
    peer(5, "192.0.2.2"),
    peer(6, "192.0.2.3"),
    peer(7, "192.0.2.1"),
    peer(8, "192.0.2.2", { prefix: 16 }),
    peer(9, "192.0.2.2", { address: "10.9.9.9" }),
  ]);
  assert.equal(
    explain(plan),
    `overlay/n1netaaaaaaaaaaaaaaaaaaaa: the switch of overlay network net1 on this host
  lo
  br0: bridge, mtu 1450
    address 10.0.1.1/24
  vxlan0: vxlan 4097 from 192.0.2.1 port 4789, mtu 1450, on br0
    frames to 02:42:00:00:00:05 go to host 192.0.2.2
    frames to 02:42:00:00:00:06 go to host 192.0.2.3
    10.0.1.5 is at 02:42:00:00:00:05
    10.0.1.6 is at 02:42:00:00:00:06
  veth1: to eth0 of sandbox/c0ffee0000001111, mtu 1450, on br0
  net.ipv4.ip_forward = 1
  net.bridge.bridge-nf-call-iptables = 0
  net.bridge.bridge-nf-call-ip6tables = 0
  net.bridge.bridge-nf-call-arptables = 0
  net.ipv6.conf.default.disable_ipv6 = 1
  net.ipv6.conf.all.disable_ipv6 = 1
`,
  );
});

test("two records for one address: the later one counts, and the earlier again when that goes", () => {
  const w = world([overlay], []);
  const stale = peer(5, "192.0.2.2");
  const fresh = peer(5, "192.0.2.3", { endpointId: "new", mac: "02:42:00:00:00:55" });
  assert.deepEqual(planOverlay(w, overlay, [stale, fresh]).fdb, [
    { link: "vxlan0", mac: "02:42:00:00:00:55", dst: "192.0.2.3" },
  ]);
  assert.deepEqual(planOverlay(w, overlay, [stale]).fdb, [
    { link: "vxlan0", mac: "02:42:00:00:00:05", dst: "192.0.2.2" },
  ]);
});

test("a container on an overlay: the network first, the way out last, and the default route through it", () => {
  const plan = planSandbox(world([gwbridge, overlay], [container]), container, { tables: [] });
  assert.equal(
    explain(plan),
    `sandbox/c0ffee0000001111: container c0ffee000000
  lo
  eth0: 02:42:aa:bb:cc:01, mtu 1450, from veth1 of overlay/n1netaaaaaaaaaaaaaaaaaaaa
    address 10.0.1.4/24
  eth1: 02:42:ac:12:00:03, mtu 1500, from veth0000002 of host
    address 172.18.0.3/16
    route default via 172.18.0.1
  net.ipv4.ip_forward = 1
  net.ipv6.conf.default.disable_ipv6 = 1
  net.ipv6.conf.all.disable_ipv6 = 1
  net.ipv4.ip_unprivileged_port_start = 0
  net.ipv4.ping_group_range = 0 2147483647
`,
  );
});

test("an internal network gives no default route; of several others the first by name gives it", () => {
  const internal = network({ ...bridge.spec, id: "in", name: "inside", internal: true, options: {} });
  const zeta = network({
    ...bridge.spec,
    id: "ze",
    name: "zeta",
    options: {},
    ipam: ipam({ subnet: "172.20.0.0/16", gateway: "172.20.0.1" }),
  });
  const alpha = network({
    ...bridge.spec,
    id: "al",
    name: "alpha",
    options: {},
    ipam: ipam({ subnet: "172.21.0.0/16", gateway: "172.21.0.1" }),
  });
  const only = sandbox("s1", [endpoint({ networkId: "in" })]);
  assert.deepEqual(planSandbox(world([internal], [only]), only, { tables: [] }).routes, []);
  const three = sandbox("s2", [
    endpoint({ networkId: "in", ifName: "eth0" }),
    endpoint({ networkId: "ze", ifName: "eth1", ipv4: "172.20.0.2/16" }),
    endpoint({ networkId: "al", ifName: "eth2", ipv4: "172.21.0.2/16" }),
  ]);
  assert.deepEqual(planSandbox(world([internal, zeta, alpha], [three]), three, { tables: [] }).routes, [
    { family: 4, dst: "default", gateway: "172.21.0.1", link: "eth2" },
  ]);
});

test("a network of two subnets: a switch and a tunnel each, and routes between them through its own bridges", () => {
  const two = network({
    ...overlay.spec,
    options: { "com.docker.network.driver.overlay.vxlanid_list": "4097,4098" },
    ipam: ipam({ subnet: "10.0.1.0/24", gateway: "10.0.1.1" }, { subnet: "10.0.2.0/24", gateway: "10.0.2.1" }),
  });
  const plan = planOverlay(world([two], [container]), two, [peer(5, "192.0.2.2", { address: "10.0.2.5" })]);
  assert.deepEqual(
    plan.links.map((link) => link.name),
    ["lo", "br0", "vxlan0", "br1", "vxlan1", "veth1"],
  );
  assert.equal(plan.fdb[0]?.link, "vxlan1");
  const inside = planSandbox(world([two], [container]), container, { tables: [] });
  assert.deepEqual(inside.routes[0], { family: 4, dst: "10.0.2.0/24", gateway: "10.0.1.1", link: "eth0" });
});
