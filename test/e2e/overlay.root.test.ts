/**
 * Overlay networks on three hosts, as seen by things that are not ours: the stock CLI, ping, dig and tcpdump.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { run } from "../../src/lab/process.ts";
import { eventually, TestLab } from "../support/lab.ts";

const hosts = ["manager", "worker-1", "worker-2"] as const;
const address = { manager: "10.74.0.11", "worker-1": "10.74.0.12", "worker-2": "10.74.0.13" };
let lab: TestLab;

before(async () => {
  lab = await TestLab.up("ovt", "10.74.0.0/24");
  await lab.swarm();
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

const create = (name: string, ...options: string[]) =>
  lab.ok("manager", "network", "create", "--driver", "overlay", ...options, name);
const start = (host: string, name: string, network: string, ...options: string[]) =>
  lab.ok(host, "run", "--detach", "--tty", "--name", name, "--network", network, ...options, "skein/box");
const gone = async (...containers: [string, ...string[]][]) => {
  await Promise.all(containers.map(([host, ...names]) => lab.ok(host, "rm", "--force", ...names)));
};

/** A program of the host in a container's network. */
async function beside(host: string, container: string, ...command: string[]) {
  const key = await lab.ok(host, "inspect", "--format", "{{.NetworkSettings.SandboxKey}}", container);
  return lab.in(host, "nsenter", `--net=${key}`, ...command);
}

interface Answer {
  readonly status: string;
  readonly answers: string[];
}

async function dig(host: string, container: string, ...question: string[]): Promise<Answer> {
  const options = ["+noall", "+comments", "+answer", "+time=2", "+tries=1"];
  const { stdout } = await beside(host, container, "dig", ...options, "@127.0.0.11", ...question);
  return {
    status: /status: (\w+)/.exec(stdout)?.[1] ?? "NO ANSWER",
    answers: stdout
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith(";"))
      .map((line) => line.split(/\s+/).slice(3).join(" "))
      .sort(),
  };
}

async function pings(host: string, container: string, target: string, ...options: string[]): Promise<boolean> {
  const { code } = await lab.try(host, "exec", container, "ping", "-c", "1", "-W", "1", ...options, target);
  return code === 0;
}

const reaches = (host: string, container: string, target: string) =>
  eventually(`${container} reaches ${target}`, () => pings(host, container, target), 5_000);

const addressOf = (host: string, container: string, network: string) =>
  lab.ok(host, "inspect", "--format", `{{(index .NetworkSettings.Networks "${network}").IPAddress}}`, container);

const linksOf = async (host: string, container: string) => (await beside(host, container, "ip", "-o", "link")).stdout;

test("host bits of a subnet are ignored; every host answers to names, aliases and short ids", async () => {
  await create("back", "--attachable", "--subnet", "10.11.1.77/24");
  const subnets = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
  await eventually(
    "allocated",
    async () => (await lab.ok("manager", "network", "inspect", "--format", subnets, "back")) === "10.11.1.0/24",
  );
  const ids = {
    manager: await start("manager", "one", "back"),
    "worker-1": await start("worker-1", "two", "back", "--network-alias", "twin"),
    "worker-2": await start("worker-2", "three", "back", "--network-alias", "twin", "--hostname", "h3"),
  };
  const ip = {
    one: await addressOf("manager", "one", "back"),
    two: await addressOf("worker-1", "two", "back"),
    three: await addressOf("worker-2", "three", "back"),
  };
  for (const found of Object.values(ip)) assert.match(found, /^10\.11\.1\.\d+$/);
  for (const [host, container] of [
    ["manager", "one"],
    ["worker-1", "two"],
    ["worker-2", "three"],
  ] as const) {
    await eventually(
      "both twins",
      async () => (await dig(host, container, "twin")).answers.join() === `A ${ip.two},A ${ip.three}`,
    );
    for (const [name, expected] of [
      ["one", ip.one],
      ["two.back", ip.two],
      ["THREE", ip.three],
      [ids["worker-1"].slice(0, 12), ip.two],
    ] as const) {
      assert.deepEqual(await dig(host, container, name), { status: "NOERROR", answers: [`A ${expected}`] }, name);
    }
    assert.deepEqual(await dig(host, container, "two", "AAAA"), { status: "NOERROR", answers: [] });
    assert.deepEqual(await dig(host, container, "-x", ip.three), { status: "NOERROR", answers: ["PTR three.back."] });
    assert.equal((await dig(host, container, "nobody")).status, "NXDOMAIN");
    for (const other of Object.keys(ip)) await reaches(host, container, other);
  }
});

test("on the wire: UDP 4789 between the hosts' addresses, with the network's VNI", async () => {
  const vni = await lab.ok(
    "manager",
    "network",
    "inspect",
    "--format",
    '{{index .Options "com.docker.network.driver.overlay.vxlanid_list"}}',
    "back",
  );
  const dump = lab.in("worker-2", "timeout", "5", "tcpdump", "-i", "eth0", "-nn", "-l", "-c", "4", "udp port 4789");
  let done = false;
  dump.finally(() => {
    done = true;
  });
  while (!done) await pings("manager", "one", "three");
  const { stdout } = await dump;
  const frames = stdout.split("\n").filter((line) => line.includes("VXLAN"));
  assert.ok(frames.length >= 4, stdout);
  for (const line of frames) {
    assert.match(line, new RegExp(`VXLAN, flags \\[I\\] \\(0x08\\), vni ${vni}\\b`));
    const [, from, to] = /IP (\S+)\.\d+ > (\S+)\.4789: VXLAN/.exec(line) ?? [];
    assert.deepEqual([from, to].sort(), [address.manager, address["worker-2"]]);
  }
  assert.match(stdout, /ICMP echo request/);
});

/** A VXLAN packet with an IPv4 UDP datagram to port 9999 inside. */
function forged(vni: number, to: { mac: string; address: string }): Buffer {
  const header = Buffer.alloc(8);
  header[0] = 0x08;
  header.writeUIntBE(vni, 4, 3);
  const mac = Buffer.from(to.mac.replaceAll(":", ""), "hex");
  const ethernet = Buffer.concat([mac, Buffer.from("0242deadbeef0800", "hex")]);
  const ip = Buffer.from("4500002000010000401100000000000000000000", "hex");
  Buffer.from([10, 11, 1, 250]).copy(ip, 12);
  Buffer.from(to.address.split(".").map(Number)).copy(ip, 16);
  let sum = 0;
  for (let at = 0; at < ip.length; at += 2) sum += ip.readUInt16BE(at);
  ip.writeUInt16BE(~((sum & 0xffff) + (sum >> 16)) & 0xffff, 10);
  // Ports 9999, length 12, no checksum, "skein" cut short.
  const udp = Buffer.from("270f270f000c0000736b6569", "hex");
  return Buffer.concat([header, ethernet, ip, udp]);
}

test("VXLAN from strangers, of foreign networks, and from the wrong side is not heard", async () => {
  const option = '{{index .Options "com.docker.network.driver.overlay.vxlanid_list"}}';
  const vni = Number(await lab.ok("manager", "network", "inspect", "--format", option, "back"));
  const format = "{{.NetworkSettings.Networks.back.MacAddress}}";
  const to = {
    mac: await lab.ok("manager", "inspect", "--format", format, "one"),
    address: await addressOf("manager", "one", "back"),
  };
  const arrives = async (send: () => Promise<unknown>) => {
    const filter = ["tcpdump", "-i", "eth0", "-nn", "-c", "1", "udp port 9999"];
    const heard = beside("manager", "one", "timeout", "2", ...filter);
    await delay(700);
    await send();
    return (await heard).stdout.includes("9999");
  };
  const text = (packet: Buffer) => `echo ${packet.toString("base64")} | base64 -d |`;
  const target = `UDP-SENDTO:${address.manager}:4789`;
  const from = (host: string, packet: Buffer) => lab.in(host, "sh", "-c", `${text(packet)} socat -u - ${target}`);
  assert.equal(await arrives(() => from("worker-1", forged(vni, to))), true, "a host of the swarm is heard");
  assert.equal(await arrives(() => from("worker-1", forged(vni + 77, to))), false, "a network that is not here");
  const stranger = () => run(["sh", "-c", `${text(forged(vni, to))} socat -u - ${target}`]);
  assert.equal(await arrives(stranger), false, "a machine on the same switch that is none of the swarm");
  const container = `ip addr add ${address["worker-1"]}/32 dev lo && ${text(forged(vni, to))} socat -u - ${target},bind=${address["worker-1"]}; ip addr del ${address["worker-1"]}/32 dev lo`;
  assert.equal(await arrives(() => beside("manager", "one", "sh", "-c", container)), false, "a container as a host");
});

test("MTU: 1450 on a path of 1500, and by option; the largest packet passes undivided", async () => {
  await create("slim", "--attachable", "--opt", "com.docker.network.driver.mtu=1300");
  await start("manager", "slim1", "slim");
  await start("worker-2", "slim2", "slim");
  assert.match(await linksOf("manager", "one"), /eth0@.* mtu 1450 /);
  assert.match(await linksOf("manager", "slim1"), /eth0@.* mtu 1250 /);
  await reaches("manager", "slim1", "slim2");
  for (const [container, target, host, mtu] of [
    ["one", "three", "worker-2", 1450],
    ["slim1", "slim2", "worker-2", 1250],
  ] as const) {
    const to = await addressOf(host, target, container === "one" ? "back" : "slim");
    const sized = (bytes: number) =>
      beside("manager", container, "ping", "-c", "1", "-W", "1", "-M", "do", "-s", String(bytes - 28), to);
    assert.equal((await sized(mtu)).code, 0, `${mtu} bytes`);
    assert.notEqual((await sized(mtu + 1)).code, 0, `${mtu + 1} bytes`);
  }
  await gone(["manager", "slim1"], ["worker-2", "slim2"]);
});

test("10 MB arrive as they were sent, both ways at once", async () => {
  for (const [host, container] of [
    ["manager", "one"],
    ["worker-2", "three"],
  ] as const) {
    const script = "mkdir /tmp/www && dd if=/dev/urandom of=/tmp/www/data bs=1M count=10 && httpd -p 7000 -h /tmp/www";
    await lab.ok(host, "exec", container, "sh", "-c", script);
  }
  const sum = (host: string, container: string, command: string) =>
    lab.ok(host, "exec", container, "sh", "-c", `${command} | md5sum`);
  const [atThree, atOne] = await Promise.all([
    sum("worker-2", "three", "curl -s http://one:7000/data"),
    sum("manager", "one", "curl -s http://three:7000/data"),
  ]);
  assert.equal(atThree, await sum("manager", "one", "cat /tmp/www/data"));
  assert.equal(atOne, await sum("worker-2", "three", "cat /tmp/www/data"));
});

test("networks that are not attachable are refused, by run and by connect", async () => {
  await create("closed");
  for (const args of [
    ["run", "--rm", "--network", "closed", "skein/box", "true"],
    ["network", "connect", "closed", "one"],
  ]) {
    const { code, stderr } = await lab.try("manager", ...args);
    assert.notEqual(code, 0);
    assert.match(
      stderr,
      /Could not attach to network \S+: rpc error: code = PermissionDenied desc = network \S+ not manually attachable/,
    );
    assert.doesNotMatch(stderr, /Could not attach.*Could not attach/);
  }
  await lab.ok("manager", "network", "rm", "closed");
});

test("networks are apart; a container on both is on both, for as long as it is", async () => {
  await create("front", "--attachable");
  await start("worker-1", "edge", "front");
  const edge = await addressOf("worker-1", "edge", "front");
  assert.equal((await dig("manager", "one", "edge")).status, "NXDOMAIN");
  assert.equal(await pings("manager", "one", edge), false, "by address either");

  await lab.ok("worker-2", "network", "connect", "--alias", "hub", "front", "three");
  await reaches("worker-2", "three", "edge");
  await reaches("worker-2", "three", "one");
  await reaches("worker-1", "edge", "hub");
  const onBack = await addressOf("worker-2", "three", "back");
  const onFront = await addressOf("worker-2", "three", "front");
  assert.deepEqual((await dig("manager", "one", "three")).answers, [`A ${onBack}`]);
  assert.deepEqual((await dig("worker-1", "edge", "three")).answers, [`A ${onFront}`]);
  assert.equal(await pings("worker-1", "edge", onBack), false, "no way through the container's other side");

  await lab.ok("worker-1", "rename", "edge", "rim");
  await reaches("worker-2", "three", "rim");
  assert.equal((await dig("worker-2", "three", "edge")).status, "NXDOMAIN", "its name that is over");
  await lab.ok("worker-1", "rename", "rim", "edge");

  await lab.ok("worker-2", "network", "disconnect", "front", "three");
  await eventually("forgotten", async () => (await dig("worker-1", "edge", "hub")).status === "NXDOMAIN", 2_000);
  assert.equal(await pings("worker-1", "edge", onFront), false);
  await reaches("manager", "one", "three");
  assert.doesNotMatch(await linksOf("worker-2", "three"), /eth2/);
  await gone(["worker-1", "edge"]);
});

test("an internal network has no way out", async () => {
  await create("inner", "--internal", "--attachable");
  await start("manager", "in1", "inner");
  await start("worker-1", "in2", "inner");
  await reaches("manager", "in1", "in2");
  const links = await linksOf("manager", "in1");
  assert.match(links, /eth0@/);
  assert.doesNotMatch(links, /eth1/);
  const routes = (await beside("manager", "in1", "ip", "route")).stdout;
  assert.doesNotMatch(routes, /default/);
  assert.equal(await pings("manager", "in1", "10.74.0.1"), false);
  assert.equal(await pings("manager", "one", "10.74.0.1"), true, "others have one");
  assert.doesNotMatch(
    await lab.ok(
      "manager",
      "network",
      "inspect",
      "--format",
      "{{range .Containers}}{{.Name}} {{end}}",
      "docker_gwbridge",
    ),
    /in1/,
  );
  // The way out comes and goes with a network that has one.
  await lab.ok("manager", "network", "connect", "back", "in1");
  assert.equal(await pings("manager", "in1", "10.74.0.1"), true);
  await reaches("manager", "in1", "three");
  await lab.ok("manager", "network", "disconnect", "back", "in1");
  assert.equal(await pings("manager", "in1", "10.74.0.1"), false);
  await reaches("manager", "in1", "in2");
  await gone(["manager", "in1"], ["worker-1", "in2"]);
});

test("names are right within a second of a container's start and end elsewhere (95 of 100)", async (t) => {
  const watch = (name: string, there: boolean) => {
    const found = `dig +short +time=1 +tries=1 @127.0.0.11 ${name} | grep -q .`;
    return beside(
      "manager",
      "one",
      "sh",
      "-c",
      `${there ? "until" : "while"} ${found}; do sleep 0.01; done; date +%s%3N`,
    );
  };
  const up: number[] = [];
  const down: number[] = [];
  for (let i = 0; i < 20; i++) {
    const host = i % 2 === 0 ? "worker-1" : "worker-2";
    const name = `quick${i}`;
    const appears = watch(name, true);
    await start(host, name, "back");
    const seen = Number((await appears).stdout);
    up.push(seen - Date.parse(await lab.ok(host, "inspect", "--format", "{{.State.StartedAt}}", name)));
    const vanishes = watch(name, false);
    await lab.ok(host, "kill", name);
    const unseen = Number((await vanishes).stdout);
    down.push(unseen - Date.parse(await lab.ok(host, "inspect", "--format", "{{.State.FinishedAt}}", name)));
    await lab.ok(host, "rm", name);
  }
  const p95 = (all: number[]) => all.sort((a, b) => a - b)[Math.ceil(all.length * 0.95) - 1] ?? Number.NaN;
  const median = (all: number[]) => all[Math.floor(all.length / 2)];
  t.diagnostic(
    `start to name: p95 ${p95(up)} ms, median ${median(up)}; end to none: p95 ${p95(down)} ms, median ${median(down)}`,
  );
  assert.ok(p95(up) < 1_000, `start: ${up}`);
  assert.ok(p95(down) < 1_000, `end: ${down}`);
});

test("a network's namespace goes with its last container on a worker", async () => {
  const id = await lab.ok("manager", "network", "inspect", "--format", "{{.Id}}", "back");
  const pins = async (host: string) => (await lab.in(host, "ls", "/run/docker/netns")).stdout.split("\n");
  assert.ok((await pins("worker-1")).includes(`1-${id.slice(0, 10)}`));
  await gone(["worker-1", "two"]);
  await eventually("no namespace", async () => !(await pins("worker-1")).some((pin) => pin.includes(id.slice(0, 9))));
  await eventually(
    "not listed",
    async () => (await lab.ok("worker-1", "network", "ls", "--quiet", "--filter", "name=back")) === "",
  );
  await reaches("manager", "one", "three");
  await start("worker-1", "two", "back");
  await reaches("worker-1", "two", "three");
  await gone(["worker-1", "two"], ["manager", "one"], ["worker-2", "three"]);
});

test("nothing is left after the swarm", async () => {
  for (const host of ["worker-1", "worker-2"]) await lab.ok(host, "swarm", "leave");
  await lab.ok("manager", "swarm", "leave", "--force");
  for (const host of hosts) {
    await eventually(`${host} is clean`, async () => {
      const { stdout: pins } = await lab.in(host, "ls", "/run/docker/netns");
      const { stdout: tables } = await lab.in(host, "nft", "list", "tables");
      const { stdout: links } = await lab.in(host, "ip", "-o", "-d", "link");
      const { stdout: sockets } = await lab.in(host, "ss", "-Hlnut");
      return (
        pins.trim() === "" &&
        !/tunnels|mesh/.test(tables) &&
        !/vxlan|veth(?!.*eth0)/.test(links.replace(/eth0@.*/g, "")) &&
        !/:(4789|7946|2377)\b/.test(sockets)
      );
    });
    assert.deepEqual((await lab.ok(host, "network", "ls", "--format", "{{.Name}}")).split("\n").sort(), [
      "bridge",
      "docker_gwbridge",
      "host",
      "none",
    ]);
  }
});
