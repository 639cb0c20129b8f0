/** Drivers other than bridge and overlay, dual stack, host and none. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { hasFeature } from "../../../src/kernel/feature.ts";
import type { Endpoint, NetworkSpec } from "../../../src/network/types.ts";
import { ipam, spec } from "./fixtures.ts";
import { type TestHost, testLab } from "./lab.ts";

const id = (letter: string) => letter.repeat(64);
const pin = (letter: string) => letter.repeat(12);

async function container(host: TestHost, letter: string, networkId: string, mode = "private") {
  await host.call("createSandbox", {
    id: id(letter),
    mode,
    hostname: pin(letter),
    domainname: "",
    dns: { servers: [], search: [], options: [] },
    extraHosts: [],
    ports: [],
  });
  const endpoint = await host.call<Endpoint>("connect", id(letter), { networkId, name: `c-${letter}`, aliases: [] });
  await host.call("setActivity", id(letter), "active");
  return endpoint;
}

test("the other drivers", { timeout: 60_000 }, async (t) => {
  await using lab = await testLab(["h1"], "kinds");
  const [host] = lab.hosts;
  assert.ok(host);
  const ping = async (from: string, to: string) =>
    (await host.run(`ping -c1 -W2 ${to} >/dev/null`, pin(from))).code === 0;
  await host.call("restore", []);
  const named = async (name: string) => {
    const found = (await host.call<NetworkSpec[]>("list")).find((n) => n.name === name);
    assert.ok(found, name);
    return found;
  };

  await t.test("dual stack on a bridge", { skip: !hasFeature("ipv6") }, async () => {
    const six = spec({
      id: id("6"),
      name: "six",
      driver: "bridge",
      enableIPv6: true,
      ipam: ipam({ subnet: "fd00:6::/64" }),
    });
    const made = await host.call<NetworkSpec>("create", six);
    assert.deepEqual(made.ipam.config[0], { subnet: "fd00:6::/64", gateway: "fd00:6::1" });
    assert.equal(made.ipam.config.length, 2, "IPv4 was chosen");
    const a = await container(host, "a", six.id);
    const b = await container(host, "b", six.id);
    assert.equal(a.ipv6, "fd00:6::2/64");
    assert.equal(a.gateway6, "fd00:6::1");
    assert.ok(await ping("a", "fd00:6::1"), "the gateway");
    assert.ok(await ping("a", b.ipv6.split("/")[0] ?? ""));
    const { out } = await host.run("dig +short +time=1 +tries=1 @127.0.0.11 c-b AAAA", pin("a"));
    assert.equal(out.trim(), "fd00:6::3");
    assert.deepEqual(await host.call("reconcile"), [], "all as planned");
    for (const letter of ["a", "b"]) await host.call("removeSandbox", id(letter));
    await host.call("remove", six.id);
  });

  await t.test("macvlan on a device of the host, and on one of its own", { skip: !hasFeature("macvlan") }, async () => {
    const mac = spec({
      id: id("7"),
      name: "mac",
      driver: "macvlan",
      options: { parent: "eth0" },
      ipam: ipam({ subnet: "10.98.0.0/24", gateway: "10.98.0.254", ipRange: "10.98.0.128/25" }),
    });
    await host.call("create", mac);
    const a = await container(host, "c", mac.id);
    assert.equal(a.ipv4, "10.98.0.128/24");
    assert.ok(await ping("c", "10.98.0.254"));
    assert.deepEqual(await host.call("reconcile"), []);
    await host.call("disconnect", id("c"), mac.id);
    assert.ok(!(await host.run("ip -br link", pin("c"))).out.includes("eth0"));
    const own = spec({ id: id("8"), name: "own", driver: "macvlan" });
    if ((await host.run("ip link add probe type dummy && ip link del probe")).code === 0) {
      await host.call("create", own);
      await host.call("connect", id("c"), { networkId: own.id, name: "x", aliases: [] });
      assert.match((await host.run("ip -br link")).out, /dm-888888888888/);
      await host.call("disconnect", id("c"), own.id);
      await host.call("remove", own.id);
    } else {
      await assert.rejects(host.call("create", own), /need CONFIG_DUMMY, which this kernel lacks/);
    }
    assert.doesNotMatch((await host.run("ip -br link")).out, /dm-888888888888/);
    const vlan = spec({ id: id("5"), name: "vlan", driver: "macvlan", options: { parent: "eth0.10" } });
    if (hasFeature("vlan")) {
      await host.call("create", vlan);
      assert.match((await host.run("ip -d link show eth0.10")).out, /vlan protocol 802.1Q id 10/);
      await host.call("remove", vlan.id);
    } else {
      await assert.rejects(host.call("create", vlan), /eth0\.10 need CONFIG_VLAN_8021Q, which this kernel lacks/);
    }
    assert.doesNotMatch((await host.run("ip -br link")).out, /eth0\.10/);
    assert.ok(!(await host.call<NetworkSpec[]>("list")).some((n) => n.name === "own"), "nothing half-made");
    await host.call("removeSandbox", id("c"));
    await host.call("remove", mac.id);
    await assert.rejects(
      host.call("create", { ...mac, options: { parent: "nix0" } }),
      /parent interface nix0 was not found/,
    );
    await assert.rejects(
      host.call("create", { ...mac, options: { macvlan_mode: "x" } }),
      /macvlan mode 'x' is not valid/,
    );
  });

  await t.test("host and none", async () => {
    const onHost = await container(host, "d", (await named("host")).id, "host");
    assert.deepEqual([onHost.ifName, onHost.ipv4], ["", ""]);
    await container(host, "e", (await named("none")).id);
    assert.equal(
      (await host.run("ls /sys/class/net | wc -l; ip -br link | wc -l", pin("e"))).out.trim().split("\n")[1],
      "1",
    );
    await assert.rejects(
      host.call("connect", id("d"), { networkId: (await named("bridge")).id, name: "x", aliases: [] }),
      /container sharing the host's network/,
    );
    for (const letter of ["d", "e"]) await host.call("removeSandbox", id(letter));
  });

  await t.test("a bridge device that a user made stays the user's", async () => {
    await host.run("ip link add mybr type bridge && ip addr add 10.66.0.1/24 dev mybr && ip link set mybr mtu 1400 up");
    const adopted = spec({
      id: id("9"),
      name: "adopted",
      driver: "bridge",
      options: { "com.docker.network.bridge.name": "mybr" },
    });
    const made = await host.call<NetworkSpec>("create", adopted);
    assert.deepEqual(made.ipam.config, [{ subnet: "10.66.0.0/24", gateway: "10.66.0.1" }]);
    const a = await container(host, "f", adopted.id);
    assert.equal(a.ipv4, "10.66.0.2/24");
    assert.ok(await ping("f", "10.66.0.1"));
    await host.call("removeSandbox", id("f"));
    await host.call("remove", adopted.id);
    assert.match((await host.run("ip addr show mybr")).out, /mtu 1400[\s\S]*10\.66\.0\.1\/24/);
  });
});
