/** Two hosts, one overlay network: reachable, found by name, mended, adopted after a crash, gone at the end. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { GossipView, NetworkLook, Trace } from "../../../src/network/view/types.ts";
import { ipam, spec } from "./fixtures.ts";
import { eventually, type TestHost, testLab } from "./lab.ts";

const keys = [1, 2, 3].map((n) => ({ key: `${n}`.repeat(32), lamportTime: String(100 + n) }));
const vni = (id: string) => ({ "com.docker.network.driver.overlay.vxlanid_list": id });
const net1 = spec({
  id: "net1aaaaaaaaaaaaaaaaaaaaa",
  name: "net1",
  driver: "overlay",
  attachable: true,
  options: vni("4097"),
  ipam: ipam({ subnet: "10.0.1.0/24", gateway: "10.0.1.1" }),
});
const ids = { a: "a".repeat(64), b: "b".repeat(64) };
const pin = (id: string) => id.slice(0, 12);

async function join(host: TestHost, index: number) {
  await host.call("restore", []);
  await host.call("startCluster", {
    bindAddress: host.address,
    advertiseAddress: host.address,
    dataPathAddress: host.address,
    dataPathPort: 4789,
  });
  await host.call("setKeys", keys);
  await host.call("setManagers", ["10.98.0.1"]);
  await host.call("create", net1, { lbAddress: `10.0.1.${index + 2}/24` });
}

async function container(host: TestHost, id: string, name: string, ipv4: string) {
  await host.call("createSandbox", {
    id,
    mode: "private",
    hostname: pin(id),
    domainname: "",
    dns: { servers: [], search: [], options: [] },
    extraHosts: [],
    ports: [],
  });
  let ms = host.lastMs;
  await host.call("connect", id, { networkId: net1.id, name, aliases: [pin(id)], ipv4 });
  ms += host.lastMs;
  await host.call("setActivity", id, "active");
  return ms;
}

test("an overlay network across two hosts", { timeout: 60_000 }, async (t) => {
  await using lab = await testLab(["h1", "h2"], "overlay");
  const [h1, h2] = lab.hosts;
  assert.ok(h1 && h2);
  const ping = async (host: TestHost, from: string, to: string) =>
    (await host.run(`ping -c1 -W1 ${to} >/dev/null`, pin(from))).code === 0;
  const dig = async (host: TestHost, from: string, name: string) =>
    (await host.run(`dig +short +time=1 +tries=1 @127.0.0.11 ${name}`, pin(from))).out.trim();

  await t.test("containers find and reach each other", async () => {
    await join(h1, 0);
    await join(h2, 1);
    const times = [await container(h1, ids.a, "c1", "10.0.1.10/24"), await container(h2, ids.b, "c2", "10.0.1.11/24")];
    t.diagnostic(`sandbox and connection: ${times.map((ms) => ms.toFixed(1)).join(", ")} ms`);
    const started = Date.now();
    await eventually(async () => (await dig(h1, ids.a, "c2")) === "10.0.1.11");
    await eventually(async () => (await dig(h2, ids.b, "c1")) === "10.0.1.10");
    t.diagnostic(`names known everywhere after ${Date.now() - started} ms`);
    assert.ok(await ping(h1, ids.a, "10.0.1.11"));
    assert.ok(await ping(h2, ids.b, "10.0.1.10"));
    assert.ok(await ping(h1, ids.a, "10.98.0.254"), "the way out");
    assert.equal(await dig(h1, ids.a, "nobody"), "");
  });

  await t.test("devices: eth0 the network, eth1 the way out, MTU 1450", async () => {
    const { out } = await h1.run("ip -br addr; ip link show eth0; ip route", pin(ids.a));
    assert.match(out, /eth0@\S+ +UP +10\.0\.1\.10\/24/);
    assert.match(out, /eth1@\S+ +UP +172\.18\.0\.\d+\/16/);
    assert.match(out, /eth0.* mtu 1450/);
    assert.match(out, /default via 172\.18\.0\.1 dev eth1/);
  });

  // The kernel's notifications may have it mended before this pass begins: what counts is what is there after it.
  await t.test("damage is mended", async () => {
    await h1.run("ip link del vxlan0; ip link del veth1", "1-net1aaaaaa");
    await h1.call("reconcile");
    const { out: links } = await h1.run("ip -br link", "1-net1aaaaaa");
    assert.match(links, /vxlan0/);
    assert.match(links, /veth1/);
    assert.ok(await ping(h1, ids.a, "10.0.1.11"));
    assert.deepEqual(await h1.call("reconcile"), [], "and then there is nothing left to do");
    await h1.run(`umount ${h1.netnsDir}/1-net1aaaaaa`);
    await h1.call("reconcile");
    assert.ok(await ping(h1, ids.a, "10.0.1.11"), "a lost pin");
    await h1.run("bridge fdb replace 02:42:de:ad:be:ef dev vxlan0 dst 203.0.113.1 self permanent", "1-net1aaaaaa");
    await h1.call("reconcile");
    const { out: fdb } = await h1.run("bridge fdb show dev vxlan0", "1-net1aaaaaa");
    assert.doesNotMatch(fdb, /02:42:de:ad:be:ef/);
  });

  await t.test("a look inside: what is broken is shown, then as mended; keys are not", async () => {
    const look = async (...broken: string[]) => {
      const found = (await h1.call<NetworkLook[]>("look", ...broken)).find(({ id }) => id === net1.id);
      assert.ok(found);
      return found;
    };
    const well = await look();
    const far = well.elsewhere.find(({ name }) => name === "c2");
    assert.ok(far);
    const gossip = await h1.call<GossipView>("gossip");
    const other = gossip.members.find(({ self }) => !self);
    assert.deepEqual([far.address, far.host, far.announcedBy.node], ["10.0.1.11", h2.address, other?.name]);
    assert.deepEqual([far.state, far.neighbour, far.fdb, far.unused], ["active", "ok", "ok", ""]);
    assert.deepEqual(well.differences, []);
    const shown = await h1.call<{ total: number; byKind: Record<string, number> }>("repairs");
    const before = shown.byKind.fdb ?? 0;

    const broken = await look("1-net1aaaaaa", `bridge fdb del ${far.mac} dev vxlan0 dst ${h2.address} self`);
    assert.equal(broken.elsewhere.find(({ name }) => name === "c2")?.fdb, "missing");
    assert.deepEqual(broken.differences, [`set fdb ${far.mac} to ${h2.address} on vxlan0`]);
    const way = (await h1.call<Trace>("trace", ids.a, "c2")).ways[0];
    // Unless it was mended meanwhile.
    assert.ok(way && (way.reaches || way.steps.some(({ what, ok }) => !ok && what.includes("fdb: missing"))));
    const mended = await eventually(async () => {
      const now = await look();
      return now.differences.length === 0 && now.repairs.length > well.repairs.length ? now : undefined;
    });
    assert.equal(mended.repairs.at(-1)?.difference, `set fdb ${far.mac} to ${h2.address} on vxlan0`);
    assert.equal((await h1.call<typeof shown>("repairs")).byKind.fdb, before + 1);
    assert.equal((await h1.call<Trace>("trace", ids.a, "c2")).ways[0]?.reaches, true);

    assert.equal(gossip.keys.length, 3);
    const text = JSON.stringify([gossip, well]);
    for (const { key } of keys) {
      for (const encoding of ["hex", "base64"] as const) {
        assert.ok(!text.includes(Buffer.from(key, "hex").toString(encoding).replaceAll("=", "")), "a key is shown");
      }
    }
  });

  await t.test("a killed daemon's successor adopts what is there, untouched", async () => {
    const devices = async () =>
      (await h1.run("ip -o link", pin(ids.a))).out +
      (await h1.run("ip -o link; bridge fdb show dev vxlan0", "1-net1aaaaaa")).out;
    // What the bridge learned by itself comes and goes.
    const index = async () => (await devices()).replaceAll(/^.* master br0 $/gm, "");
    // What was heard is written down within a second.
    await new Promise((resolve) => setTimeout(resolve, 1200));
    const before = await index();
    await h1.kill();
    assert.ok(await ping(h1, ids.a, "10.0.1.11"), "meanwhile");
    await h1.start();
    await h1.call("restore", [ids.a]);
    assert.equal(await index(), before, "before gossip has said a word");
    assert.ok(await ping(h1, ids.a, "10.0.1.11"));
    assert.equal(await dig(h1, ids.a, "c2"), "10.0.1.11");
    await h1.call("startCluster", {
      bindAddress: h1.address,
      advertiseAddress: h1.address,
      dataPathAddress: h1.address,
      dataPathPort: 4789,
    });
    await h1.call("setKeys", keys);
    await h1.call("setManagers", ["10.98.0.2"]);
    assert.equal(await index(), before);
    await eventually(async () => (await dig(h1, ids.a, "c2")) === "10.0.1.11");
    await eventually(async () => (await dig(h2, ids.b, "c1")) === "10.0.1.10");
    assert.ok(await ping(h2, ids.b, "10.0.1.10"));
  });

  await t.test("what ends is forgotten everywhere", async () => {
    await h2.call("removeSandbox", ids.b);
    await eventually(async () => (await dig(h1, ids.a, "c2")) === "");
    const { out } = await h1.run("bridge fdb show dev vxlan0; ip neigh", "1-net1aaaaaa");
    assert.ok(!out.includes("10.0.1.11"), out);
    await assert.rejects(h1.call("remove", net1.id), /has active endpoints/);
    await h1.call("removeSandbox", ids.a);
    await h1.call("remove", net1.id);
    for (const host of [h1, h2]) await host.call("stopCluster");
    const left = await h1.run(`ls ${h1.netnsDir}; ip -br link | grep -c veth`);
    assert.equal(left.out.trim(), "0");
  });
});
