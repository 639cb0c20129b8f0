/**
 * macvlan and ipvlan on a host's wire, with a device, a VLAN and nothing as their parent. This machine is at the other end of
 * the wire, with a VLAN device of its own: who answers there, tagged as asked.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import { eventually, TestLab } from "../../support/lab.ts";

const HOST = "manager";
let lab: TestLab;
before(async () => {
  lab = await TestLab.up("vmp", "10.183.0.0/24", { hosts: 1 });
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

const ok = (...args: string[]) => lab.ok(HOST, ...args);
const ip = (line: string) => execFileSync("ip", line.split(" ")).toString();
const pings = async (box: string, address: string) =>
  / 0% packet loss/.test((await lab.try(HOST, "exec", box, "ping", "-c1", "-W3", address)).stdout);

interface Case {
  readonly driver: "macvlan" | "ipvlan";
  readonly parent: string;
  /** macvlan_mode or ipvlan_mode; none is the driver's default. */
  readonly mode?: string;
  /** Of the device in the container, as `ip -d link` has it. */
  readonly shown: RegExp;
}
// A device is either's: macvlan and ipvlan do not share one.
const cases: Case[] = [
  { driver: "macvlan", parent: "eth0.10", shown: /macvlan mode bridge/ },
  { driver: "macvlan", parent: "eth0.11", mode: "private", shown: /macvlan mode private/ },
  { driver: "ipvlan", parent: "eth0.20", shown: /ipvlan +mode l2 / },
  { driver: "ipvlan", parent: "eth0.30", mode: "l3", shown: /ipvlan +mode l3 / },
  { driver: "ipvlan", parent: "eth0.31", mode: "l3s", shown: /ipvlan +mode l3s / },
  { driver: "ipvlan", parent: "eth0", shown: /ipvlan +mode l2 / },
];

for (const [at, { driver, parent, mode, shown }] of cases.entries()) {
  test(`${driver} ${mode ?? ""} on ${parent}: neighbours, the other end of the wire, what is shown, what is left`, async () => {
    const tag = parent.split(".")[1];
    const name = `net${at}`;
    const routed = mode?.startsWith("l3") ?? false;
    const prefix = `10.190.${at}`;
    // The other end of the wire: the gateway in the same VLAN, or a router that knows the way.
    const { bridge } = lab.lab.spec;
    const device = tag ? `vm.${tag}` : bridge;
    if (tag) ip(`link add link ${bridge} name ${device} up type vlan id ${tag}`);
    if (!routed) ip(`addr add ${prefix}.1/24 dev ${device}`);
    try {
      const modes = mode ? ["-o", `${driver}_mode=${mode}`] : [];
      const subnet = ["--subnet", `${prefix}.0/24`, ...(routed ? [] : ["--gateway", `${prefix}.1`])];
      await ok("network", "create", "-d", driver, "-o", `parent=${parent}`, ...modes, ...subnet, name);
      for (const box of ["one", "two"]) {
        await ok("run", "-d", "--name", box, "--network", name, "skein/box", "sleep", "1000000");
      }
      const format = `{{(index .NetworkSettings.Networks "${name}").IPAddress}}`;
      const [first = "", second = ""] = (await ok("inspect", "-f", format, "one", "two")).split("\n");
      assert.ok(first.startsWith(prefix) && second.startsWith(prefix), `${first} ${second}`);
      const pin = await ok("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "one");
      const inside = async (...command: string[]) => (await lab.in(HOST, "nsenter", `--net=${pin}`, ...command)).stdout;
      assert.match(await inside("ip", "-d", "link", "show", "eth0"), shown);
      const way = routed ? /^default dev eth0 /m : new RegExp(`^default via ${prefix}\\.1 dev eth0 `, "m");
      assert.match(await inside("ip", "route"), way);
      // Private ports do not speak to each other.
      assert.equal(await pings("one", second), mode !== "private", "the neighbour");
      if (mode !== "private") assert.ok(await pings("one", "two"), "the neighbour by its name");
      if (routed) {
        // The parent's namespace has nothing to do with it: the other end reaches the containers by the host's MAC.
        ip(`addr add 10.191.${at}.1/24 dev ${device}`);
        await lab.in(HOST, "ip", "addr", "add", `10.191.${at}.2/24`, "dev", parent);
        ip(`route add ${prefix}.0/24 via 10.191.${at}.2`);
        await eventually("the way back", () => pings("one", `10.191.${at}.1`));
      } else {
        await eventually("the other end of the wire", () => pings("one", `${prefix}.1`));
      }
      const [network] = JSON.parse(await ok("network", "inspect", name));
      assert.deepEqual([network.Driver, network.Scope], [driver, "local"]);
      assert.deepEqual(network.Options, { parent, ...(mode && { [`${driver}_mode`]: mode }) });
      assert.equal(Object.keys(network.Containers).length, 2);
      const { stdout: below } = await lab.in(HOST, "ip", "-d", "link", "show", parent);
      if (tag) assert.match(below, new RegExp(`vlan protocol 802.1Q id ${tag} `));
    } finally {
      await lab.try(HOST, "rm", "-f", "one", "two");
      await ok("network", "rm", name);
      if (tag) ip(`link del ${device}`);
      else ip(`addr del ${prefix}.1/24 dev ${device}`);
    }
    const { code } = await lab.in(HOST, "ip", "link", "show", parent);
    assert.equal(code === 0, !tag, "a VLAN that we made goes with its network, a device of the host stays");
  });
}

test("a VLAN that was there before is used and stays; one that two networks share goes with the last", async () => {
  await lab.in(HOST, "ip", "link", "add", "link", "eth0", "name", "eth0.40", "up", "type", "vlan", "id", "40");
  for (const [name, parent, third] of [
    ["own", "eth0.40", 50],
    ["s1", "eth0.41", 51],
    ["s2", "eth0.41", 52],
  ] as const) {
    await ok("network", "create", "-d", "macvlan", "-o", `parent=${parent}`, "--subnet", `10.190.${third}.0/24`, name);
  }
  const there = async (device: string) => (await lab.in(HOST, "ip", "link", "show", device)).code === 0;
  await ok("network", "rm", "own", "s1");
  assert.deepEqual([await there("eth0.40"), await there("eth0.41")], [true, true]);
  await ok("network", "rm", "s2");
  assert.deepEqual([await there("eth0.40"), await there("eth0.41")], [true, false]);
});

test("without a parent: a dummy device, neighbours on this host and nobody else", async () => {
  for (const driver of ["macvlan", "ipvlan"]) {
    await ok("network", "create", "-d", driver, "lone");
    for (const box of ["one", "two"]) {
      await ok("run", "-d", "--name", box, "--network", "lone", "skein/box", "sleep", "1000000");
    }
    assert.ok(await pings("one", "two"), driver);
    assert.equal(await pings("one", lab.lab.spec.gateway), false);
    await ok("rm", "-f", "one", "two");
    await ok("network", "rm", "lone");
  }
  assert.doesNotMatch((await lab.in(HOST, "ip", "-d", "link")).stdout, /dummy/);
});
