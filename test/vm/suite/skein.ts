/**
 * Three hosts of Skein on Debian's own kernel, each with what users' hosts have and this repository's machines may not:
 * a firewall that forwards nothing and lets in only the swarm's ports (as ufw does), strict reverse path filters,
 * br_netfilter switched on, and a kernel with VLANs and ipvlan.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { eventually as soon, TestLab } from "../../support/lab.ts";

const hosts = ["manager", "worker-1", "worker-2"] as const;
type Host = (typeof hosts)[number];
const quick = ["--detach", "--no-resolve-image", "--stop-signal", "SIGKILL", "--stop-grace-period", "1s"];
const eventually: typeof soon = (what, attempt, ms = 120_000) => soon(what, attempt, ms);

let lab: TestLab;

/** As ufw leaves a host on which it was enabled and the swarm's ports allowed. */
const firewall = `set -e
for tables in iptables ip6tables; do
  $tables -A INPUT -i lo -j ACCEPT
  $tables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
  $tables -A INPUT -p tcp -m multiport --dports 22,2377,7946 -j ACCEPT
  $tables -A INPUT -p udp -m multiport --dports 7946,4789 -j ACCEPT
  $tables -P INPUT DROP
  $tables -P FORWARD DROP
done
iptables -A INPUT -p icmp -j ACCEPT
ip6tables -A INPUT -p ipv6-icmp -j ACCEPT
for name in all default eth0; do echo 1 >/proc/sys/net/ipv4/conf/$name/rp_filter; done
`;

before(async () => {
  lab = await TestLab.up("vms", "10.180.0.0/24");
  for (const host of hosts) {
    const { code, stderr } = await lab.in(host, "sh", "-c", firewall);
    assert.equal(code, 0, stderr);
  }
  await lab.swarm();
});
after(async () => {
  await lab?.[Symbol.asyncDispose]();
});

const docker = (...args: string[]) => lab.ok("manager", ...args);
const sh = (host: Host, container: string, line: string) => lab.ok(host, "exec", container, "sh", "-c", line);
const page = "/cgi-bin/index.cgi";

interface Greeting {
  readonly task: string;
  readonly client: string;
}

function greetingIn(text: string): Greeting | undefined {
  const [, task = "", client = ""] = /^Hello from (\S+)\nclient \[?(?:::ffff:)?([\da-f.:]+)/.exec(text) ?? [];
  return task ? { task, client } : undefined;
}

/** From this machine, which is nobody's host. */
const outside = (address: string, port: number): Promise<Greeting | undefined> =>
  fetch(`http://${address}:${port}${page}`, { signal: AbortSignal.timeout(5_000), headers: { connection: "close" } })
    .then((response) => response.text())
    .then(greetingIn)
    .catch(() => undefined);

const curl = ["curl", "-sg", "-m", "5"];
const onHost = async (host: Host, url: string) => greetingIn((await lab.in(host, ...curl, url + page)).stdout);
const inBox = async (host: Host, box: string, url: string) =>
  greetingIn((await lab.try(host, "exec", box, ...curl, url + page)).stdout);

/** Which tasks answer, asked until as many have as are expected. */
async function answering(what: string, count: number, ask: () => Promise<Greeting | undefined>): Promise<Greeting[]> {
  const found = new Map<string, Greeting>();
  await eventually(`${count} answer ${what}`, async () => {
    const one = await ask();
    if (one) found.set(one.task, one);
    return found.size === count;
  }).catch((error: Error) => assert.fail(`${error.message}; did answer: ${JSON.stringify([...found.values()])}`));
  return [...found.values()];
}

const running = (service: string, count: number) =>
  eventually(`${count} tasks of ${service} run`, async () => {
    const states = await docker(
      "service",
      "ps",
      "--filter",
      "desired-state=running",
      "--format",
      "{{.CurrentState}}",
      service,
    );
    return states.split("\n").filter((state) => state.startsWith("Running")).length === count;
  });

test("bridged frames are not filtered as if they were routed, and `docker info` has no warnings", async () => {
  for (const host of hosts) {
    const { stdout } = await lab.in(host, "cat", "/proc/sys/net/bridge/bridge-nf-call-iptables");
    assert.equal(stdout.trim(), "0", host);
    assert.match(await lab.ok(host, "info", "-f", "{{.Plugins.Network}}"), /bridge.*ipvlan.*macvlan.*overlay/);
  }
});

test("a bridge network: the way out, neighbours, published ports from everywhere, in spite of FORWARD DROP", async () => {
  await docker("network", "create", "--ipv6", "--subnet", "10.181.0.0/24", "--subnet", "fd81::/64", "own");
  await docker("run", "-d", "--name", "b1", "--network", "own", "-p", "8001:80", "skein/hello");
  await docker("run", "-d", "--name", "b2", "--network", "own", "skein/box", "sleep", "1000000");
  await docker("run", "-d", "--name", "b3", "skein/box", "sleep", "1000000");
  const { gateway } = lab.lab.spec;
  const own = lab.host("manager").address;
  const ways = {
    "to a neighbour": await inBox("manager", "b2", "http://b1"),
    "from outside": await outside(own, 8001),
    "from another host": await onHost("worker-1", `http://${own}:8001`),
    "from the host": await onHost("manager", "http://127.0.0.1:8001"),
    "from the host over IPv6": await onHost("manager", "http://[::1]:8001"),
    hairpin: await inBox("manager", "b2", `http://${own}:8001`),
    "from another network": await inBox("manager", "b3", `http://${own}:8001`),
  };
  for (const [way, answer] of Object.entries(ways)) assert.ok(answer, way);
  assert.equal(ways["from outside"]?.client, gateway);
  for (const box of ["b2", "b3"]) {
    assert.match(await sh("manager", box, `ping -c1 -W5 ${gateway}`), / 0% packet loss/, `${box} to the outside`);
  }
  // What is not published stays shut.
  const address = await docker("inspect", "-f", "{{.NetworkSettings.Networks.own.IPAddress}}", "b1");
  assert.equal(await inBox("manager", "b3", `http://${address}`), undefined);
  await docker("rm", "-f", "b1", "b2", "b3");
  await docker("network", "rm", "own");
});

test("an overlay: names, ping, the virtual address over all hosts, the caller's own address", async () => {
  await docker("network", "create", "-d", "overlay", "--attachable", "side");
  for (const host of hosts) {
    await lab.ok(host, "run", "-d", "--name", `box-${host}`, "--network", "side", "skein/box", "sleep", "1000000");
  }
  const task = ["--mode", "global", "--hostname", "{{.Service.Name}}-{{.Node.Hostname}}", "--network", "side"];
  await docker("service", "create", ...quick, "--name", "web", ...task, "--publish", "8080:80", "skein/hello");
  await docker("service", "create", ...quick, "--name", "rr", ...task, "--endpoint-mode", "dnsrr", "skein/hello");
  await docker(
    "service",
    "create",
    ...quick,
    "--name",
    "near",
    ...task,
    "--publish",
    "mode=host,published=8090,target=80",
    "skein/hello",
  );
  for (const service of ["web", "rr", "near"]) await running(service, 3);
  for (const host of hosts) {
    const box = `box-${host}`;
    for (const other of hosts) {
      await eventually(`${box} pings ${other}`, async () =>
        / 0% packet loss/.test((await lab.try(host, "exec", box, "ping", "-c1", "-W2", `box-${other}`)).stdout),
      );
    }
    const own = await lab.ok(host, "inspect", "-f", "{{.NetworkSettings.Networks.side.IPAddress}}", box);
    for (const service of ["web", "rr", "tasks.web"]) {
      const answers = await answering(`${service} in ${box}`, 3, () => inBox(host, box, `http://${service}`));
      assert.deepEqual([...new Set(answers.map(({ client }) => client))], [own], service);
    }
  }
});

test("the routing mesh on every host: all tasks, the client's own address, localhost; host mode leads to the host's own", async () => {
  const { gateway } = lab.lab.spec;
  for (const host of hosts) {
    const { address } = lab.host(host);
    const answers = await answering(`the mesh by ${host}`, 3, () => outside(address, 8080));
    assert.deepEqual([...new Set(answers.map(({ client }) => client))], [gateway], host);
    for (const url of ["http://127.0.0.1:8080", "http://[::1]:8080", `http://${address}:8080`]) {
      await answering(`${url} on ${host}`, 3, () => onHost(host, url));
    }
    assert.deepEqual(await outside(address, 8090), { task: `near-${host}`, client: gateway });
  }
});

test("docker_gwbridge and ingress look as they do on Docker's hosts", async () => {
  for (const host of hosts) {
    const [bridge] = JSON.parse(await lab.ok(host, "network", "inspect", "docker_gwbridge"));
    assert.deepEqual(bridge.Options, {
      "com.docker.network.bridge.enable_icc": "false",
      "com.docker.network.bridge.enable_ip_masquerade": "true",
      "com.docker.network.bridge.name": "docker_gwbridge",
    });
    assert.equal(bridge.Containers["ingress-sbox"].Name, "gateway_ingress-sbox");
    assert.match(await sh(host, `box-${host}`, `ping -c1 -W5 ${lab.lab.spec.gateway}`), / 0% packet loss/);
  }
});

test("services follow: scaled, updated, drained, gone", async () => {
  await docker(
    "service",
    "create",
    ...quick,
    "--name",
    "few",
    "--replicas",
    "1",
    "--network",
    "side",
    "--publish",
    "8070:80",
    "skein/hello",
  );
  await running("few", 1);
  const ask = () => outside(lab.host("worker-2").address, 8070);
  const before = await answering("few", 1, ask);
  await docker("service", "scale", "-d", "few=3");
  await running("few", 3);
  await answering("few", 3, ask);
  await docker("service", "update", "-d", "-q", "--no-resolve-image", "--force", "--update-parallelism", "0", "few");
  await eventually("others answer", async () => {
    const one = await ask();
    return one && one.task !== before[0]?.task;
  });
  await docker("service", "rm", "few");
  await eventually("nobody answers", async () => (await ask()) === undefined);
});

test("the firewall is still iptables' own to read, and loaded anew it lets pass again", async () => {
  const rules = async () => {
    const { code, stdout } = await lab.in("manager", "iptables", "-S", "FORWARD");
    assert.equal(code, 0);
    return stdout.split("\n").filter((rule) => rule.includes("-m comment --comment skeind -j ACCEPT"));
  };
  const devices = (await rules()).map((rule) => rule.split(" ").slice(2, 4).join(" "));
  for (const one of ["-i docker0", "-o docker0", "-i docker_gwbridge", "-o docker_gwbridge"]) {
    assert.ok(devices.includes(one), `${one} in ${devices}`);
  }
  await lab.in("manager", "iptables", "-F", "FORWARD");
  await eventually("the rules are back", async () => (await rules()).length === devices.length);
  await answering("the mesh", 3, () => outside(lab.host("manager").address, 8080));
});
