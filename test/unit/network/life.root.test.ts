/** What happens at the edges of a network's life: dead tasks, networks taken away, a gateway bridge made by hand. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Endpoint, NetworkSpec } from "../../../src/network/types.ts";
import { ipam, spec } from "./fixtures.ts";
import { eventually, type TestHost, testLab } from "./lab.ts";

const keys = [1, 2, 3].map((n) => ({ key: `${n}`.repeat(32), lamportTime: String(100 + n) }));
const overlay = (id: string, name: string, net: string, vni: string, more: Partial<NetworkSpec> = {}) =>
  spec({
    id,
    name,
    driver: "overlay",
    options: { "com.docker.network.driver.overlay.vxlanid_list": vni },
    ipam: ipam({ subnet: `${net}.0/24`, gateway: `${net}.1` }),
    ...more,
  });
const net1 = overlay("net1aaaaaaaaaaaaaaaaaaaaa", "net1", "10.0.1", "4097");
const inner = overlay("inneraaaaaaaaaaaaaaaaaaaa", "inner", "10.0.2", "4098", { internal: true });
const id = (letter: string) => letter.repeat(64);
const pin = (letter: string) => letter.repeat(12);
const vip = "10.0.1.200";
const service = { id: "svcweb", name: "web", vip, aliases: [], ingressPorts: [] };

async function join(host: TestHost) {
  await host.call("restore", []);
  const place = { bindAddress: host.address, advertiseAddress: host.address, dataPathAddress: host.address };
  await host.call("startCluster", { ...place, dataPathPort: 4789 });
  await host.call("setKeys", keys);
  await host.call("setManagers", ["10.98.0.1"]);
}

async function container(host: TestHost, letter: string, networks: { id: string; ipv4: string; service?: unknown }[]) {
  await host.call("createSandbox", {
    id: id(letter),
    mode: "private",
    hostname: pin(letter),
    domainname: "",
    dns: { servers: [], search: [], options: [] },
    extraHosts: [],
    ports: [],
  });
  const endpoints: Endpoint[] = [];
  for (const { id: networkId, ipv4, service } of networks) {
    const request = { networkId, name: `c-${letter}`, aliases: [], ipv4, ...(service ? { service } : {}) };
    endpoints.push(await host.call<Endpoint>("connect", id(letter), request));
  }
  await host.call("setActivity", id(letter), "active");
  return endpoints;
}

test("the edges of life", { timeout: 90_000 }, async (t) => {
  await using lab = await testLab(["h1", "h2"], "life");
  const [h1, h2] = lab.hosts;
  assert.ok(h1 && h2);

  await t.test("a gateway bridge made by hand is the one that is used", async () => {
    await h1.call("restore", []);
    const byHand = spec({
      id: id("9"),
      name: "docker_gwbridge",
      driver: "bridge",
      ipam: ipam({ subnet: "10.11.0.0/16" }),
      options: {
        "com.docker.network.bridge.name": "docker_gwbridge",
        "com.docker.network.bridge.enable_icc": "false",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
      },
    });
    await h1.call("create", byHand);
    for (const host of lab.hosts) await join(host);
    for (const [index, host] of lab.hosts.entries()) {
      await host.call("create", net1, { lbAddress: `10.0.1.${index + 2}/24` });
      await host.call("create", inner, { lbAddress: `10.0.2.${index + 2}/24` });
    }
    await container(h1, "a", [{ id: net1.id, ipv4: "10.0.1.10" }]);
    const { out } = await h1.run("ip -br addr show eth1; ip route", pin("a"));
    assert.match(out, /eth1\S+ +UP +10\.11\.0\.2\/16/);
    assert.match(out, /default via 10\.11\.0\.1 dev eth1/);
    assert.equal((await h1.run("ping -c1 -W1 10.98.0.254", pin("a"))).code, 0);
  });

  await t.test("an internal overlay has no way out; with another network there is one", async () => {
    const [endpoint] = await container(h1, "b", [{ id: inner.id, ipv4: "10.0.2.10/24" }]);
    assert.equal(endpoint?.ipv4, "10.0.2.10/24");
    assert.doesNotMatch((await h1.run("ip route; ip -br link", pin("b"))).out, /default|eth1/);
    await h1.call("connect", id("b"), { networkId: net1.id, name: "c-b", aliases: [], ipv4: "10.0.1.12/24" });
    assert.match((await h1.run("ip route", pin("b"))).out, /default via 10\.11\.0\.1/);
    await h1.call("disconnect", id("b"), net1.id);
    assert.doesNotMatch((await h1.run("ip route", pin("b"))).out, /default/);
  });

  await t.test("the way out stays the last device while the container is being made", async () => {
    await h1.call("createSandbox", {
      id: id("c"),
      mode: "private",
      hostname: "c",
      domainname: "",
      dns: { servers: [], search: [], options: [] },
      extraHosts: [],
      ports: [],
    });
    await h1.call("connect", id("c"), { networkId: net1.id, name: "c-c", aliases: [], ipv4: "10.0.1.13" });
    await h1.call("connect", id("c"), { networkId: inner.id, name: "c-c", aliases: [], ipv4: "10.0.2.13" });
    const { out } = await h1.run("ip -br addr; ip route", pin("c"));
    assert.match(out, /eth0\S+ +UP +10\.0\.1\.13\/24/);
    assert.match(out, /eth1\S+ +UP +10\.0\.2\.13\/24/);
    assert.match(out, /eth2\S+ +UP +10\.11\.\d+\.\d+\/16/);
    assert.match(out, /default via 10\.11\.0\.1 dev eth2/);
    await h1.call("removeSandbox", id("c"));
  });

  await t.test("a dead task's connections end at once; a service without tasks refuses", async () => {
    await container(h2, "d", [{ id: net1.id, ipv4: "10.0.1.20", service }]);
    const listen = "setsid socat -u TCP-LISTEN:80,fork,reuseaddr OPEN:/dev/null >/dev/null 2>&1 & echo $!";
    const pid = (await h2.run(listen, pin("d"))).out.trim();
    await eventually(
      async () => (await h1.run("dig +short +time=1 +tries=1 @127.0.0.11 web", pin("a"))).out.trim() === vip,
    );
    const started = Date.now();
    const stream = h1.run(
      `sh -c 'while sleep 0.1; do echo x || exit; done' | socat -u - TCP:${vip}:80,connect-timeout=3`,
      pin("a"),
    );
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await h2.run(`kill ${pid}`);
    await h2.call("removeSandbox", id("d"));
    const { out } = await stream;
    t.diagnostic(`ended ${Date.now() - started - 1000} ms after the task: ${out.trim()}`);
    assert.ok(Date.now() - started < 6000, "it hung");
  });

  await t.test("a network that the managers take away goes with its last container", async () => {
    await h1.call("setLoadBalancers", [[net1.id, "10.0.1.2/24"]]);
    const names = async () => (await h1.call<NetworkSpec[]>("list")).map((n) => n.name).sort();
    assert.ok((await names()).includes("inner"), "a container is on it");
    await h1.call("removeSandbox", id("b"));
    await eventually(async () => !(await names()).includes("inner"));
    assert.doesNotMatch((await h1.run(`ls ${h1.netnsDir}`)).out, /inner/);
    await h1.call("setLoadBalancers", [[net1.id, "10.0.1.99/24"]]);
    const listed = await h1.call<{ key: string; ipv4: string }[]>("endpoints", net1.id);
    assert.equal(listed.find((e) => e.key === "lb-net1")?.ipv4, "10.0.1.99/24", "a new address replaces the old");
  });

  await t.test("a network can be made again at once under its old number", async () => {
    await h1.call("removeSandbox", id("a"));
    for (let i = 0; i < 3; i++) {
      await h1.call("remove", net1.id);
      await h1.call("create", net1, { lbAddress: "10.0.1.2/24" });
    }
    assert.deepEqual(await h1.call("reconcile"), []);
    await assert.rejects(
      h1.call("create", { ...net1, id: "x", name: "x", options: { ...net1.options, encrypted: "" } }),
      /encrypted/,
    );
    await assert.rejects(h1.call("create", { ...net1, id: "x", name: "x", options: {} }), /no VNI provided/);
  });
});
