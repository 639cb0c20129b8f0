/**
 * `docker network create` for a swarm, all of its options, as seen by the stock CLI, ping, dig and ip: IPv6, ranges,
 * what is reserved, networks of other drivers, and what Docker says to what cannot be.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually, TestLab } from "../support/lab.ts";

let lab: TestLab;

before(async () => {
  lab = await TestLab.up("ovw", "10.85.0.0/24", { hosts: 2 });
  await lab.swarm();
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

const create = (name: string, ...options: string[]) =>
  lab.ok("manager", "network", "create", "--driver", "overlay", "--attachable", ...options, name);
const start = (host: string, name: string, network: string, ...options: string[]) =>
  lab.ok(host, "run", "--detach", "--tty", "--name", name, "--network", network, ...options, "skein/box");
const inspect = (host: string, network: string, format: string) =>
  lab.ok(host, "network", "inspect", "--format", format, network);

/** A program of the host in a container's network. */
async function beside(host: string, container: string, ...command: string[]): Promise<string> {
  const key = await lab.ok(host, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", container);
  return (await lab.in(host, "nsenter", `--net=${key}`, ...command)).stdout;
}

async function dig(host: string, container: string, ...question: string[]): Promise<string[]> {
  const options = ["+noall", "+answer", "+time=2", "+tries=1", "@127.0.0.11"];
  const lines = (await beside(host, container, "dig", ...options, ...question)).split("\n").filter((line) => line);
  return lines.map((line) => line.split(/\s+/).slice(3).join(" ")).sort();
}

const reaches = (host: string, container: string, target: string) =>
  eventually(
    `${container} reaches ${target}`,
    async () => (await beside(host, container, "ping", "-c", "1", "-W", "1", target)).includes(" 0% packet"),
    5_000,
  );

const addressesOf = async (host: string, container: string, network: string) => {
  const format = `{{with (index .NetworkSettings.Networks "${network}")}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}`;
  const [v4 = "", v6 = ""] = (await lab.ok(host, "inspect", "--format", format, container)).split(" ");
  return { v4, v6 };
};

test("dual stack: both addresses from the managers, names, reverse names, and a way between the hosts", async () => {
  await create("dual", "--ipv6", "--subnet", "10.21.0.0/24", "--subnet", "fd00:21::/64");
  await start("manager", "one", "dual");
  await start("worker-1", "two", "dual", "--network-alias", "pair");
  const [one, two] = [await addressesOf("manager", "one", "dual"), await addressesOf("worker-1", "two", "dual")];
  const twin = (v4: string) => `fd00:21::${Number(v4.split(".")[3]).toString(16)}`;
  assert.deepEqual([one.v6, two.v6], [twin(one.v4), twin(two.v4)]);
  const subnets = await inspect(
    "worker-1",
    "dual",
    "{{.EnableIPv6}}{{range .IPAM.Config}} {{.Subnet}} {{.Gateway}}{{end}}",
  );
  assert.equal(subnets, "true 10.21.0.0/24 10.21.0.1 fd00:21::/64 fd00:21::1");
  assert.ok(
    (await inspect("worker-1", "dual", "{{range .Containers}}{{.IPv6Address}} {{end}}")).includes(`${two.v6}/64`),
  );
  await eventually("AAAA", async () => (await dig("manager", "one", "two", "AAAA")).join() === `AAAA ${two.v6}`, 3_000);
  assert.deepEqual(await dig("manager", "one", "pair", "A"), [`A ${two.v4}`]);
  assert.deepEqual(await dig("manager", "one", "-x", two.v6), ["PTR two.dual."]);
  assert.deepEqual(await dig("worker-1", "two", "one", "AAAA"), [`AAAA ${one.v6}`]);
  await reaches("manager", "one", two.v6);
  await reaches("worker-1", "two", one.v6);
  await reaches("worker-1", "two", one.v4);
  const full = String(1450 - 40 - 8);
  assert.match(
    await beside("manager", "one", "ping", "-6", "-c", "1", "-W", "1", "-M", "do", "-s", full, two.v6),
    / 0% /,
  );
  await lab.ok("worker-1", "rm", "--force", "two");
  await eventually("gone", async () => (await dig("manager", "one", "two", "AAAA")).length === 0, 2_000);
});

test("dual stack: services by a virtual address in IPv6, too; an address may be asked for in either family", async () => {
  await lab.ok(
    "manager",
    "service",
    "create",
    "--quiet",
    "--name",
    "web",
    "--network",
    "dual",
    "--replicas",
    "2",
    "--publish",
    "8085:80",
    "skein/hello",
  );
  const tasks = await eventually("two tasks", async () => {
    const found = await dig("manager", "one", "tasks.web", "AAAA");
    return found.length === 2 && found;
  });
  const [a = "", ...rest] = await dig("manager", "one", "web", "A");
  const twin = `AAAA fd00:21::${Number(a.split(".").at(-1)).toString(16)}`;
  assert.deepEqual(
    [rest, await dig("manager", "one", "web", "AAAA")],
    [[], [twin]],
    "the virtual address and its twin",
  );
  const names = new Set<string>();
  for (let i = 0; i < 12; i++) {
    const page = await lab.ok("manager", "exec", "one", "curl", "-6", "-sS", "-m", "3", "http://web/cgi-bin/index.cgi");
    names.add(/^Hello from (.*)$/m.exec(page)?.[1] ?? page);
  }
  assert.equal(names.size, 2, `both tasks: ${[...names]}`);
  await reaches("manager", "one", twin.split(" ")[1] ?? "");
  for (const task of tasks) {
    const url = `http://[${task.split(" ")[1]}]/`;
    assert.match(await beside("manager", "one", "curl", "-sS", "--max-time", "3", url), /./);
  }
  for (const question of ["_http._tcp.web", "_80._tcp.web.dual"]) {
    const targets = (await dig("manager", "one", question, "SRV")).map((line) => /^SRV 0 0 80 (.*)\.$/.exec(line)?.[1]);
    assert.equal(targets.length, 2, question);
    const addresses = await Promise.all(targets.map((target) => dig("manager", "one", target ?? "", "AAAA")));
    assert.deepEqual(addresses.flat().sort(), tasks, "they are the tasks");
  }
  await lab.ok("manager", "service", "rm", "web");
  await start("worker-1", "asked", "dual", "--ip6", "fd00:21::99");
  assert.deepEqual(await addressesOf("worker-1", "asked", "dual"), { v4: "10.21.0.153", v6: "fd00:21::99" });
  await reaches("manager", "one", "fd00:21::99");
  await lab.ok("worker-1", "rm", "--force", "asked");
  await lab.ok("manager", "rm", "--force", "one");
});

test("dual stack without an IPv6 subnet: one of the swarm's own", async () => {
  await create("own", "--ipv6");
  const [, subnet = ""] = await eventually("allocated", async () => {
    const found = (await inspect("manager", "own", "{{range .IPAM.Config}}{{.Subnet}} {{end}}")).trim().split(" ");
    return found.length === 2 && found;
  });
  assert.match(subnet, /^fd[0-9a-f]{2}:.*::\/64$/);
  await lab.ok("manager", "network", "rm", "own");
});

test("gateway, range, auxiliary addresses, VNI, labels and internal are what was asked for", async () => {
  await create(
    "full", "--internal", "--subnet", "10.22.0.0/24", "--gateway", "10.22.0.254", "--ip-range", "10.22.0.64/29",
    "--aux-address", "printer=10.22.0.64", "--aux-address", "router=10.22.0.65", "--label", "a=b",
    "--opt", "com.docker.network.driver.overlay.vxlanid_list=5001", "--opt", "com.docker.network.driver.mtu=1400",
  ); // biome-ignore format: one option after another
  await start("worker-1", "in", "full");
  const { v4 } = await addressesOf("worker-1", "in", "full");
  assert.match(v4, /^10\.22\.0\.(6[6-9]|7[01])$/, "in the range, and not one that is reserved");
  const format = '{{.Internal}} {{.Labels.a}} {{index .Options "com.docker.network.driver.overlay.vxlanid_list"}}';
  assert.equal(await inspect("worker-1", "full", format), "true b 5001");
  assert.equal(
    await inspect(
      "manager",
      "full",
      "{{range .IPAM.Config}}{{.Gateway}} {{.IPRange}} {{.AuxiliaryAddresses.printer}}{{end}}",
    ),
    "10.22.0.254 10.22.0.64/29 10.22.0.64",
  );
  assert.match(await beside("worker-1", "in", "ip", "link", "show", "eth0"), /mtu 1350 /);
  assert.doesNotMatch(await beside("worker-1", "in", "ip", "route"), /default/);
  await lab.ok("worker-1", "rm", "--force", "in");
  await lab.ok("manager", "network", "rm", "full");
});

/** A network of this driver, a service and a guest on it; its subnets on the two hosts are the configuration's. */
async function ownMatter(driver: string, config: string, subnets: Record<string, string>, options: string[] = []) {
  for (const [host, subnet] of Object.entries(subnets)) {
    await lab.ok(host, "network", "create", "--config-only", "--subnet", subnet, ...options, config);
  }
  assert.equal(await inspect("manager", config, "{{.Driver}} {{.ConfigOnly}} {{.Scope}}"), "null true local");
  const [name, service, guest] = [`n-${driver}`, `s-${driver}`, `g-${driver}`];
  const scope = ["--scope", "swarm", "--attachable", "--config-from", config];
  await lab.ok("manager", "network", "create", "--driver", driver, ...scope, name);
  const everywhere = ["--quiet", "--mode", "global", "--network", name];
  await lab.ok("manager", "service", "create", "--name", service, ...everywhere, "skein/hello");
  for (const [host, subnet] of Object.entries(subnets)) {
    await eventually(
      `the task on ${host}`,
      async () => (await lab.ok(host, "ps", "-q", "--filter", `name=${service}.`)) !== "",
    );
    const shown = "{{.Scope}} {{.Driver}} {{.ConfigFrom.Network}} {{range .IPAM.Config}}{{.Subnet}}{{end}} ";
    assert.equal(await inspect(host, name, `${shown}{{len .Containers}}`), `swarm ${driver} ${config} ${subnet} 1`);
    const address = await inspect(host, name, "{{range .Containers}}{{.IPv4Address}}{{end}}");
    assert.equal(address.replace(/\.\d+\/24$/, ".0/24"), subnet);
  }
  await start("worker-1", guest, name);
  const links = await beside("worker-1", guest, "ip", "-o", "-d", "link");
  assert.match(links, driver === "bridge" ? /eth0@.*veth/ : /eth0@.*macvlan mode bridge/);
  assert.equal((await dig("worker-1", guest, service, "A")).length, 1, "the neighbour on the same host");
  const refusal = await lab.try("worker-1", "network", "rm", config);
  assert.match(refusal.stderr, new RegExp(`configuration network "${config}" is in use`));
  await lab.ok("worker-1", "rm", "--force", guest);
  await lab.ok("manager", "service", "rm", service);
  await eventually("removable", async () => (await lab.try("manager", "network", "rm", name)).code === 0);
}

test("networks of other drivers: the name from the managers, the rest from each node's own configuration", async () => {
  await Promise.all([
    ownMatter("bridge", "plain-config", { manager: "10.31.1.0/24", "worker-1": "10.31.2.0/24" }),
    ownMatter("macvlan", "wire-config", { manager: "10.31.3.0/24", "worker-1": "10.31.4.0/24" }, [
      "--opt",
      "parent=eth0",
    ]),
  ]);
});

test("what cannot be is refused in Docker's words, and leaves nothing", async () => {
  const before = await lab.ok("manager", "network", "ls", "--quiet");
  await create("taken", "--subnet", "10.23.0.0/24", "--opt", "com.docker.network.driver.overlay.vxlanid_list=6001");
  const config = "invalid network config:\n";
  const cases: [string, string[], string][] = [
    ["manager", ["-d", "overlay", "taken"], "network with name taken already exists"],
    ["manager", ["-d", "overlay", "ingress"], "network with name ingress already exists"],
    ["manager", ["-d", "overlay", "--subnet", "10.23.0.128/25", "x"], "Pool overlaps with other one on this address space"],
    ["manager", ["-d", "overlay", "--subnet", "10.24.0.0/33", "x"], `${config}invalid subnet 10.24.0.0/33: invalid CIDR block notation`],
    ["manager", ["-d", "overlay", "--subnet", "fd00:24::/64", "x"], "IPv6 is not enabled"],
    ["manager", ["-d", "overlay", "--ipv6", "--subnet", "fd00:21::/80", "x"], "Pool overlaps with other one"],
    ["manager", ["-d", "overlay", "--ipv6", "--subnet", "10.24.0.0/16", "--subnet", "fd00:24::/120", "x"], "is smaller than the IPv4 subnet"],
    ["manager", ["-d", "overlay", "--opt", "encrypted", "x"], "encrypted overlay networks (--opt encrypted)"],
    ["manager", ["-d", "overlay", "--opt", "com.docker.network.driver.mtu=lots", "x"], "failed to parse lots"],
    ["manager", ["-d", "overlay", "--opt", "com.docker.network.driver.overlay.vxlanid_list=6001", "x"], "could not assign vxlan id 6001"],
    ["manager", ["-d", "overlay", "--opt", "com.docker.network.driver.overlay.vxlanid_list=0x1", "x"], 'invalid vxlan id value "0x1" passed'],
    ["manager", ["-d", "overlay", "--ipam-driver", "other", "x"], 'could not resolve IPAM driver "other" in plugin registry'],
    ["manager", ["-d", "weave", "--scope", "swarm", "x"], 'could not resolve driver "weave" in plugin registry'],
    ["manager", ["-d", "weave", "x"], "weave"],
    ["manager", ["-d", "overlay", "--scope", "local", "x"], "cannot downgrade network scope for overlay networks"],
    ["manager", ["-d", "bridge", "--scope", "swarm", "--subnet", "10.24.0.0/24", "x"], "--config-from"],
    ["manager", ["--config-from", "nowhere", "x"], 'configuration network "nowhere" does not exist'],
    ["manager", ["--config-only", "--internal", "x"], "configuration network can only contain network specific fields"],
    ["manager", ["-d", "overlay", "host"], "pre"],
    ["worker-1", ["-d", "overlay", "x"], "cannot create a multi-host network from a worker node"],
  ]; // biome-ignore format: a table
  for (const [host, args, words] of cases) {
    const { code, stderr } = await lab.try(host, "network", "create", ...args);
    assert.notEqual(code, 0, args.join(" "));
    assert.ok(stderr.includes(words), `${args.join(" ")}: ${stderr}`);
  }
  await lab.ok("manager", "network", "rm", "taken");
  assert.equal(await lab.ok("manager", "network", "ls", "--quiet"), before);
});

test("a path that takes less than 1500 bytes: found when the host appears, told, and no packet too large is made", async () => {
  await create("wide");
  await start("manager", "w1", "wide");
  assert.match(await beside("manager", "w1", "ip", "link", "show", "eth0"), /mtu 1450 /);
  await lab.ok("worker-1", "swarm", "leave");
  await lab.in("worker-1", "ip", "link", "set", "eth0", "mtu", "1400");
  const token = await lab.ok("manager", "swarm", "join-token", "-q", "worker");
  await lab.ok("worker-1", "swarm", "join", "--token", token, `${lab.host("manager").address}:2377`);
  await start("worker-1", "w2", "wide");
  // A veth lets pass what a VLAN's tag would make of a packet: four bytes more than its MTU.
  const mtu = await eventually("measured", async () => {
    const found = /mtu (135[0-4]) /.exec(await beside("manager", "w1", "ip", "link", "show", "eth0"))?.[1];
    return found !== undefined && Number(found);
  });
  const warning = new RegExp(`more than ${mtu + 50} bytes do not reach 10\\.85\\.0\\.12 \\(1500 expected\\)`);
  const info = await lab.try("manager", "info");
  assert.match(info.stdout + info.stderr, warning);
  const { v4 } = await addressesOf("worker-1", "w2", "wide");
  await reaches("manager", "w1", v4);
  const sized = (bytes: number) =>
    beside("manager", "w1", "ping", "-c", "1", "-W", "1", "-M", "do", "-s", String(bytes - 28), v4);
  assert.match(await sized(mtu), / 0% packet loss/);
  assert.doesNotMatch(await sized(mtu + 1), / 0% packet loss/);
  await lab.in("worker-1", "ip", "link", "set", "eth0", "mtu", "1500");
  for (const [host, container] of [
    ["manager", "w1"],
    ["worker-1", "w2"],
  ] as const) {
    await lab.ok(host, "rm", "--force", container);
  }
});

test("IPv6 between the hosts: managers, gossip and tunnels", async () => {
  await lab.ok("worker-1", "swarm", "leave");
  await lab.ok("manager", "swarm", "leave", "--force");
  const address = { manager: "fd00:85::11", "worker-1": "fd00:85::12" };
  for (const host of ["manager", "worker-1"] as const) {
    await lab.in(host, "ip", "address", "add", `${address[host]}/64`, "dev", "eth0", "nodad");
  }
  await lab.ok("manager", "swarm", "init", "--advertise-addr", address.manager);
  const token = await lab.ok("manager", "swarm", "join-token", "-q", "worker");
  const join = ["--token", token, "--advertise-addr", address["worker-1"]];
  await lab.ok("worker-1", "swarm", "join", ...join, `[${address.manager}]:2377`);
  await create("over", "--ipv6");
  await start("manager", "o1", "over");
  await start("worker-1", "o2", "over");
  const o2 = await addressesOf("worker-1", "o2", "over");
  await eventually("its name", async () => (await dig("manager", "o1", "o2", "A")).join() === `A ${o2.v4}`);
  await reaches("manager", "o1", o2.v4);
  await reaches("manager", "o1", o2.v6);
  assert.match(await beside("manager", "o1", "ip", "link", "show", "eth0"), /mtu 1430 /, "IPv6 headers are longer");
  const full = String(1430 - 28);
  assert.match(
    await beside("manager", "o1", "ping", "-c", "1", "-W", "1", "-M", "do", "-s", full, o2.v4),
    / 0% packet/,
  );
  const peers = await inspect("manager", "over", "{{range .Peers}}{{.IP}} {{end}}");
  assert.deepEqual(peers.trim().split(" ").sort(), Object.values(address).sort());
  const key = (await lab.in("manager", "sh", "-c", "ls -d /run/docker/netns/1-*")).stdout.trim().split("\n");
  const fdb = (await lab.in("manager", "nsenter", `--net=${key.at(-1)}`, "bridge", "fdb", "show", "dev", "vxlan0"))
    .stdout;
  assert.match(fdb, /dst fd00:85::12/);
});
