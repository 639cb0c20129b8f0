/**
 * What one host shows to others and to its containers: published ports, networks and their options, macvlan, names,
 * the operator's firewall, the API over TLS. Driven by the stock CLI; packets are real.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { hasFeature } from "../../src/kernel/feature.ts";
import { dockerCli } from "../../src/lab/docker.ts";
import { daemonCommand, inside, startDaemon } from "../../src/lab/host.ts";
import { hostOf } from "../../src/lab/lab.ts";
import { childrenOf, end, type ProcessRef, processRef, run, startDetached } from "../../src/lab/process.ts";
import { saveState } from "../../src/lab/state.ts";
import { writeCertificates } from "../support/certificates.ts";
import { eventually, TestLab } from "../support/lab.ts";

const own = "10.89.0.11";
const other = "10.89.0.12";
const own6 = "fd89::11";
const other6 = "fd89::12";
let lab: TestLab;

const ok = (...args: string[]) => lab.ok("host", ...args);
const attempt = (...args: string[]) => lab.try("host", ...args);
const inspect = (ref: string, format: string) => ok("inspect", "-f", format, ref);

/** What somebody is answered by a page that tells its client; "" when nobody answers. */
async function ask(from: "host" | "outside", url: string): Promise<string> {
  const { stdout } = await lab.in(from, "curl", "-sg", "--noproxy", "*", "--max-time", "1", url);
  return clientIn(stdout);
}
/** As `ask`, in a container. */
async function askIn(container: string, url: string): Promise<string> {
  const { stdout } = await attempt("exec", container, "curl", "-sg", "--max-time", "1", url);
  return clientIn(stdout);
}
/** A server on both families shows IPv4 clients as mapped. */
const clientIn = (page: string) => /client \[?(?:::ffff:)?([^\]\s]+)/.exec(page)?.[1] ?? "";
const answered = (what: string, from: "host" | "outside", url: string) =>
  eventually(what, async () => (await ask(from, url)) || undefined, 5_000);

async function dig(container: string, ...args: string[]): Promise<string> {
  const pid = await inspect(container, "{{.State.Pid}}");
  const { stdout } = await lab.in(
    "host",
    "nsenter",
    "-t",
    pid,
    "-n",
    "dig",
    "+time=2",
    "+tries=1",
    "@127.0.0.11",
    ...args,
  );
  return stdout;
}

const withoutHost = (words: readonly string[]) =>
  words.filter((word, i, all) => word !== "--host" && all[i - 1] !== "--host");

async function restart(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
  const { host, state } = hostOf(lab.lab, "host");
  assert.ok(state.daemon && (await end(state.daemon, signal, 15_000)));
  lab.lab.state.running.host = await startDaemon(host, state);
  saveState(lab.lab.state);
}

before(async () => {
  lab = await TestLab.up("netw", "10.89.0.0/24", { names: ["host", "outside"] });
  for (const [name, address] of [
    ["host", own6],
    ["outside", other6],
  ] as const) {
    await lab.in(name, "ip", "addr", "add", `${address}/64`, "dev", "eth0", "nodad");
  }
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

describe("published ports", () => {
  after(() => ok("rm", "-f", "web", "second", "third", "box"));

  before(async () => {
    await ok("network", "create", "apart");
    await ok("run", "-d", "--name", "box", "--network", "apart", "alpine", "sleep", "1000");
    const ports = [
      "8080:80",
      "127.0.0.1:8081:80",
      "[::1]:8082:80",
      `${own}:8083:80`,
      `[${own6}]:8084:80`,
      "[::]:8085:80",
    ];
    const udp = ["5353:53/udp", "8000-8002:8000-8002"];
    await ok("run", "-d", "--name", "web", ...[...ports, ...udp].flatMap((port) => ["-p", port]), "skein/hello");
    await answered("the first container", "host", `http://127.0.0.1:8080/`);
  });

  test("they are told as Docker tells them", async () => {
    assert.deepEqual(
      (await ok("port", "web", "80/tcp")).split("\n").sort(),
      [
        "0.0.0.0:8080",
        `${own}:8083`,
        "127.0.0.1:8081",
        "[::1]:8082",
        "[::]:8080",
        "[::]:8085",
        `[${own6}]:8084`,
      ].sort(),
    );
    assert.deepEqual((await ok("port", "web", "53/udp")).split("\n"), ["0.0.0.0:5353", "[::]:5353"]);
    assert.equal((await ok("port", "web", "8001")).split("\n")[0], "0.0.0.0:8001");
  });

  test("from another host: IPv4 with the client's own address, IPv6 although the container has none", async () => {
    assert.equal(await ask("outside", `http://${own}:8080/`), other);
    assert.equal(await ask("outside", `http://${own}:8083/`), other);
    for (const port of [8080, 8084, 8085]) assert.ok(await ask("outside", `http://[${own6}]:${port}/`), `port ${port}`);
  });

  test("from another host: what is bound to loopback is not there, whatever route the packets take", async () => {
    for (const port of [8081, 8082]) {
      for (const address of [own, `[${own6}]`]) assert.equal(await ask("outside", `http://${address}:${port}/`), "");
    }
    // A neighbour that sends 127.0.0.1 to us over the wire.
    const link = await lab.in("host", "sh", "-c", "cat /sys/class/net/eth0/address");
    const mac = link.stdout.trim();
    const spoof = [
      "sysctl -qw net.ipv4.conf.eth0.route_localnet=1 net.ipv4.conf.all.route_localnet=1",
      "ip addr del 127.0.0.1/8 dev lo",
      `ip neigh replace 127.0.0.1 lladdr ${mac} dev eth0`,
      "ip route replace 127.0.0.1 dev eth0 src 10.89.0.12",
      "curl -s --max-time 1 http://127.0.0.1:8081/ | grep client",
    ];
    const { stdout } = await lab.in("outside", "unshare", "-m", "sh", "-c", spoof.join("; "));
    await lab.in("outside", "sh", "-c", "ip route del 127.0.0.1 dev eth0; ip addr add 127.0.0.1/8 dev lo");
    assert.equal(stdout, "");
  });

  test("from this host: every address, 127.0.0.1 and ::1", async () => {
    for (const address of ["127.0.0.1", own, "[::1]", `[${own6}]`, "localhost"]) {
      assert.ok(await ask("host", `http://${address}:8080/`), address);
    }
    assert.ok(await ask("host", "http://127.0.0.1:8081/"));
    assert.ok(await ask("host", "http://[::1]:8082/"));
    assert.equal(await ask("host", "http://127.0.0.1:8082/"), "");
    assert.equal(await ask("host", "http://127.0.0.1:8083/"), "");
  });

  test("from containers: of another network, and hairpin", async () => {
    assert.ok(await askIn("box", `http://${own}:8080/`));
    await ok("run", "-d", "--name", "third", "-p", "8090:80", "alpine", "httpd", "-f", "-p", "80", "-h", "/www");
    await eventually("hairpin", async () => (await askIn("third", `http://${own}:8090/`)) || undefined, 5_000);
    assert.ok(await askIn("third", `http://${own}:8080/`), "and a neighbour's on the same bridge");
  });

  test("a range gives the first free port; what is taken is told, and leaves nothing", async () => {
    await ok("run", "-d", "--name", "second", "-p", "8080-8086:80", "skein/hello");
    assert.equal(
      (await ok("port", "second", "80")).split("\n")[0],
      "0.0.0.0:8086",
      "the others are taken, if only in part",
    );
    const taken = await attempt("run", "-d", "--name", "late", "-p", "9000:81", "-p", "8080:80", "skein/hello");
    assert.equal(taken.code, 125);
    assert.match(taken.stderr, /Bind for 0\.0\.0\.0:8080 failed: port is already allocated/);
    assert.equal(await inspect("late", "{{.State.Status}}"), "created");
    await ok("rm", "late");
    const mixed = await lab.in(
      "host",
      "sh",
      "-c",
      `busybox nc -l -p 7777 & sleep 0.1; ${dockerCli()} -H unix://${lab.host("host").socket} run -d --name late -p 9000:81 -p 7777:80 skein/hello; kill $!`,
    );
    assert.match(mixed.stderr, /listen tcp4 0\.0\.0\.0:7777: bind: address already in use/);
    await ok("rm", "late");
    // 9000 was given back both times.
    await ok("run", "--rm", "-p", "9000:81", "alpine", "true");
    const nowhere = await attempt("run", "--rm", "-p", "192.0.2.77:9000:80", "alpine", "true");
    assert.match(nowhere.stderr, /bind: cannot assign requested address/);
    const both = await attempt("run", "--rm", "-p", "8080-8081:80-82", "alpine", "true");
    assert.match(both.stderr, /invalid ranges? specified for container and host Ports|Invalid ranges/i);
  });

  test("-P publishes what the image exposes", async () => {
    await ok("rm", "-f", "second");
    await ok("run", "-d", "--name", "second", "-P", "--expose", "90-91", "skein/hello");
    const port = /0\.0\.0\.0:(\d+)/.exec(await ok("port", "second", "80"))?.[1];
    assert.ok(Number(port) >= 32768);
    assert.equal(await answered("a chosen port", "outside", `http://${own}:${port}/`), other);
    assert.match(await ok("port", "second", "91"), /:\d+/);
  });

  test("the operator's rules go first, for what is relayed as well, and outlive the daemon", async () => {
    const nft = (...words: string[]) => lab.in("host", "nft", ...words);
    const chain = ["inet", "operator", "skein-user"];
    await nft("add", "rule", ...chain, "ip", "saddr", other, "drop");
    await nft("add", "rule", ...chain, "ip6", "saddr", other6, "drop");
    const closed = async (when: string) => {
      assert.equal(await ask("outside", `http://${own}:8080/`), "", when);
      assert.equal(await ask("outside", `http://[${own6}]:8080/`), "", when);
      assert.ok(await ask("host", "http://127.0.0.1:8080/"), when);
    };
    await closed("at once");
    await restart("SIGKILL");
    await closed("after a restart");
    await nft("flush", "chain", ...chain);
    assert.equal(await ask("outside", `http://${own}:8080/`), other);
    assert.ok(await ask("outside", `http://[${own6}]:8080/`));
    assert.ok(await ask("host", "http://[::1]:8082/"), "relays came back with the daemon");
    await restart("SIGTERM");
    assert.ok(await ask("host", "http://[::1]:8082/"), "and after a regular end");
  });

  test("a container of both families is reached over both by the kernel, with the client's own address", async () => {
    await ok("network", "create", "--ipv6", "--subnet", "172.30.0.0/24", "--subnet", "fd30::/64", "dual");
    await ok("run", "-d", "--name", "both", "--network", "dual", "-p", "8091:80", "skein/hello");
    assert.equal(await answered("IPv4", "outside", `http://${own}:8091/`), other);
    assert.equal(await ask("outside", `http://[${own6}]:8091/`), other6);
    assert.ok(await ask("host", "http://[::1]:8091/"));
    assert.equal(await inspect("both", "{{.NetworkSettings.Networks.dual.GlobalIPv6Address}}"), "fd30::2");
    assert.ok((await attempt("exec", "both", "ping", "-c1", "-W2", other6)).stdout.includes("1 packets received"));
    await ok("rm", "-f", "both");
    await ok("network", "rm", "dual");
  });
});

describe("networks", () => {
  const prefix = "com.docker.network.bridge.";
  after(async () => {
    await ok("rm", "-f", ...(await ok("ps", "-aq")).split("\n").filter(Boolean));
    await ok("network", "prune", "-f");
  });

  test("addresses: range, auxiliary, gateway; what was released rests", async () => {
    const where = ["--subnet", "10.201.0.0/16", "--ip-range", "10.201.5.0/24", "--gateway", "10.201.5.254"];
    await ok("network", "create", ...where, "--aux-address", "router=10.201.5.1", "ranged");
    const run = (name: string, ...more: string[]) =>
      ok("run", "-d", "--name", name, "--network", "ranged", ...more, "alpine", "sleep", "1000");
    const address = (name: string) => inspect(name, "{{.NetworkSettings.Networks.ranged.IPAddress}}");
    await run("r1");
    assert.equal(await address("r1"), "10.201.5.0", "which is no network address: the subnet is larger");
    await ok("rm", "-f", "r1");
    await run("r2");
    assert.equal(await address("r2"), "10.201.5.2", "5.0 was released and rests, 5.1 is the router's");
    await run("r3", "--ip", "10.201.9.9");
    assert.equal(await address("r3"), "10.201.9.9", "outside of the range, when asked for");
    assert.match(
      (await attempt("run", "--rm", "--network", "ranged", "--ip", "10.201.9.9", "alpine", "true")).stderr,
      /Address already in use/,
    );
    assert.match(
      (await attempt("run", "--rm", "--network", "ranged", "--ip", "10.9.9.9", "alpine", "true")).stderr,
      /(no configured subnet|out of range)/i,
    );
    const clash = await attempt("network", "create", "--subnet", "10.201.128.0/24", "clash");
    assert.match(clash.stderr, /Pool overlaps with other one on this address space/);
  });

  test("a free subnet is chosen beside networks and the host's routes", async () => {
    await ok("network", "create", "n1");
    const subnet = (name: string) => inspect(name, "{{(index .IPAM.Config 0).Subnet}}");
    const first = Number((await subnet("n1")).split(".")[1]);
    await lab.in("host", "ip", "route", "add", `172.${first + 1}.7.0/24`, "dev", "eth0");
    await ok("network", "create", "n2");
    assert.equal(await subnet("n2"), `172.${first + 2}.0.0/16`);
    await ok("network", "rm", "n1", "n2");
  });

  test("options of the bridge: name, prefix, MTU, binding, no talk between containers, no masquerading", async () => {
    const options = {
      [`${prefix}name`]: "brtest",
      [`${prefix}enable_icc`]: "false",
      [`${prefix}enable_ip_masquerade`]: "false",
      [`${prefix}host_binding_ipv4`]: "127.0.0.1",
      "com.docker.network.driver.mtu": "1400",
      "com.docker.network.container_iface_prefix": "lan",
    };
    await ok(
      "network",
      "create",
      ...Object.entries(options).flatMap(([k, v]) => ["-o", `${k}=${v}`]),
      "--subnet",
      "10.202.0.0/24",
      "opts",
    );
    for (const [key, value] of Object.entries(options)) {
      assert.equal(await inspect("opts", `{{index .Options ${JSON.stringify(key)}}}`), value);
    }
    await ok("run", "-d", "--name", "o1", "--network", "opts", "-p", "8100:80", "skein/hello");
    await ok("run", "-d", "--name", "o2", "--network", "opts", "alpine", "sleep", "1000");
    assert.equal(await ok("port", "o1"), "80/tcp -> 127.0.0.1:8100");
    assert.match(await ok("exec", "o2", "cat", "/sys/class/net/lan0/mtu"), /^1400$/);
    assert.match((await lab.in("host", "ip", "-br", "link", "show", "brtest")).stdout, /UP/);
    assert.ok(await answered("the bound port", "host", "http://127.0.0.1:8100/"));
    assert.equal(await ask("outside", `http://${own}:8100/`), "");
    assert.equal(await askIn("o2", "http://o1/"), "", "icc is off");
    // Without masquerading the other host sees the container's address, and answers once it has a route to it.
    assert.doesNotMatch((await attempt("exec", "o2", "ping", "-c1", "-W1", other)).stdout, /1 packets received/);
    await lab.in("outside", "ip", "route", "add", "10.202.0.0/24", "via", own);
    assert.match((await attempt("exec", "o2", "ping", "-c1", "-W1", other)).stdout, /1 packets received/);
    await ok("rm", "-f", "o1", "o2");
    await ok("network", "rm", "opts");
  });

  test("gateway modes: routed without translation, isolated without the host, trusted devices", async () => {
    await ok("network", "create", "-o", `${prefix}gateway_mode_ipv4=routed`, "--subnet", "10.203.0.0/24", "routed");
    await ok("run", "-d", "--name", "g1", "--network", "routed", "-p", "80", "skein/hello");
    await lab.in("outside", "ip", "route", "add", "10.203.0.0/24", "via", own);
    assert.equal(await answered("the published port", "outside", "http://10.203.0.2/"), other);
    assert.equal(await inspect("g1", '{{(index .NetworkSettings.Ports "80/tcp" 0).HostPort}}'), "");
    assert.match((await attempt("exec", "g1", "ping", "-c1", "-W1", other)).stdout, /1 packets received/);
    await ok("run", "-d", "--name", "g2", "--network", "routed", "skein/hello");
    assert.equal(await ask("outside", "http://10.203.0.3/"), "", "nothing was published there");

    await lab.in("outside", "ip", "route", "add", "10.204.0.0/24", "via", own);
    await ok("network", "create", "--subnet", "10.204.0.0/24", "-o", `${prefix}trusted_host_interfaces=eth0`, "trust");
    await ok("run", "-d", "--name", "g3", "--network", "trust", "-p", "8110:80", "skein/hello");
    assert.equal(await answered("from a trusted device", "outside", "http://10.204.0.2/"), other);
    await ok(
      "network",
      "create",
      "--internal",
      "-o",
      `${prefix}gateway_mode_ipv4=isolated`,
      "--subnet",
      "10.205.0.0/24",
      "lone",
    );
    await ok("run", "-d", "--name", "g4", "--network", "lone", "alpine", "sleep", "1000");
    await ok("run", "-d", "--name", "g5", "--network", "lone", "skein/hello");
    await eventually("a neighbour", async () => (await askIn("g4", "http://g5/")) || undefined, 5_000);
    assert.match((await attempt("exec", "g4", "ping", "-c1", "-W1", "10.205.0.1")).stdout, / 0 packets received/);
    assert.match(
      (await attempt("network", "create", "-o", `${prefix}gateway_mode_ipv4=isolated`, "bad")).stderr,
      /only be used for an internal network/,
    );
    await ok("rm", "-f", "g1", "g2", "g3", "g4", "g5");
    await ok("network", "rm", "routed", "trust", "lone");
  });

  test("internal: neighbours, and nobody else", async () => {
    await ok("network", "create", "--internal", "inner");
    await ok("run", "-d", "--name", "i1", "--network", "inner", "-p", "8120:80", "skein/hello");
    await ok("run", "-d", "--name", "i2", "--network", "inner", "alpine", "sleep", "1000");
    await eventually("a neighbour", async () => (await askIn("i2", "http://i1/")) || undefined, 5_000);
    assert.doesNotMatch((await attempt("exec", "i2", "ping", "-c1", "-W1", other)).stdout, /1 packets received/);
    assert.equal(await ask("outside", `http://${own}:8120/`), "");
    await ok("rm", "-f", "i1", "i2");
    await ok("network", "rm", "inner");
  });

  test("a firewall that forwards nothing by default (ufw's, Docker's) lets our networks' packets pass, and its own rules count", async () => {
    const nft = (script: string) => lab.in("host", "nft", script);
    // What `iptables -P FORWARD DROP` makes.
    const chain = "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    await nft(`add table ip filter; ${chain}; add rule ip filter FORWARD tcp dport 81 drop`);
    const listed = async () => (await nft("list chain ip filter FORWARD")).stdout;
    await ok("network", "create", "walled");
    await ok("run", "-d", "--name", "w1", "--network", "walled", "-p", "8140:80", "-p", "8141:81", "skein/hello");
    assert.equal(await answered("in spite of the policy", "outside", `http://${own}:8140/`), other);
    assert.match(await ok("exec", "w1", "ping", "-c1", "-W2", other), / 0% packet loss/);
    await ok("exec", "-d", "w1", "httpd", "-p", "81", "-h", "/www");
    await answered("within the host", "host", `http://${own}:8141/`);
    assert.equal(await ask("outside", `http://${own}:8141/`), "", "the operator's own rule");
    await nft("flush chain ip filter FORWARD");
    assert.equal(await answered("when it was loaded anew", "outside", `http://${own}:8141/`), other);
    const device = `br-${(await ok("network", "inspect", "-f", "{{.Id}}", "walled")).slice(0, 12)}`;
    const rules = async () => (await listed()).match(new RegExp(`"${device}" .*accept comment "skeind"`, "g")) ?? [];
    assert.equal((await rules()).length, 2);
    await ok("rm", "-f", "w1");
    await ok("network", "rm", "walled");
    assert.equal((await rules()).length, 0);
    await nft("delete table ip filter");
  });

  test("macvlan: a container on the host's own wire", { skip: !hasFeature("macvlan") }, async () => {
    const wire = ["--subnet", "10.89.0.0/24", "--ip-range", "10.89.0.128/25", "--gateway", other];
    await ok("network", "create", "-d", "macvlan", "-o", "parent=eth0", ...wire, "wire");
    await ok("run", "-d", "--name", "m1", "--network", "wire", "skein/hello");
    await ok(
      "run",
      "-d",
      "--name",
      "m2",
      "--network",
      "wire",
      "--mac-address",
      "02:42:0a:59:00:99",
      "alpine",
      "sleep",
      "1000",
    );
    const address = await inspect("m1", "{{.NetworkSettings.Networks.wire.IPAddress}}");
    assert.match(address, /^10\.89\.0\.1[23]\d$/);
    assert.equal(await answered("macvlan", "outside", `http://${address}/`), other);
    assert.ok(await askIn("m2", `http://m1/`), "bridge mode, and by name");
    assert.equal(await ok("exec", "m2", "cat", "/sys/class/net/eth0/address"), "02:42:0a:59:00:99");
    assert.equal(await ask("host", `http://${address}/`), "", "the kernel keeps parent and child apart");
    await restart("SIGKILL");
    assert.equal(await ask("outside", `http://${address}/`), other);
    await ok("rm", "-f", "m1", "m2");
    await ok("network", "rm", "wire");
  });

  test("what this kernel lacks is named; `docker info` promises nothing else", async () => {
    const plugins = (await ok("info", "-f", "{{.Plugins.Network}}")).replace(/[[\]]/g, "").split(" ");
    for (const driver of ["ipvlan", "macvlan"] as const) assert.equal(plugins.includes(driver), hasFeature(driver));
    for (const driver of ["bridge", "host", "null"]) assert.ok(plugins.includes(driver), driver);
    const refused = async (...args: string[]) => (await attempt("network", "create", ...args, "lacking")).stderr;
    if (!hasFeature("ipvlan")) {
      assert.match(
        await refused("-d", "ipvlan", "-o", "parent=eth0"),
        /ipvlan networks need CONFIG_IPVLAN, which this kernel lacks/,
      );
    }
    if (!hasFeature("vlan")) {
      assert.match(await refused("-d", "macvlan", "-o", "parent=eth0.50"), /eth0\.50 need CONFIG_VLAN_8021Q/);
    }
    if (!hasFeature("dummy"))
      assert.match(await refused("-d", "macvlan"), /without -o parent=DEVICE need CONFIG_DUMMY/);
    assert.match(await refused("-d", "macvlan", "-o", "parent=none0"), /parent interface none0 was not found/);
  });
});

describe("names", () => {
  before(async () => {
    await ok("network", "create", "--ipv6", "--subnet", "10.206.0.0/24", "--subnet", "fd06::/64", "names");
    await ok("run", "-d", "--name", "d1", "--network", "names", "alpine", "sleep", "1000");
    await ok(
      "run",
      "-d",
      "--name",
      "d2",
      "--network",
      "names",
      "--network-alias",
      "db",
      "--hostname",
      "hd2",
      "skein/hello",
    );
  });
  after(async () => {
    await ok("rm", "-f", "d1", "d2", "many");
    await ok("network", "rm", "names");
  });

  test("names, ids and aliases; both families; backwards; over TCP; nothing of it on the default bridge", async () => {
    const id = (await inspect("d2", "{{.Id}}")).slice(0, 12);
    for (const name of ["d2", "db", id, "D2", "d2.names"]) {
      assert.equal((await dig("d1", "+short", name)).trim(), "10.206.0.3", name);
    }
    assert.equal((await dig("d1", "+short", "d2", "AAAA")).trim(), "fd06::3");
    assert.equal((await dig("d1", "+short", "+tcp", "d2")).trim(), "10.206.0.3");
    assert.equal((await dig("d1", "+short", "-x", "10.206.0.3")).trim(), "d2.names.");
    assert.equal((await dig("d1", "+short", "-x", "fd06::3")).trim(), "d2.names.");
    const full = await dig("d1", "+noedns", "d2");
    const ttl = Number(/^d2\.\s+(\d+)\s+IN\s+A/m.exec(full)?.[1]);
    assert.ok(ttl > 0 && ttl <= 30, `a TTL of seconds, not ${ttl}`);
    assert.match(await ok("exec", "d1", "cat", "/etc/resolv.conf"), /nameserver 127\.0\.0\.11[\s\S]*options .*ndots:0/);
    await ok("run", "-d", "--name", "many", "alpine", "sleep", "1000");
    assert.notEqual((await attempt("exec", "many", "ping", "-c1", "-W1", "d2")).code, 0);
    assert.doesNotMatch(await ok("exec", "many", "cat", "/etc/resolv.conf"), /127\.0\.0\.11/);
  });

  test("many addresses: EDNS0 has room for them, without it the answer says that there is more", async () => {
    // 40 aliases of one container are one address; 40 containers would be slow. The limit is the message's.
    const edns = await dig("d1", "+bufsize=4096", "d2");
    assert.match(edns, /status: NOERROR/);
    assert.match(edns, /EDNS: version: 0/);
    assert.doesNotMatch(await dig("d1", "+noedns", "d2"), /EDNS: version/);
    assert.match(await dig("d1", "nosuchname.names.invalid"), /status: (NXDOMAIN|SERVFAIL)/);
  });

  test("names that come late and names that go", async () => {
    await ok("rename", "d2", "d3");
    assert.equal((await dig("d1", "+short", "d3")).trim(), "10.206.0.3");
    assert.equal((await dig("d1", "+short", "d2")).trim(), "");
    await ok("rename", "d3", "d2");
    await ok("network", "disconnect", "names", "d2");
    assert.equal((await dig("d1", "+short", "d2")).trim(), "");
    await ok("network", "connect", "--alias", "again", "names", "d2");
    assert.match((await dig("d1", "+short", "again")).trim(), /^10\.206\.0\.\d+$/);
  });
});

describe("the API on TCP", () => {
  let dir: string;
  let daemon: ProcessRef | undefined;
  after(async () => {
    if (daemon) await end(daemon, "SIGTERM", 15_000);
    const { host, state } = hostOf(lab.lab, "host");
    lab.lab.state.running.host = await startDaemon(host, { ...state, daemon: undefined });
    saveState(lab.lab.state);
    if (dir) rmSync(dir, { recursive: true });
  });

  test("TLS on both sides: the stock CLI with all its streams, nobody else", async () => {
    dir = mkdtempSync(join(tmpdir(), "skein-api-tls-"));
    mkdirSync(join(dir, "foreign"));
    const ours = await writeCertificates(dir, ["server", "client"], [own]);
    const foreign = await writeCertificates(join(dir, "foreign"), ["client"], []);
    const { host, state } = hostOf(lab.lab, "host");
    assert.ok(state.daemon && (await end(state.daemon, "SIGTERM", 15_000)));
    const refused = await lab.in("host", ...daemonCommand(host), "--host", `tcp://${own}:2375`);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /root on this host; on TCP it is served with --tlsverify only/);

    const file = join(dir, "skeind.json");
    const { ca, cert, key } = ours.server;
    const hosts = [`unix://${host.socket}`, `tcp://${own}:2376`];
    writeFileSync(file, JSON.stringify({ host: hosts, tlsverify: true, tlscacert: ca, tlscert: cert, tlskey: key }));
    const flags = withoutHost(daemonCommand(host));
    const outer = startDetached(inside(state, [...flags, "--config-file", file]), host.logFile);
    const cli = (as: typeof foreign.client | undefined) => {
      const tls = as ? `--tlsverify --tlscacert ${ca} --tlscert ${as.cert} --tlskey ${as.key}` : "";
      return `${dockerCli()} -H tcp://${own}:2376 ${tls}`;
    };
    const sh = (script: string) => lab.in("outside", "sh", "-c", script);
    const ours1 = cli(ours.client);
    await eventually("the daemon", async () => (await sh(`${ours1} version`)).code === 0);
    const pid = childrenOf(outer.pid)[0];
    daemon = pid === undefined ? undefined : processRef(pid);

    const streams = await sh(`echo words | ${ours1} run -i --rm alpine sh -c 'cat; echo bad >&2; exit 3'`);
    assert.deepEqual([streams.code, streams.stdout, streams.stderr], [3, "words\n", "bad\n"]);
    await sh(`${ours1} run -d --name far alpine sleep 1000`);
    // wc answers only after the end of its input: a half-closed stream inside TLS.
    assert.equal((await sh(`echo 12345 | ${ours1} exec -i far wc -c`)).stdout.trim(), "6");
    assert.equal((await sh(`${ours1} exec far head -c 3000000 /dev/zero | wc -c`)).stdout.trim(), "3000000");
    const tar = await sh(`${ours1} cp far:/etc/passwd - | tar -xO`);
    assert.match(tar.stdout, /^root:/);

    const stranger = await sh(`${cli(foreign.client)} ps`);
    assert.equal(stranger.code, 1);
    const plain = await sh(`${cli(undefined)} ps`);
    assert.match(plain.stderr, /Client sent an HTTP request to an HTTPS server/);
    assert.equal(
      (await sh(`${dockerCli()} -H tcp://${own}:2376 --tls --tlscacert ${ca} ps`)).code,
      1,
      "no certificate",
    );
    const local = statSync(host.socket);
    assert.equal(local.mode & 0o777, 0o660);
    await ok("rm", "-f", "far");
  });
});

describe("containerd of somebody else", () => {
  test("is used, not stopped, and the containers on it are adopted", async () => {
    const { host, state } = hostOf(lab.lab, "outside");
    assert.ok(state.daemon && (await end(state.daemon, "SIGTERM", 15_000)));
    const dir = mkdtempSync(join(tmpdir(), "skein-containerd-"));
    const at = `${host.runDir}/foreign`;
    const socket = `${at}/containerd.sock`;
    let containerd: ProcessRef | undefined;
    try {
      const cri = join(dir, "config.toml");
      writeFileSync(cri, 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n');
      const places = ["--address", socket, "--root", `${dir}/root`, "--state", `${at}/state`];
      const outer = startDetached(inside(state, ["containerd", "--config", cri, ...places]), host.logFile);
      await eventually("containerd", async () => existsSync(socket));
      containerd = childrenOf(outer.pid).flatMap((pid) => processRef(pid) ?? [])[0];
      const api = `${at}/docker.sock`;
      const places2 = ["--host", `unix://${api}`, "--data-root", `${dir}/skein`, "--run-dir", `${at}/skein`];
      const command = [...withoutHost(daemonCommand(host)), ...places2, "--containerd", socket];
      const docker = (...args: string[]) => lab.in("outside", dockerCli(), "-H", `unix://${api}`, ...args);
      const up = async () => {
        const outer = startDetached(inside(state, command), host.logFile);
        await eventually("the engine", async () => (await docker("version")).code === 0);
        const pid = childrenOf(outer.pid)[0];
        const daemon = pid === undefined ? undefined : processRef(pid);
        assert.ok(daemon);
        return daemon;
      };
      const first = await up();
      const image = `${dir}/image.tar`;
      const save = await run([
        "sh",
        "-c",
        `${dockerCli()} -H unix://${lab.host("host").socket} save -o ${image} alpine`,
      ]);
      assert.equal(save.code, 0, save.stderr);
      assert.equal((await docker("load", "-i", image)).code, 0);
      assert.equal((await docker("run", "--rm", "alpine", "echo", "hi")).stdout, "hi\n");
      assert.equal((await docker("run", "-d", "--name", "stays", "alpine", "sleep", "1000")).code, 0);
      assert.ok(await end(first, "SIGTERM", 15_000));
      assert.ok(existsSync(socket), "it was not ours to stop");
      const second = await up();
      assert.equal((await docker("inspect", "-f", "{{.State.Running}}", "stays")).stdout, "true\n");
      assert.equal((await docker("exec", "stays", "echo", "there")).stdout, "there\n");
      await docker("rm", "-f", "stays");
      assert.ok(await end(second, "SIGTERM", 15_000));
      const none = await lab.in("outside", ...daemonCommand(host), "--containerd", `${at}/none.sock`);
      assert.equal(none.code, 1);
      assert.match(none.stderr, /containerd at .*none\.sock/);
    } finally {
      if (containerd) await end(containerd, "SIGTERM", 10_000);
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
