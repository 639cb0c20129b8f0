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

test("the host's leg in the ingress network: a pair to its switch, a rule and a table of its own", () => {
  const ingress = network({
    ...overlay.spec,
    id: "ingaaaaaaaaaaaaaaaaaaaaaa",
    name: "ingress",
    ingress: true,
    ipam: ipam({ subnet: "10.0.0.0/24", gateway: "10.0.0.1" }),
  });
  const lb = { networkId: ingress.spec.id, role: "lb", mac: "02:42:aa:bb:cc:02", ipv4: "10.0.0.2/24" } as const;
  const door = sandbox("ingress-sbox", [endpoint({ ...lb, outerName: "veth1" })], { kind: "ingress" });
  const w = world([gwbridge, ingress], [door]);
  const told = { address: "10.0.0.3", leg: "06:42:00:00:00:03" };
  const onSwitch = explain(planOverlay(w, ingress, [peer(3, "192.0.2.2", told)]));
  for (const line of [
    "  veth-host: to veth-ingress of host, mtu 1450, on br0",
    "    frames to 02:42:00:00:00:03 go to host 192.0.2.2",
    "    frames to 06:42:00:00:00:03 go to host 192.0.2.2",
  ])
    assert.ok(onSwitch.includes(line), onSwitch);
  const lines = explain(planHost(w, [])).split("\n");
  assert.deepEqual(
    lines.filter((line) => /ingress|0\/24|169|marked/.test(line)),
    [
      "  veth-ingress: 06:42:aa:bb:cc:02, mtu 1450, from veth-host of overlay/ingaaaaaaaaaaaaaaaaaaaaaa",
      "    address 169.254.51.1/32",
      "    route 10.0.0.0/24 in table 5100",
      "  packets marked 0x50000000/0xf0000000 use table 5100",
      "  net.ipv4.conf.veth-ingress.src_valid_mark = 1",
      "  net.ipv4.conf.veth-ingress.rp_filter = 2",
      "  net.ipv4.conf.veth-ingress.arp_ignore = 8",
      "  net.ipv4.conf.veth-ingress.arp_announce = 2",
      "  net.ipv6.conf.veth-ingress.disable_ipv6 = 1",
      "  net.ipv4.neigh.veth-ingress.retrans_time_ms = 100",
      "  net.ipv4.neigh.veth-ingress.mcast_solicit = 30",
    ],
  );
  const small = { ...ingress.spec, options: { ...ingress.spec.options, "com.docker.network.driver.mtu": "1200" } };
  const narrow = planHost(world([gwbridge, { ...ingress, spec: small }], [door]), []);
  assert.equal("net.ipv6.conf.veth-ingress.disable_ipv6" in narrow.sysctls, false, "which has no IPv6 at all");
  const without = { ...w, legless: true };
  assert.doesNotMatch(explain(planOverlay(without, ingress, [])), /veth-host/);
  assert.deepEqual([planHost(without, []).rules, planHost(without, []).ownTable], [[], 5100]);
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
  net.ipv4.neigh.eth0.retrans_time_ms = 100
  net.ipv4.neigh.eth0.mcast_solicit = 30
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

test("a VLAN below macvlan networks is made once, and not at all where the host had it", () => {
  const on = (id: string, bridgeByUser = false) =>
    network({ id, name: id, driver: "macvlan", options: { parent: "eth0.10" } }, { bridgeByUser });
  const links = (networks: ReturnType<typeof network>[]) => planHost(world(networks, []), []).links;
  const vlan = { kind: "vlan", name: "eth0.10", mtu: 0, lower: "eth0", id: 10, alias: "skeind: parent of m1" };
  assert.deepEqual(links([on("m1"), on("m2")]), [vlan]);
  assert.deepEqual(links([on("m1", true)]), []);
  for (const parent of ["eth0.x", "eth0.0", "eth0.4095", ".5"]) {
    const bad = network({ id: "m3", name: "m3", driver: "macvlan", options: { parent } });
    assert.throws(() => links([bad]), /vlan must be in the form parent\.id/, parent);
  }
});

test("gateway modes: what is translated, what comes in at the container's own address", () => {
  const prefix = "com.docker.network.bridge.";
  const made = (id: string, subnet: number, options: Record<string, string>, internal = false) =>
    network({
      id,
      name: id,
      driver: "bridge",
      internal,
      enableIPv6: true,
      options: Object.fromEntries(
        Object.entries({ name: id, ...options }).map(([name, value]) => [
          name.startsWith("com.") ? name : prefix + name,
          value,
        ]),
      ),
      ipam: ipam(
        { subnet: `172.2${subnet}.0.0/16`, gateway: `172.2${subnet}.0.1` },
        { subnet: `fd2${subnet}::/64`, gateway: `fd2${subnet}::1` },
      ),
    });
  const networks = [
    made("br-r", 1, { gateway_mode_ipv4: "routed", gateway_mode_ipv6: "nat-unprotected" }),
    made("br-t", 2, { trusted_host_interfaces: "eth1:eth2", "com.docker.network.host_ipv6": "fd00::9" }),
    made("br-i", 3, { gateway_mode_ipv4: "isolated", gateway_mode_ipv6: "isolated" }, true),
    made("br-h", 4, { inhibit_ipv4: "true" }),
  ];
  const inside = sandbox("c0ffee0000001111", [
    endpoint({ networkId: "br-r", outerName: "v1", ipv4: "172.21.0.2/16", ipv6: "fd21::2/64" }),
  ]);
  inside.ports = [{ protocol: "tcp", containerPort: 80, hostIp: "0.0.0.0", hostPort: 0 }];
  const plan = planHost(world(networks, [inside]), []);
  const table = plan.tables.find(({ name }) => name === "skein_bridge")?.body ?? "";
  const at = table.indexOf("oifname @bridges ct status dnat accept\n");
  assert.equal(
    table.slice(at, table.indexOf("oifname @bridges drop")),
    `oifname @bridges ct status dnat accept
    oifname { "br-r" } ip daddr . meta l4proto . th dport @open4 accept
    oifname { "br-r" } meta l4proto icmp accept
    iifname { "eth1", "eth2" } oifname "br-t" ip daddr . meta l4proto . th dport @open4 accept
    meta nfproto ipv6 oifname { "br-r" } accept
    iifname { "eth1", "eth2" } oifname "br-t" ip6 daddr . meta l4proto . th dport @open6 accept
    `,
  );
  assert.match(
    table,
    /set open4 \{ type ipv4_addr \. inet_proto \. inet_service; elements = \{ 172\.21\.0\.2 \. tcp \. 80 \} \}/,
  );
  const ways = table.split("\n").filter((line) => /masquerade|snat/.test(line) && line.includes("saddr"));
  assert.deepEqual(
    ways.map((line) => line.replace(/ comment.*/, "").trim()),
    [
      'ip saddr 172.24.0.0/16 oifname != "br-h" masquerade',
      'ip6 saddr fd24::/64 oifname != "br-h" masquerade',
      'ip6 saddr fd21::/64 oifname != "br-r" masquerade',
      'ip saddr 172.22.0.0/16 oifname != "br-t" masquerade',
      'ip6 saddr fd22::/64 oifname != "br-t" snat ip6 to fd00::9',
    ],
  );
  assert.deepEqual(
    plan.addrs.map(({ link, address }) => `${link} ${address}`),
    ["br-r 172.21.0.1", "br-r fd21::1", "br-t 172.22.0.1", "br-t fd22::1", "br-h fd24::1"],
  );
  const isolated = made("br-x", 5, { gateway_mode_ipv4: "isolated" });
  assert.throws(() => planHost(world([isolated], []), []), /can only be used for an internal network/);
  assert.throws(
    () => planHost(world([made("br-y", 6, { gateway_mode_ipv6: "open" })], []), []),
    /unknown gateway mode open/,
  );
});

test("dual stack: every peer is at two addresses, and the switch has a gateway for each family", () => {
  const dual = network({
    ...overlay.spec,
    enableIPv6: true,
    ipam: ipam({ subnet: "fd00:1::/64", gateway: "fd00:1::1" }, { subnet: "10.0.1.0/24", gateway: "10.0.1.1" }),
  });
  const plan = planOverlay(world([dual], [container]), dual, [peer(5, "192.0.2.2")]);
  assert.deepEqual(plan.addrs, [
    { link: "br0", address: "10.0.1.1", prefix: 24 },
    { link: "br0", address: "fd00:1::1", prefix: 64 },
  ]);
  assert.deepEqual(
    plan.neighs.map(({ address, mac }) => `${address} ${mac}`),
    ["10.0.1.5 02:42:00:00:00:05", "fd00:1::5 02:42:00:00:00:05"],
  );
  assert.equal(plan.fdb.length, 1);
  assert.equal(plan.sysctls["net.ipv6.conf.all.disable_ipv6"], "0");
});

test("MTU: what the path takes, less what the tunnel needs of it", () => {
  const mtuOf = (pathMtu: number, dataPathAddress: string, options: Record<string, string> = {}) => {
    const one = network({ ...overlay.spec, options: { ...overlay.spec.options, ...options } });
    const cluster = { bindAddress: "", advertiseAddress: "", dataPathPort: 4789, dataPathAddress };
    const plan = planOverlay({ ...world([one], []), pathMtu, cluster }, one, []);
    return plan.links.flatMap((link) => (link.kind === "vxlan" ? [link.mtu] : []))[0];
  };
  assert.equal(mtuOf(1500, "192.0.2.1"), 1450);
  assert.equal(mtuOf(1400, "192.0.2.1"), 1350);
  assert.equal(mtuOf(1500, "2001:db8::1"), 1430);
  assert.equal(mtuOf(1400, "192.0.2.1", { "com.docker.network.driver.mtu": "1500" }), 1450, "as the user said");
});
