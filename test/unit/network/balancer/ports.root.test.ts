/** Published ports with real packets: a client, a host with two bridges, a container on each. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openNft } from "../../../../src/kernel/nft.ts";
import { openRtnl } from "../../../../src/kernel/rtnl.ts";
import { bindHostPort } from "../../../../src/kernel/socket.ts";
import { writeSysctl } from "../../../../src/kernel/sysctl.ts";
import { portsTable } from "../../../../src/network/balancer/ports.ts";
import type { HostPort } from "../../../../src/network/balancer/types.ts";
import { isUserChainWhole, userChainScript } from "../../../../src/network/balancer/user.ts";
import { replaceScript } from "../../../../src/network/plan/table.ts";
import { askTcp, askUdp, Lab } from "./wires.ts";

const ports: HostPort[] = (["tcp", "udp"] as const).flatMap((protocol) => [
  { protocol, hostIp: "", hostPort: 8080, address: "172.20.0.2", containerPort: 80 },
  { protocol, hostIp: "", hostPort: 8080, address: "fd20::2", containerPort: 80 },
  { protocol, hostIp: "192.168.60.1", hostPort: 8081, address: "172.20.0.2", containerPort: 80 },
  { protocol, hostIp: "127.0.0.1", hostPort: 8082, address: "172.20.0.2", containerPort: 80 },
  { protocol, hostIp: "192.168.60.2", hostPort: 8080, address: "172.21.0.2", containerPort: 80 },
]);

async function build(lab: Lab) {
  const lan = lab.namespace();
  lab.bridge(lan, "br0");
  const client = lab.namespace();
  lab.plug(client, "eth0", ["192.168.60.100/24", "fd60::100/64"], lan, "br0");
  const host = lab.namespace({ "net.ipv6.conf.all.forwarding": "1" });
  lab.plug(host, "eth0", ["192.168.60.1/24", "192.168.60.2/24", "fd60::1/64"], lan, "br0");
  lab.bridge(host, "br-one", "172.20.0.1/16", "fd20::1/64");
  lab.bridge(host, "br-two", "172.21.0.1/16");
  for (const name of ["br-one", "br-two"]) writeSysctl(`net.ipv4.conf.${name}.route_localnet`, "1", host);
  const one = lab.namespace();
  lab.plug(one, "eth0", ["172.20.0.2/16", "fd20::2/64"], host, "br-one");
  lab.route(one, "172.20.0.1");
  lab.route(one, "fd20::1");
  const two = lab.namespace();
  lab.plug(two, "eth0", ["172.21.0.2/16"], host, "br-two");
  lab.route(two, "172.21.0.1");
  for (const [ns, name] of [
    [one, "one"],
    [two, "two"],
  ] as const) {
    await lab.serve(ns, 80, name);
  }
  await lab.serve(one, 80, "six", "::");
  const state = {
    bridges: [
      { name: "br-one", subnets: ["172.20.0.0/16", "fd20::/64"] },
      { name: "br-two", subnets: ["172.21.0.0/16"] },
    ],
    ports,
  };
  lab.nft(host, replaceScript(portsTable(state)));
  return { client, host, one, two };
}

test("a port is where it was published, for both protocols and families, with the client's own address", async () => {
  await using lab = new Lab();
  const { client } = await build(lab);
  for (const ask of [askTcp, askUdp]) {
    assert.equal(await ask(client, "192.168.60.1", 8080), "one 192.168.60.100");
    assert.equal(await ask(client, "192.168.60.1", 8081), "one 192.168.60.100");
    assert.equal(await ask(client, "192.168.60.2", 8080), "two 192.168.60.100", "the bound address goes first");
    assert.equal(await ask(client, "fd60::1", 8080), "six fd60::100");
    assert.equal(await ask(client, "192.168.60.2", 8081), "ECONNREFUSED");
  }
});

test("local programs reach it at every address, containers by the host's, and their own port too", async () => {
  await using lab = new Lab();
  const { host, one, two } = await build(lab);
  for (const ask of [askTcp, askUdp]) {
    assert.equal(await ask(host, "127.0.0.1", 8080), "one 172.20.0.1");
    assert.equal(await ask(host, "127.0.0.1", 8082), "one 172.20.0.1");
    assert.equal(await ask(host, "192.168.60.1", 8080), "one 192.168.60.1");
    assert.equal(await ask(two, "192.168.60.1", 8080), "one 172.21.0.2");
    assert.equal(await ask(one, "192.168.60.1", 8080), "one 172.20.0.1");
    assert.equal(await ask(one, "172.20.0.1", 8080), "one 172.20.0.1");
  }
  using _kept = bindHostPort("tcp", "", 8080, host);
  assert.equal(await askTcp(host, "::1", 8080), "ECONNREFUSED", "localhost goes on to 127.0.0.1");
});

test("a port of 127.0.0.1 is not to be had from outside, whatever the packets say", async () => {
  await using lab = new Lab();
  const { client } = await build(lab);
  assert.equal(await askTcp(client, "192.168.60.1", 8082), "ECONNREFUSED");
  using rtnl = openRtnl(client);
  rtnl.delAddr(1, "127.0.0.1", 8);
  writeSysctl("net.ipv4.conf.eth0.route_localnet", "1", client);
  rtnl.setRoute({ dst: "127.0.0.1/32", gateway: "192.168.60.1" });
  assert.equal(await askUdp(client, "127.0.0.1", 8082), "timeout");
  assert.equal(await askUdp(client, "127.0.0.1", 8080), "timeout");
});

test("the operator's chain goes first and outlives every reload", async () => {
  await using lab = new Lab();
  const { client, host } = await build(lab);
  using nft = openNft(host);
  nft.run(userChainScript());
  nft.run("add rule inet operator skein-user ip saddr 192.168.60.100 tcp dport 80 drop");
  nft.run(userChainScript());
  assert.equal(await askTcp(client, "192.168.60.1", 8080), "timeout");
  assert.equal(await askUdp(client, "192.168.60.1", 8080), "one 192.168.60.100");
});

test("ports that the daemon relays do not go round the operator's chain; what is missing of it is seen", async () => {
  await using lab = new Lab();
  const { client, host } = await build(lab);
  await lab.serve(host, 9000, "host", "::");
  await lab.serve(host, 9001, "host", "::");
  using nft = openNft(host);
  nft.run(userChainScript([{ protocol: "tcp", port: 9000 }]));
  nft.run("add rule inet operator skein-user ip6 saddr fd60::100 drop");
  assert.equal(await askTcp(client, "fd60::1", 9000), "timeout");
  assert.equal(await askTcp(client, "fd60::1", 9001), "host fd60::100", "other programs of the host are their own");
  nft.run(userChainScript([]));
  assert.equal(await askTcp(client, "fd60::1", 9000), "host fd60::100");
  const whole = () => isUserChainWhole(nft.list("table inet operator"));
  assert.ok(whole());
  nft.run("flush chain inet operator input");
  assert.ok(!whole());
  nft.run(userChainScript([]));
  assert.ok(whole());
  nft.run("delete table inet operator");
  assert.ok(!whole());
});
