/** Bridge networks of one host: reachability, names, isolation, addresses, restart. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Endpoint, NetworkSpec, PortBinding } from "../../../src/network/types.ts";
import { ipam, spec } from "./fixtures.ts";
import { eventually, type TestHost, testLab } from "./lab.ts";

const id = (letter: string) => letter.repeat(64);
const pin = (letter: string) => letter.repeat(12);

async function container(
  host: TestHost,
  letter: string,
  networkId: string,
  more: { ports?: PortBinding[]; ipv4?: string } = {},
) {
  await host.call("createSandbox", {
    id: id(letter),
    mode: "private",
    hostname: pin(letter),
    domainname: "",
    dns: { servers: [], search: [], options: [] },
    extraHosts: [],
    ports: more.ports ?? [],
  });
  const first = host.lastMs;
  const endpoint = await host.call<Endpoint>("connect", id(letter), {
    networkId,
    name: `c-${letter}`,
    aliases: [pin(letter)],
    ...(more.ipv4 ? { ipv4: more.ipv4 } : {}),
  });
  const ms = first + host.lastMs;
  await host.call("setActivity", id(letter), "active");
  return { endpoint, ms };
}

test("bridge networks on one host", { timeout: 60_000 }, async (t) => {
  await using lab = await testLab(["h1"], "bridge");
  const [host] = lab.hosts;
  assert.ok(host);
  const ping = async (from: string, to: string) =>
    (await host.run(`ping -c1 -W1 ${to} >/dev/null`, pin(from))).code === 0;
  const dig = async (from: string, name: string) =>
    (await host.run(`dig +short +time=1 +tries=1 @127.0.0.11 ${name}`, pin(from))).out.trim();
  await host.call("restore", []);
  const bridge = (await host.call<NetworkSpec[]>("list")).find((n) => n.name === "bridge");
  assert.ok(bridge);

  await t.test("the default bridge is the one of the tutorials", () => {
    assert.deepEqual(bridge.ipam.config, [{ subnet: "172.17.0.0/16", gateway: "172.17.0.1" }]);
    assert.deepEqual(bridge.options, {
      "com.docker.network.bridge.default_bridge": "true",
      "com.docker.network.bridge.enable_icc": "true",
      "com.docker.network.bridge.enable_ip_masquerade": "true",
      "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
      "com.docker.network.bridge.name": "docker0",
      "com.docker.network.driver.mtu": "1500",
    });
  });

  await t.test("containers on it reach each other and the outside, but have no names", async () => {
    const a = await container(host, "a", bridge.id);
    const b = await container(host, "b", bridge.id);
    t.diagnostic(`sandbox and connection: ${a.ms.toFixed(1)}, ${b.ms.toFixed(1)} ms`);
    assert.equal(a.endpoint.ipv4, "172.17.0.2/16");
    assert.equal(a.endpoint.mac, "02:42:ac:11:00:02");
    assert.equal(a.endpoint.gateway, "172.17.0.1");
    assert.ok(await ping("a", "172.17.0.3"));
    assert.ok(await ping("a", "10.98.0.254"), "masqueraded");
    const files = await host.call<{ resolvConf: string; hosts: string }>("files", id("a"));
    assert.match(files.resolvConf, /nameserver 8\.8\.8\.8/);
    assert.match(files.hosts, /^172\.17\.0\.2\taaaaaaaaaaaa$/m);
  });

  const mine = spec({ id: id("1"), name: "mine", driver: "bridge" });
  await t.test("a user's network has names, and is apart", async () => {
    const made = await host.call<NetworkSpec>("create", mine);
    assert.deepEqual(made.ipam.config, [{ subnet: "172.18.0.0/16", gateway: "172.18.0.1" }]);
    await container(host, "c", mine.id);
    await container(host, "d", mine.id);
    assert.equal(await dig("c", "c-d"), "172.18.0.3");
    assert.equal(await dig("c", `c-d.mine`), "172.18.0.3");
    assert.equal(await dig("c", pin("d")), "172.18.0.3");
    assert.ok(await ping("c", "172.18.0.3"));
    assert.ok(!(await ping("c", "172.17.0.2")), "no way to another network");
    assert.ok(!(await ping("a", "172.18.0.2")));
    await host.call("connect", id("a"), { networkId: mine.id, name: "c-a", aliases: [] });
    assert.ok(await ping("a", "172.18.0.2"), "connected to both");
    assert.equal(await dig("c", "c-a"), "172.18.0.4");
    await host.call("disconnect", id("a"), mine.id);
    assert.equal(await dig("c", "c-a"), "");
    assert.ok(await ping("a", "172.17.0.3"));
  });

  await t.test("refusals in Docker's words", async () => {
    const refused = (promise: Promise<unknown>, message: RegExp) => assert.rejects(promise, message);
    await refused(host.call("create", { ...mine, id: id("2") }), /network with name mine already exists/);
    const other = (partial: Partial<NetworkSpec>) =>
      host.call("create", { ...mine, id: id("2"), name: "other", ...partial });
    await refused(
      other({ ipam: ipam({ subnet: "172.18.5.0/24" }) }),
      /Pool overlaps with other one on this address space/,
    );
    await refused(other({ driver: "weave" as "bridge" }), /plugin "weave" not found/);
    await refused(other({ driver: "host" }), /only one instance of "host" network is allowed/);
    await refused(
      other({ options: { "com.docker.network.bridge.name": "docker0" } }),
      /networks have same bridge name/,
    );
    await refused(host.call("remove", bridge.id), /bridge is a pre-defined network and cannot be removed/);
    await refused(host.call("remove", mine.id), /network mine id 1+ has active endpoints/);
    await refused(
      host.call("connect", id("a"), { networkId: mine.id, name: "x", aliases: [], ipv4: "172.18.0.99" }),
      /only when connecting to networks with user configured subnets/,
    );
    await refused(host.call("connect", id("c"), { networkId: mine.id, name: "x", aliases: [] }), /already/);
  });

  await t.test("asked-for addresses, internal networks", async () => {
    const inside = spec({
      id: id("3"),
      name: "inside",
      driver: "bridge",
      internal: true,
      ipam: ipam({ subnet: "10.77.0.0/24" }),
    });
    await host.call("create", inside);
    const { endpoint } = await container(host, "e", inside.id, { ipv4: "10.77.0.50" });
    assert.equal(endpoint.ipv4, "10.77.0.50/24");
    await container(host, "f", inside.id);
    assert.ok(await ping("e", "10.77.0.2"));
    assert.ok(!(await ping("e", "10.98.0.254")));
    assert.equal((await host.run("ip route", pin("e"))).out.includes("default"), false);
    await assert.rejects(
      host.call("connect", id("a"), { networkId: inside.id, name: "x", aliases: [], ipv4: "10.77.0.50" }),
      /in use/,
    );
  });

  await t.test("what was flushed and deleted by hand is mended", async () => {
    await host.run("nft flush ruleset; ip link del docker0; ip link set br-111111111111 down");
    // It may have been noticed already.
    await host.call<string[]>("reconcile");
    assert.ok(await ping("a", "172.17.0.3"));
    assert.ok(await ping("a", "10.98.0.254"));
    assert.deepEqual(await host.call("reconcile"), []);
  });

  await t.test("a filter that was altered is mended, an operator's own rules stay", async () => {
    await host.run(
      "nft flush chain inet skein_bridge forward; nft add rule inet operator skein-user ip daddr 203.0.113.9 drop",
    );
    await host.call("reconcile");
    assert.ok(!(await ping("a", "172.18.0.2")), "apart again");
    assert.match((await host.run("nft list chain inet operator skein-user")).out, /203\.0\.113\.9 drop/);
    const plans = await host.call<{ namespace: string; text: string }[]>("explain");
    assert.match(plans.find((plan) => plan.namespace === "host")?.text ?? "", /docker0: bridge, mtu 1500/);
  });

  await t.test("a killed daemon's successor adopts the living and sweeps the dead", async () => {
    await host.kill();
    await host.start();
    await host.call("restore", [id("a"), id("c"), id("d")]);
    assert.ok(await ping("c", "172.18.0.3"));
    assert.equal(await dig("c", "c-d"), "172.18.0.3", "its resolver is back");
    const pins = (await host.run(`ls ${host.netnsDir}`)).out.split("\n").filter(Boolean);
    assert.deepEqual(pins, [pin("a"), pin("c"), pin("d")]);
    const { endpoint } = await container(host, "b", bridge.id);
    assert.notEqual(endpoint.ipv4, "172.17.0.2/16", "still leased to the one that lives");
    for (const letter of ["a", "b", "c", "d"]) await host.call("removeSandbox", id(letter));
    await host.call("remove", mine.id);
    // The kernel takes namespaces apart behind our back.
    await eventually(
      async () => (await host.run(`ls ${host.netnsDir}; ip -br link | grep -cE 'veth|br-1'`)).out.trim() === "0",
    );
  });
});
