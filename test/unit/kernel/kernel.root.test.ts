/** The kernel room against what iproute2 and nft say of the same objects. Makes its own namespaces. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { openConntrack } from "../../../src/kernel/conntrack.ts";
import { KernelError } from "../../../src/kernel/error.ts";
import { hasFeature } from "../../../src/kernel/feature.ts";
import {
  createNetNs,
  currentNetNs,
  destroyNetNs,
  isNetNs,
  openNetNs,
  scratchNetNs,
} from "../../../src/kernel/netns.ts";
import { openNft } from "../../../src/kernel/nft.ts";
import { openRtnl } from "../../../src/kernel/rtnl.ts";
import { bindHostPort, tcpConnectIn, tcpListenerIn, udpSocketIn } from "../../../src/kernel/socket.ts";
import { readSysctl, writeSysctl } from "../../../src/kernel/sysctl.ts";
import type { NetNs } from "../../../src/kernel/types.ts";

const directory = mkdtempSync(join(tmpdir(), "kernel-test-"));
after(() => rmSync(directory, { recursive: true }));

type Json = Record<string, unknown>;
const tool = (ns: NetNs, command: string, ...args: string[]): Json[] =>
  JSON.parse(ns.run(() => execFileSync(command, args)).toString() || "[]");

const refusal =
  (code: string, text = "") =>
  (error: unknown) =>
    error instanceof KernelError && error.code === code && error.message.includes(text);

test("a namespace is pinned, found again, refused twice, unpinned twice", () => {
  const path = join(directory, "deep", "ns");
  using home = currentNetNs();
  using made = createNetNs(path);
  assert.notEqual(made.inode, home.inode);
  assert.ok(isNetNs(path));
  assert.throws(() => createNetNs(path), refusal("EEXIST"));
  using opened = openNetNs(path);
  assert.equal(opened.inode, made.inode);
  destroyNetNs(path);
  destroyNetNs(path);
  assert.ok(!existsSync(path));
  assert.throws(() => openNetNs(path), refusal("ENOENT"));
  assert.ok(!isNetNs("/proc/self/ns/mnt"));
});

test("run comes back from nested visits and from failures, and refuses asynchronous work", () => {
  using home = currentNetNs();
  using a = scratchNetNs();
  using b = scratchNetNs();
  const here = () => {
    using ns = currentNetNs();
    return ns.inode;
  };
  a.run(() => {
    assert.equal(here(), a.inode);
    assert.throws(() =>
      b.run(() => {
        assert.equal(here(), b.inode);
        throw new Error("inside");
      }),
    );
    assert.equal(here(), a.inode);
  });
  assert.throws(() => a.run(async () => {}), TypeError);
  assert.equal(here(), home.inode);
});

test("links are as ip says", async () => {
  using ns = scratchNetNs();
  using other = scratchNetNs();
  using rtnl = openRtnl(ns);
  const bridge = rtnl.addLink({ kind: "bridge", name: "br0", mac: "02:42:0a:00:00:01", up: true, vlanDefaultPvid: 0 });
  const veth = rtnl.addLink({
    kind: "veth",
    name: "veth0",
    master: bridge.index,
    mtu: 1450,
    up: true,
    peer: { name: "eth0", ns: other, mac: "02:42:0a:00:01:03", mtu: 1450, up: true, alias: "task" },
  });
  rtnl.addLink({
    kind: "vxlan",
    name: "vxlan0",
    vni: 4097,
    port: 4789,
    local: "10.9.9.9",
    learning: false,
    proxy: true,
    l2miss: true,
    l3miss: true,
    udpCsum: true,
    master: bridge.index,
  });
  rtnl.setLink(veth.index, { hairpin: true, isolated: true, bridgeLearning: false, alias: "port" });

  const shown = tool(ns, "ip", "-j", "-d", "link");
  for (const link of rtnl.links()) {
    const other = shown.find((one) => one.ifname === link.name);
    assert.ok(other, link.name);
    assert.equal(other.ifindex, link.index);
    assert.equal(other.mtu, link.mtu);
    assert.equal(other.address, link.mac);
    assert.equal((other.flags as string[]).includes("UP"), link.up);
    assert.equal(other.master ?? "", link.master ? "br0" : "");
    assert.equal((other.linkinfo as Json | undefined)?.info_kind ?? "", link.kind);
    assert.equal(other.ifalias ?? "", link.alias);
  }
  const port = shown.find((one) => one.ifname === "veth0")?.linkinfo as { info_slave_data: Json };
  assert.equal(port.info_slave_data.hairpin, true);
  assert.equal(port.info_slave_data.isolated, true);
  assert.equal(port.info_slave_data.learning, false);
  const device = shown.find((one) => one.ifname === "vxlan0") as { linkinfo: { info_data: Json } };
  const vxlan = device.linkinfo.info_data;
  assert.deepEqual(
    [vxlan.id, vxlan.port, vxlan.local, vxlan.learning, vxlan.proxy, vxlan.l2miss, vxlan.l3miss],
    [4097, 4789, "10.9.9.9", false, true, true, true],
  );
  assert.deepEqual(rtnl.link("vxlan0")?.vxlan, {
    vni: 4097,
    port: 4789,
    local: "10.9.9.9",
    learning: false,
    proxy: true,
  });

  using there = openRtnl(other);
  const peer = there.link("eth0");
  assert.ok(peer?.up && peer.running);
  assert.deepEqual([peer.mac, peer.mtu, peer.alias, peer.peer], ["02:42:0a:00:01:03", 1450, "task", veth.index]);
  there.setLink(peer.index, { ns, name: "moved", up: false });
  assert.equal(there.link("eth0"), undefined);
  assert.equal(rtnl.link("moved")?.up, false);

  assert.throws(() => rtnl.addLink({ kind: "bridge", name: "br0" }), refusal("EEXIST"));
  await rtnl.delLink(bridge.index);
  await rtnl.delLink(bridge.index);
  assert.equal(rtnl.link("br0"), undefined);
  assert.equal(rtnl.link("veth0")?.master, 0);
});

test("addresses, routes, neighbours, forwarding entries and rules are as ip and bridge say", () => {
  using ns = scratchNetNs();
  using rtnl = openRtnl(ns);
  const br = rtnl.addLink({ kind: "bridge", name: "br0", up: true }).index;
  const vx = rtnl.addLink({
    kind: "vxlan",
    name: "vxlan0",
    vni: 9,
    port: 4789,
    local: "",
    learning: false,
    proxy: false,
    up: true,
    master: br,
  }).index;
  rtnl.addAddr(br, "10.0.1.1", 24);
  rtnl.addAddr(br, "10.0.1.9", 32);
  rtnl.addAddr(br, "fd00:1::1", 64, { nodad: true });
  assert.throws(() => rtnl.addAddr(br, "10.0.1.1", 24), refusal("EEXIST"));
  rtnl.addAddr(br, "10.0.1.1", 24, { replace: true });
  const addresses = (tool(ns, "ip", "-j", "addr").find((one) => one.ifname === "br0")?.addr_info ?? []) as Json[];
  assert.deepEqual(
    rtnl
      .addrs()
      .filter((one) => one.link === br)
      .map((one) => `${one.address}/${one.prefix} ${one.scope}`)
      .sort(),
    addresses.map((one) => `${one.local}/${one.prefixlen} ${one.scope}`).sort(),
  );
  assert.equal(addresses.find((one) => one.local === "10.0.1.1")?.broadcast, "10.0.1.255");

  rtnl.setRoute({ dst: "10.5.0.0/16", gateway: "10.0.1.7", source: "10.0.1.9", metric: 5 });
  rtnl.setRoute({ dst: "default", gateway: "192.0.2.1", link: br, onlink: true, table: 700 });
  rtnl.setRoute({ dst: "10.6.1.2/15", link: br });
  rtnl.setRoute({ dst: "fd05::/32", gateway: "fd00:1::9" });
  const ours = rtnl.routes().filter((one) => one.protocol === "static");
  assert.deepEqual(
    ours.map((one) => [one.dst, one.gateway, one.source, one.table, one.metric, one.scope, one.onlink]),
    [
      ["10.5.0.0/16", "10.0.1.7", "10.0.1.9", 254, 5, "global", undefined],
      ["10.6.0.0/15", undefined, undefined, 254, 0, "link", undefined],
      ["default", "192.0.2.1", undefined, 700, 0, "global", true],
      ["fd05::/32", "fd00:1::9", undefined, 254, 1024, "global", undefined],
    ].sort((a, b) => ours.findIndex((one) => one.dst === a[0]) - ours.findIndex((one) => one.dst === b[0])),
  );
  assert.deepEqual(
    tool(ns, "ip", "-j", "route", "show", "table", "all", "proto", "static").map((one) => one.dst),
    ours.map((one) => one.dst),
  );
  assert.equal(rtnl.routeTo("10.5.1.1")?.gateway, "10.0.1.7");
  assert.equal(rtnl.routeTo("198.51.100.1"), undefined);
  assert.throws(() => rtnl.setRoute({ dst: "10.8.0.0/16", gateway: "99.9.9.9" }), refusal("ENETUNREACH", "Nexthop"));
  for (const { dst, link, gateway, table } of ours) rtnl.delRoute({ dst, link, table, ...(gateway && { gateway }) });
  rtnl.delRoute({ dst: "10.77.0.0/16", link: br });
  assert.deepEqual(
    rtnl.routes().filter((one) => one.protocol === "static"),
    [],
  );

  rtnl.setNeigh(vx, "10.0.1.5", "02:42:0a:00:01:05");
  rtnl.setNeigh(vx, "10.0.1.5", "02:42:0a:00:01:06");
  rtnl.setFdb(vx, "02:42:0a:00:01:05", "192.0.2.8");
  rtnl.setFdb(vx, "02:42:0a:00:01:05", "192.0.2.7");
  const neighs = tool(ns, "ip", "-j", "neigh", "show", "nud", "permanent");
  assert.deepEqual(
    neighs.map((one) => [one.dst, one.dev, one.lladdr]),
    [["10.0.1.5", "vxlan0", "02:42:0a:00:01:06"]],
  );
  assert.deepEqual(
    rtnl.neighs().filter((one) => one.permanent),
    [{ link: vx, address: "10.0.1.5", mac: "02:42:0a:00:01:06", permanent: true, state: "permanent" }],
  );
  const shown = tool(ns, "bridge", "-j", "fdb").filter((one) => one.dst);
  assert.deepEqual(
    shown.map((one) => [one.mac, one.ifname, one.dst, one.flags]),
    [["02:42:0a:00:01:05", "vxlan0", "192.0.2.7", ["self"]]],
  );
  assert.equal(rtnl.fdb().length, tool(ns, "bridge", "-j", "fdb").length);
  rtnl.delFdb(vx, "02:42:0a:00:01:05", "self", "192.0.2.7");
  rtnl.delFdb(vx, "02:42:0a:00:01:05", "self", "192.0.2.7");
  rtnl.delNeigh(vx, "10.0.1.5");
  rtnl.delNeigh(vx, "10.0.1.5");
  assert.equal(rtnl.fdb().filter((one) => one.dst).length, 0);

  rtnl.addRule({ family: 4, priority: 100, mark: 0x300, mask: 0xff00, table: 700 });
  const rule = tool(ns, "ip", "-j", "rule").find((one) => one.priority === 100);
  assert.deepEqual([rule?.fwmark, rule?.fwmask, rule?.table], ["0x300", "0xff00", "700"]);
  rtnl.delRule({ family: 4, priority: 100, mark: 0x300, mask: 0xff00, table: 700 });
  rtnl.delRule({ family: 4, priority: 100, mark: 0x300, mask: 0xff00, table: 700 });
  assert.ok(!rtnl.rules().some((one) => one.priority === 100));
});

test("nft: transactions are atomic, listings are nft's, absence is undefined", () => {
  using ns = scratchNetNs();
  using nft = openNft(ns);
  nft.run("table ip t {\nmap m { type ipv4_addr : verdict; }\nchain c { type nat hook output priority -100; }\n}");
  assert.throws(() => nft.run("add table ip half\nadd rule ip t absent accept"), refusal("ENOENT", "absent"));
  assert.deepEqual(nft.tables(), [{ family: "ip", name: "t" }]);
  const shown = JSON.parse(
    ns.run(() => execFileSync("nft", ["-j", "-y", "list", "table", "ip", "t"])).toString(),
  ) as Record<string, unknown[]>;
  assert.deepEqual(nft.list("table ip t"), shown.nftables?.slice(1));
  assert.equal(nft.list("table ip nothing"), undefined);
  assert.throws(() => nft.run("add table"), refusal("EINVAL", "syntax error"));
  using outside = openNft();
  assert.ok(!outside.tables().some((one) => one.name === "t"));
});

test("nft on a pool thread: in order, apart from the rest, with errors, closed in time", async () => {
  using ns = scratchNetNs();
  const nft = openNft(ns);
  const first = nft.runAsync("add table ip a");
  const failing = assert.rejects(nft.runAsync("add rule ip nowhere c accept"), refusal("ENOENT"));
  const last = nft.runAsync("add chain ip a c");
  nft.run("add table ip b");
  await Promise.all([first, failing, last]);
  assert.deepEqual(
    nft
      .tables()
      .map(({ name }) => name)
      .sort(),
    ["a", "b"],
  );
  const late = nft.runAsync("add table ip late");
  nft[Symbol.dispose]();
  await assert.rejects(Promise.all([late, nft.runAsync("add table ip never")]), refusal("EBADF"));
  using outside = openNft();
  assert.ok(!outside.tables().some(({ name }) => name === "a" || name === "late"));
});

test("sysctls of a namespace are its own", () => {
  using ns = scratchNetNs();
  const before = readSysctl("net.ipv4.ip_forward");
  for (const value of ["1", "0"]) {
    writeSysctl("net.ipv4.ip_forward", value, ns);
    assert.equal(readSysctl("net.ipv4.ip_forward", ns), value);
    assert.equal(readSysctl("net.ipv4.ip_forward"), before);
  }
  assert.throws(() => readSysctl("net.ipv4.nothing", ns), refusal("ENOENT"));
  assert.throws(() => readSysctl("net.//.//.x"), refusal("EINVAL"));
});

test("sockets work inside a namespace and their connections can be forgotten", async () => {
  using ns = scratchNetNs();
  const server = await udpSocketIn(ns, "127.0.0.11", 0);
  const client = await udpSocketIn(ns, "127.0.0.1", 0);
  const listener = await tcpListenerIn(ns, "127.0.0.11", 0);
  try {
    using nft = openNft(ns);
    nft.run("table ip t {\nchain c { type nat hook output priority -100; ip daddr 10.1.1.1 dnat to 127.0.0.11; }\n}");
    server.on("message", (data, from) => server.send(`re: ${data}`, from.port, from.address));
    const { promise, resolve } = Promise.withResolvers<string>();
    client.once("message", (data) => resolve(data.toString()));
    client.send("hello", server.address().port, "127.0.0.11");
    assert.equal(await promise, "re: hello");
    using conntrack = openConntrack(ns);
    assert.equal(conntrack.count(), 1);
    assert.equal(conntrack.flush({ family: 4, replySrc: "127.0.0.12" }), 0);
    assert.equal(conntrack.flush({ family: 4, protocol: 6 }), 0);
    assert.equal(conntrack.flush({ family: 4, origSrc: "127.0.0.1", origDst: "127.0.0.12" }), 0);
    assert.equal(conntrack.flush({ family: 6, origSrc: "::1" }), 0);
    assert.equal(conntrack.flush({ family: 4, protocol: 17, replySrc: "127.0.0.11" }), 1);
    assert.equal(conntrack.count(), 0);
  } finally {
    server.close();
    client.close();
    listener.close();
  }
});

test("a reserved port is nobody else's until it is released", async () => {
  using ns = scratchNetNs();
  for (const protocol of ["tcp", "udp"] as const) {
    const reservation = bindHostPort(protocol, "", 18080, ns);
    assert.throws(() => bindHostPort(protocol, "127.0.0.1", 18080, ns), refusal("EADDRINUSE"));
    if (protocol === "tcp") {
      // Another program cannot listen there, a client is refused rather than left waiting.
      await assert.rejects(tcpListenerIn(ns, "127.0.0.1", 18080), { code: "EADDRINUSE" });
      const client = tcpConnectIn(ns, "127.0.0.1", 18080);
      const failure = await new Promise<NodeJS.ErrnoException>((resolve) => client.on("error", resolve));
      assert.equal(failure.code, "ECONNREFUSED");
    }
    assert.throws(() => bindHostPort(protocol, "::1", 18080, ns), refusal("EADDRINUSE"));
    reservation[Symbol.dispose]();
    using again = bindHostPort(protocol, "127.0.0.1", 18080, ns);
    assert.equal(again.port, 18080);
  }
  assert.throws(() => bindHostPort("tcp", "192.0.2.9", 1, ns), refusal("EADDRNOTAVAIL"));
  using chosen = bindHostPort("tcp", "", 0, ns);
  assert.ok(chosen.port > 0);
});

test("features are found without leaving anything behind", () => {
  // Not in the machine's own namespace: others make and remove links there.
  using ns = scratchNetNs();
  using rtnl = openRtnl(ns);
  const before = rtnl.links().length;
  assert.equal(
    ns.run(() => hasFeature("bridge")),
    true,
  );
  assert.equal(
    ns.run(() => hasFeature("nftables")),
    true,
  );
  assert.equal(rtnl.links().length, before);
});
