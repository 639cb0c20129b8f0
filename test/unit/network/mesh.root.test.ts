/** Three hosts, one service: virtual address, routing mesh, published ports of a single host. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ipam, spec } from "./fixtures.ts";
import { eventually, type TestHost, testLab } from "./lab.ts";

const keys = [1, 2, 3].map((n) => ({ key: `${n}`.repeat(32), lamportTime: String(100 + n) }));
const overlay = (id: string, name: string, net: string, vni: string, ingress = false) =>
  spec({
    id,
    name,
    driver: "overlay",
    attachable: !ingress,
    ingress,
    options: { "com.docker.network.driver.overlay.vxlanid_list": vni },
    ipam: ipam({ subnet: `${net}.0/24`, gateway: `${net}.1` }),
  });
const net1 = overlay("net1aaaaaaaaaaaaaaaaaaaaa", "net1", "10.0.1", "4097");
const ingress = overlay("ingressaaaaaaaaaaaaaaaaaa", "ingress", "10.0.0", "4096", true);
const id = (letter: string) => letter.repeat(64);
const pin = (letter: string) => letter.repeat(12);
const vip = "10.0.1.200";
const service = { id: "svcweb", name: "web", vip, aliases: [], ingressPorts: [] };
const ports = [
  { name: "", protocol: "tcp", targetPort: 80, publishedPort: 8080 },
  { name: "", protocol: "udp", targetPort: 5353, publishedPort: 9053 },
  { name: "", protocol: "tcp", targetPort: 80, publishedPort: 8090, bound: ["127.0.0.1/32", "::1/128"] },
  { name: "", protocol: "tcp", targetPort: 80, publishedPort: 8091, bound: ["10.98.0.1/32", "fd98::/64"] },
  { name: "", protocol: "tcp", targetPort: 80, publishedPort: 8092, local: true },
  { name: "", protocol: "udp", targetPort: 5353, publishedPort: 9092, local: true },
  { name: "", protocol: "tcp", targetPort: 82, publishedPort: 8093, proxy: true },
  { name: "", protocol: "tcp", targetPort: 81, publishedPort: 8094 },
];

async function join(host: TestHost, index: number) {
  await host.run(`ip addr add fd98::${index + 1}/64 dev eth0 nodad`);
  await host.call("restore", []);
  const place = { bindAddress: host.address, advertiseAddress: host.address, dataPathAddress: host.address };
  await host.call("startCluster", { ...place, dataPathPort: 4789 });
  await host.call("setKeys", keys);
  await host.call("setManagers", ["10.98.0.1"]);
  await host.call("create", ingress, { lbAddress: `10.0.0.${index + 2}/24` });
  await host.call("create", net1, { lbAddress: `10.0.1.${index + 2}/24` });
}

async function sandbox(host: TestHost, letter: string, published: unknown[] = []) {
  await host.call("createSandbox", {
    id: id(letter),
    mode: "private",
    hostname: pin(letter),
    domainname: "",
    dns: { servers: [], search: [], options: [] },
    extraHosts: [],
    ports: published,
  });
}

/** A task of the service: says its letter and who asked, over TCP and UDP. */
async function task(host: TestHost, letter: string, n: number) {
  await sandbox(host, letter);
  const name = `web.${n}.x`;
  await host.call("connect", id(letter), {
    networkId: net1.id,
    name,
    aliases: [],
    ipv4: `10.0.1.${10 + n}/24`,
    service,
  });
  await host.call("connect", id(letter), {
    networkId: ingress.id,
    name,
    aliases: [],
    ipv4: `10.0.0.${10 + n}/24`,
    service: { ...service, vip: "10.0.0.200", ingressPorts: ports },
  });
  const answer = `SYSTEM:'echo ${letter} $SOCAT_PEERADDR'`;
  await host.run(
    `setsid socat TCP-LISTEN:80,fork,reuseaddr ${answer} >/dev/null 2>&1 & echo $! >> ${host.netnsDir}.pids`,
    pin(letter),
  );
  await host.run(
    `setsid socat UDP-RECVFROM:5353,fork,reuseaddr ${answer} >/dev/null 2>&1 & echo $! >> ${host.netnsDir}.pids`,
    pin(letter),
  );
  await host.run(
    `setsid socat TCP-LISTEN:82,fork,reuseaddr SYSTEM:'od -An -v -tx1' >/dev/null 2>&1 & echo $! >> ${host.netnsDir}.pids`,
    pin(letter),
  );
  await host.run(
    `setsid socat TCP-LISTEN:81,fork,reuseaddr EXEC:cat >/dev/null 2>&1 & echo $! >> ${host.netnsDir}.pids`,
    pin(letter),
  );
  await host.call("setActivity", id(letter), "active");
}

test("a service on three hosts", { timeout: 120_000 }, async (t) => {
  await using lab = await testLab(["h1", "h2", "h3"], "mesh");
  const [h1, h2, h3] = lab.hosts;
  assert.ok(h1 && h2 && h3);
  // After its own end socat waits half a second for the other's, unless told otherwise; a busy machine takes longer.
  const ask = (address: string, port: number) => `socat -t5 -T5 - TCP:${address}:${port},connect-timeout=2 </dev/null`;
  const askUdp = (address: string, port: number) => `echo x | timeout 2 socat -T0.5 - UDP:${address}:${port}`;
  /** A program that goes on sending from one port, as those do that tell of logs or figures. */
  const sender = (address: string, port: number) =>
    lab.client(`echo x | timeout 2 socat -T0.5 - UDP:${address}:${port},sourceport=4000,reuseaddr`);
  const askV6 = (address: string, port: number) =>
    `socat -t5 -T5 - TCP6:[${address}]:${port},connect-timeout=2 </dev/null`;
  const refusal = /Connection refused/;
  const refused = async (address: string, port: number) =>
    assert.match((await lab.client(ask(address, port))).out, refusal, `${address}:${port}`);
  /** What a task got of "hello" to its port that speaks the PROXY protocol. */
  const proxied = async (address: string) => {
    const { out } = await lab.client(`printf hello | socat -t5 -T5 - TCP:${address}:8093,connect-timeout=2`);
    return out.replaceAll(/\s/g, "");
  };
  // From 10.98.0.254 to port 8093 of a task, then "hello".
  const header6 = (index: number) =>
    new RegExp(
      `^0d0a0d0a000d0a515549540a21210024fd98${"0".repeat(24)}00fefd98${"0".repeat(24)}000${index}.{4}1f9d68656c6c6f$`,
    );
  const header = /^0d0a0d0a000d0a515549540a2111000c0a6200fe0a00000[bc].{4}1f9d68656c6c6f$/;
  try {
    await lab.client("ip addr add fd98::fe/64 dev sw nodad");
    for (const [index, host] of lab.hosts.entries()) await join(host, index);
    assert.doesNotMatch((await sender("10.98.0.1", 9053)).out, /10\.98/, "nobody answers yet");
    await task(h2, "b", 1);
    await task(h3, "c", 2);
    await sandbox(h1, "a");
    await h1.call("connect", id("a"), { networkId: net1.id, name: "client", aliases: [], ipv4: "10.0.1.50/24" });
    await h1.call("setActivity", id("a"), "active");
    const dig = async (name: string) =>
      (await h1.run(`dig +short +time=1 +tries=1 @127.0.0.11 ${name}`, pin("a"))).out.trim().split("\n");
    await eventually(async () => (await dig("tasks.web")).length === 2);

    await t.test("a sender of datagrams who was there before the service is answered", async () => {
      await eventually(async () => /^[bc] 10\.98\.0\.254/.test((await sender("10.98.0.1", 9053)).out), 3_000);
    });

    await t.test("the name is the virtual address; it spreads over the tasks, and each sees the caller", async () => {
      assert.deepEqual(await dig("web"), [vip]);
      const seen = new Map<string, number>();
      for (let i = 0; i < 20; i++) {
        const { out } = await h1.run(ask(vip, 80), pin("a"));
        seen.set(out.trim(), (seen.get(out.trim()) ?? 0) + 1);
      }
      assert.deepEqual([...seen.keys()].sort(), ["b 10.0.1.50", "c 10.0.1.50"]);
      assert.equal((await h1.run(`ping -c1 -W1 ${vip}`, pin("a"))).code, 0, "ping");
      const own = await h2.run(ask(vip, 80), pin("b"));
      assert.match(own.out, /^[bc] 10\.0\.1\.11$/m, "a task reaches its own service");
    });

    await t.test("every host answers on the published port; tasks see the client's own address", async () => {
      await eventually(async () => (await lab.client(ask("10.98.0.1", 8080))).out.includes("10.98.0.254"));
      for (const host of lab.hosts) {
        const seen = new Set<string>();
        for (let i = 0; i < 12; i++) seen.add((await lab.client(ask(host.address, 8080))).out.trim());
        assert.deepEqual([...seen].sort(), ["b 10.98.0.254", "c 10.98.0.254"], host.name);
      }
      const local = await h1.run(ask("127.0.0.1", 8080));
      assert.match(local.out, /^[bc] /m, "on localhost");
      const other = await h1.run(ask("10.98.0.2", 8080));
      assert.match(other.out, /^[bc] 10\.98\.0\.1$/m, "from a host to another");
      const inside = await h1.run(ask("10.98.0.1", 8080), pin("a"));
      assert.match(inside.out, /^[bc] /m, "from a container");
    });

    await t.test("they are sent by the host's own leg, which a strict return path filter lets pass", async () => {
      const strict = "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1";
      await h1.run(`${strict} && ip route del default && ip neigh flush dev veth-ingress`);
      for (let i = 0; i < 12; i++)
        assert.match((await lab.client(ask("10.98.0.1", 8080))).out, /^[bc] 10\.98\.0\.254$/m);
      const neighbours = (await h1.run("ip neigh show dev veth-ingress")).out;
      for (const address of ["10.0.0.11", "10.0.0.12"]) assert.ok(neighbours.includes(address), neighbours);
      await h1.run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0");
      await h1.run("ip route add default via 10.98.0.254");
    });

    await t.test("a client whose address the ingress network has as well is answered", async () => {
      await lab.client("ip addr add 10.0.0.77/32 dev sw");
      for (const host of lab.hosts) {
        await host.run("ip route add 10.0.0.77/32 via 10.98.0.254");
        const { out } = await lab.client(`${ask(host.address, 8080).replace(",conn", ",bind=10.0.0.77,conn")}`);
        assert.match(out, /^[bc] /m, host.name);
        await host.run("ip route del 10.0.0.77/32");
      }
      await lab.client("ip addr del 10.0.0.77/32 dev sw");
    });

    await t.test("nobody on the ingress network reaches a host by its leg", async () => {
      const answer = "setsid socat TCP-LISTEN:7777,fork,reuseaddr SYSTEM:'echo host' >/dev/null 2>&1 &";
      await h2.run(`${answer} echo $! >> ${h2.netnsDir}.pids`);
      await eventually(async () => (await h2.run(ask("10.98.0.2", 7777), pin("b"))).out.trim() === "host");
      const mac = /ether (\S+)/.exec((await h2.run("ip link show dev veth-ingress")).out)?.[1];
      const device = / dev (\S+)/.exec((await h2.run("ip route get 10.0.0.12", pin("b"))).out)?.[1];
      assert.ok(mac?.startsWith("06:42:") && device);
      const past = "ip route add 10.98.0.2/32 dev";
      await h2.run(`ip neigh add 10.98.0.2 lladdr ${mac} dev ${device}; ${past} ${device} src 10.0.1.11`, pin("b"));
      assert.equal((await h2.run(ask("10.98.0.2", 7777), pin("b"))).out.includes("host"), false);
      assert.match((await h2.run("ip route get 10.98.0.2", pin("b"))).out, new RegExp(`dev ${device} src 10.0.1.11`));
      await h2.run(`ip route del 10.98.0.2/32; ip neigh del 10.98.0.2 dev ${device}`, pin("b"));
    });

    await t.test("UDP too", async () => {
      for (const host of lab.hosts) {
        const out = await eventually(
          async () => (await lab.client(askUdp(host.address, 9053))).out.trim() || undefined,
        );
        assert.match(out, /^[bc] 10\.98\.0\.254$/, host.name);
      }
    });

    await t.test("over IPv6 every host answers as well, and at [::1]", async () => {
      for (const [index, host] of lab.hosts.entries()) {
        const there = `fd98::${index + 1}`;
        assert.match((await lab.client(askV6(there, 8080))).out, /^[bc] 10\.0\.0\./m, host.name);
        assert.match((await host.run(askV6("::1", 8080))).out, /^[bc] 10\.0\.0\./m, host.name);
        const askThere = `echo x | timeout 2 socat -T0.5 - UDP6:[${there}]:9053`;
        await eventually(async () => /^[bc] 10\.0\.0\./m.test((await lab.client(askThere)).out));
      }
      const many = await lab.client(`head -c 3000000 /dev/zero | socat -t5 -T5 - TCP6:[fd98::1]:8093 | wc -c`);
      assert.ok(Number(many.out) > 9_000_000, `three megabytes, as text, came back whole: ${many.out}`);
    });

    await t.test("a port that is bound is at its addresses only, on every host", async () => {
      for (const host of lab.hosts) {
        await refused(host.address, 8090);
        assert.match((await host.run(ask("127.0.0.1", 8090))).out, /^[bc] /m, host.name);
        assert.match((await host.run(askV6("::1", 8090))).out, /^[bc] /m, host.name);
        assert.match((await host.run(ask(host.address, 8090))).out, refusal, "by its own address");
      }
      assert.match((await lab.client(askV6("fd98::1", 8090))).out, refusal);
      assert.match((await lab.client(ask("10.98.0.1", 8091))).out, /^[bc] 10\.98\.0\.254$/m);
      await refused("10.98.0.2", 8091);
      assert.match((await lab.client(askV6("fd98::2", 8091))).out, /^[bc] /m);
      assert.match((await h2.run(askV6("::1", 8091))).out, refusal);
    });

    await t.test("a local port answers where a task is, by that task, and is refused elsewhere", async () => {
      await refused("10.98.0.1", 8092);
      assert.match((await lab.client(askV6("fd98::1", 8092))).out, refusal);
      for (let i = 0; i < 8; i++) {
        assert.equal((await lab.client(ask("10.98.0.2", 8092))).out.trim(), "b 10.98.0.254");
        assert.equal((await lab.client(ask("10.98.0.3", 8092))).out.trim(), "c 10.98.0.254");
      }
      await eventually(async () => refusal.test((await lab.client(askUdp("10.98.0.1", 9092))).out));
      await eventually(async () => (await lab.client(askUdp("10.98.0.3", 9092))).out.trim() === "c 10.98.0.254");
    });

    await t.test("by the PROXY protocol a task is told the client, whichever host was asked", async () => {
      for (const host of lab.hosts) assert.match(await proxied(host.address), header, host.name);
      for (const index of [1, 2, 3]) {
        const six = await lab.client(`printf hello | socat -t5 -T5 - TCP6:[fd98::${index}]:8093,connect-timeout=2`);
        assert.match(six.out.replaceAll(/\s/g, ""), header6(index), `over IPv6 by host ${index}`);
      }
      const door = "printf x | socat -T1 - TCP:10.0.0.11:82,connect-timeout=1";
      assert.notEqual((await h3.run(door, pin("c"))).code, 0, "another task");
      const outside = "socat -T1 - TCP:10.0.0.11:82,connect-timeout=1 </dev/null";
      assert.notEqual((await h3.run(outside, "ingress_sbox")).code, 0, "the target port is closed on ingress");
    });

    await t.test("nothing else of a task is open on ingress", async () => {
      const { code } = await h1.run(ask("10.0.0.11", 8081), "ingress_sbox");
      assert.notEqual(code, 0);
    });

    await t.test(
      "an address that another task has at once is reached at once, by containers and by the mesh",
      async () => {
        const asked = async () => [
          (await h1.run(ask("10.0.1.13", 80), pin("a"))).out.trim(),
          (await h1.run(ask("10.0.0.13", 8080), "ingress_sbox")).out.trim(),
        ];
        const told = async (letter: string, host: TestHost) => {
          await task(host, letter, 3);
          await eventually(async () => (await dig("tasks.web")).includes("10.0.1.13"));
          assert.deepEqual(await asked(), [`${letter} 10.0.1.50`, `${letter} 10.0.0.2`], host.name);
          await host.call("removeSandbox", id(letter));
          await eventually(async () => !(await dig("tasks.web")).includes("10.0.1.13"));
        };
        await told("1", h2);
        await told("2", h3);
        await told("3", h1);
        await told("4", h2);
      },
    );

    await t.test("a daemon that is killed and started again costs no connection", async () => {
      // Six talks of four seconds with the tasks, some of them on h2.
      const command = `sh -c 'for i in 1 2 3 4 5 6 7 8; do echo x; sleep 0.5; done' | socat -T8 - TCP:${vip}:81`;
      const mesh = [h1, h2, h3].map(({ address }) => command.replace(`${vip}:81`, `${address}:8094`));
      const talks = Promise.all([
        ...Array.from({ length: 6 }, () => h1.run(command, pin("a"))),
        ...[...mesh, ...mesh].map((talk) => lab.client(talk)),
      ]);
      await new Promise((resolve) => setTimeout(resolve, 800));
      await h2.kill();
      await h2.start();
      await h2.call("restore", [id("b")]);
      const place = { bindAddress: h2.address, advertiseAddress: h2.address, dataPathAddress: h2.address };
      await h2.call("startCluster", { ...place, dataPathPort: 4789 });
      await h2.call("setKeys", keys);
      await h2.call("setManagers", ["10.98.0.1"]);
      for (const { out } of await talks) assert.equal(out.replaceAll(/\s/g, ""), "x".repeat(8), out);
      await eventually(async () => (await dig("tasks.web")).length === 2);
      await eventually(async () => (await lab.client(ask("10.98.0.2", 8080))).out.includes("10.98.0.254"));
      await refused("10.98.0.2", 8090);
      assert.match(await proxied("10.98.0.2"), header);
      assert.equal((await lab.client(ask("10.98.0.2", 8092))).out.trim(), "b 10.98.0.254");
    });

    await t.test("a draining task gets no new connections; then it is gone", async () => {
      await h2.call("setActivity", id("b"), "draining");
      await eventually(async () => (await dig("tasks.web")).join() === "10.0.1.12");
      for (let i = 0; i < 8; i++) assert.match((await lab.client(ask("10.98.0.1", 8080))).out, /^c /);
      for (let i = 0; i < 8; i++) assert.match((await h1.run(ask(vip, 80), pin("a"))).out, /^c /);
      await h2.call("removeSandbox", id("b"));
      assert.deepEqual(await dig("web"), [vip]);
    });

    await t.test("a frozen host's tasks are withdrawn, and come back when it wakes", async () => {
      const started = Date.now();
      h3.signal("SIGSTOP");
      await eventually(async () => (await dig("web.2.x"))[0] === "", 15_000);
      t.diagnostic(`withdrawn after ${Date.now() - started} ms`);
      h3.signal("SIGCONT");
      await eventually(async () => (await dig("web.2.x"))[0] === "10.0.1.12", 15_000);
    });

    await t.test(
      "a port of one host: from outside, from the host, from localhost, from containers; conflicts refused",
      async () => {
        const bridge = (await h1.call<{ name: string; id: string }[]>("list")).find((n) => n.name === "bridge");
        assert.ok(bridge);
        const binding = { protocol: "tcp", containerPort: 80, hostIp: "", hostPort: 8000, hostPortEnd: 0 };
        await sandbox(h1, "d", [binding, { ...binding, hostIp: "127.0.0.1", hostPort: 8001 }]);
        await h1.call("connect", id("d"), { networkId: bridge.id, name: "web1", aliases: [] });
        await h1.run(
          `setsid socat TCP-LISTEN:80,fork,reuseaddr SYSTEM:'echo d $SOCAT_PEERADDR' >/dev/null 2>&1 & echo $! >> ${h1.netnsDir}.pids`,
          pin("d"),
        );
        assert.deepEqual(await h1.call("publishedPorts", id("d")), [
          { protocol: "tcp", containerPort: 80, hostIp: "0.0.0.0", hostPort: 8000 },
          { protocol: "tcp", containerPort: 80, hostIp: "::", hostPort: 8000 },
          { protocol: "tcp", containerPort: 80, hostIp: "127.0.0.1", hostPort: 8001 },
        ]);
        // Its server may still be on its way.
        await eventually(async () => (await lab.client(ask("10.98.0.1", 8000))).code === 0);
        assert.equal((await lab.client(ask("10.98.0.1", 8000))).out.trim(), "d 10.98.0.254");
        assert.notEqual((await lab.client(ask("10.98.0.1", 8001))).code, 0, "bound to loopback");
        assert.match((await h1.run(ask("10.98.0.1", 8000))).out, /^d /);
        assert.match((await h1.run(ask("127.0.0.1", 8000))).out, /^d /);
        assert.match((await h1.run(ask("127.0.0.1", 8001))).out, /^d /);
        assert.match((await h1.run(ask("10.98.0.1", 8000), pin("d"))).out, /^d /, "hairpin");
        assert.match((await h1.run(ask("172.17.0.1", 8000), pin("a"))).out, /^d /, "from another network");
        assert.notEqual((await h1.run(ask("172.17.0.2", 80), pin("a"))).code, 0, "but not past the published port");
        await sandbox(h1, "e", [binding]);
        await assert.rejects(
          h1.call("connect", id("e"), { networkId: bridge.id, name: "web2", aliases: [] }),
          /driver failed programming external connectivity on endpoint web2 \([0-9a-f]{64}\): Bind for 0\.0\.0\.0:8000 failed: port is already allocated/,
        );
        await h1.call("removeSandbox", id("e"));
        await sandbox(h1, "f", [{ ...binding, hostPort: 8080 }]);
        await assert.rejects(
          h1.call("connect", id("f"), { networkId: bridge.id, name: "web3", aliases: [] }),
          /8080 failed: port is already allocated/,
        );
        await h1.call("removeSandbox", id("d"));
        assert.notEqual((await lab.client(ask("10.98.0.1", 8000))).code, 0);
      },
    );

    await t.test("a sender of datagrams who was there before the container is answered", async () => {
      const bridge = (await h1.call<{ name: string; id: string }[]>("list")).find((n) => n.name === "bridge");
      const binding = { protocol: "udp", containerPort: 5353, hostIp: "", hostPort: 7000, hostPortEnd: 0 };
      // The second time the container is made anew at another address, and the sender has not rested.
      for (const letter of ["g", "h"]) {
        assert.doesNotMatch((await sender("10.98.0.1", 7000)).out, /10\.98/);
        await sandbox(h1, letter, [binding]);
        await h1.call("connect", id(letter), { networkId: bridge?.id, name: letter, aliases: [] });
        await h1.run(
          `setsid socat UDP-RECVFROM:5353,fork,reuseaddr SYSTEM:'echo ${letter} $SOCAT_PEERADDR' >/dev/null 2>&1 & echo $! >> ${h1.netnsDir}.pids`,
          pin(letter),
        );
        await eventually(async () => (await sender("10.98.0.1", 7000)).out.trim() === `${letter} 10.98.0.254`, 10_000);
        await h1.call("removeSandbox", id(letter));
      }
    });

    await t.test("in the end everything is as planned", async () => {
      for (const host of lab.hosts) assert.deepEqual(await host.call("reconcile"), [], host.name);
    });
  } finally {
    for (const host of lab.hosts) await host.run(`xargs -r kill < ${host.netnsDir}.pids`);
  }
});
