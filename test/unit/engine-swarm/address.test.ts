import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type HostInterface,
  resolveAdvertise,
  resolveDataPath,
  resolveInit,
  resolveJoin,
  resolveListen,
  sanitizeAddr,
} from "../../../src/engine/swarm/address.ts";
import { checkAddressPools, checkDataPathPort } from "../../../src/engine/swarm/pool.ts";

const lo: HostInterface = { name: "lo", kind: "", up: true, loopback: true, addresses: ["127.0.0.1", "::1"] };
const nic = (name: string, addresses: string[], kind = ""): HostInterface => ({
  name,
  kind,
  up: true,
  loopback: false,
  addresses,
});
const one = [lo, nic("eth0", ["10.0.0.5", "fd00::5", "fe80::1"])];

test("the only address is chosen, IPv4 before IPv6", () => {
  assert.deepEqual(resolveAdvertise(one, "", 2377), { host: "10.0.0.5", port: 2377 });
  assert.deepEqual(resolveAdvertise([lo, nic("eth0", ["fd00::5"])], "", 2377), { host: "fd00::5", port: 2377 });
});

test("no choice is Docker's error", () => {
  assert.throws(
    () => resolveAdvertise([nic("eth0", ["10.0.0.5", "10.0.0.6"])], "", 1),
    /^SkeinError: could not choose an IP address to advertise since this system has multiple addresses on interface eth0 \(10.0.0.5 and 10.0.0.6\) - specify one with --advertise-addr$/,
  );
  assert.throws(
    () => resolveAdvertise([nic("eth0", ["10.0.0.5"]), nic("eth1", ["10.1.0.6"])], "", 1),
    /has multiple addresses on different interfaces \(10.0.0.5 on eth0 and 10.1.0.6 on eth1\)/,
  );
  assert.throws(() => resolveAdvertise([lo], "", 1), /could not find the system's IP address/);
});

test("hardware goes before virtual devices; bridges of an engine never count", () => {
  const docker = nic("docker0", ["172.17.0.1"], "bridge");
  assert.equal(
    resolveAdvertise([lo, nic("eth0", ["10.0.0.5"]), docker, nic("veth1", ["10.9.9.9"], "veth")], "", 1).host,
    "10.0.0.5",
  );
  assert.equal(resolveAdvertise([lo, docker, nic("eth0", ["10.0.0.5"], "veth")], "", 1).host, "10.0.0.5");
});

test("advertise address as address, with port, or as interface", () => {
  assert.deepEqual(resolveAdvertise(one, "eth0", 5), { host: "10.0.0.5", port: 5 });
  assert.deepEqual(resolveAdvertise(one, "eth0:99", 5), { host: "10.0.0.5", port: 99 });
  assert.deepEqual(resolveAdvertise(one, "192.0.2.1:4000", 5), { host: "192.0.2.1", port: 4000 });
  assert.deepEqual(resolveAdvertise(one, "fd00::9", 5), { host: "fd00::9", port: 5 });
  assert.deepEqual(resolveAdvertise(one, "[fd00::9]:7", 5), { host: "fd00::9", port: 7 });
  for (const bad of ["0.0.0.0", "::", "nope", "nope:1"]) {
    assert.throws(
      () => resolveAdvertise(one, bad, 5),
      /advertise address must be a non-zero IP address or network interface/,
      bad,
    );
  }
  assert.throws(
    () => resolveAdvertise([nic("e", ["10.0.0.1", "10.0.0.2"])], "e", 5),
    /interface e has more than one IPv4 address \(10.0.0.1 and 10.0.0.2\)/,
  );
  assert.throws(() => resolveAdvertise([nic("e", [])], "e", 5), /interface e has no usable IPv4 or IPv6 address/);
});

test("listen and data path addresses", () => {
  assert.deepEqual(resolveListen(one, "0.0.0.0:1234"), { host: "0.0.0.0", port: 1234 });
  assert.deepEqual(resolveListen(one, "eth0"), { host: "10.0.0.5", port: 2377 });
  assert.throws(() => resolveListen(one, "bogus:1"), /listen address must be an IP address or network interface/);
  assert.equal(resolveDataPath(one, ""), "");
  assert.equal(resolveDataPath(one, "eth0"), "10.0.0.5");
  assert.throws(() => resolveDataPath(one, "10.0.0.5:1"), /data path address must be .* \(without a port number\)/);
});

test("sanitized addresses", () => {
  assert.deepEqual(sanitizeAddr("10.0.0.1", "x"), { host: "10.0.0.1", port: 2377 });
  assert.deepEqual(sanitizeAddr("tcp://10.0.0.1:1", "x"), { host: "10.0.0.1", port: 1 });
  assert.deepEqual(sanitizeAddr(":5", "x"), { host: "0.0.0.0", port: 5 });
  assert.deepEqual(sanitizeAddr("fd00::1", "x"), { host: "fd00::1", port: 2377 });
  assert.throws(() => sanitizeAddr("", "ListenAddr"), /invalid ListenAddr "": invalid empty address/);
  assert.throws(() => sanitizeAddr("a:99999", "x"), /invalid port/);
});

test("init and join together", () => {
  const request = { ListenAddr: "", AdvertiseAddr: "", DataPathAddr: "" };
  assert.deepEqual(resolveInit(one, request), {
    listenAddr: "0.0.0.0:2377",
    advertiseAddr: "10.0.0.5:2377",
    dataPathAddr: "",
  });
  assert.throws(
    () => resolveInit([nic("a", ["10.0.0.1", "10.0.0.2"])], { ...request, AdvertiseAddr: "192.0.2.9" }),
    /must specify a listening address because the address to advertise is not recognized/,
  );
  const join = resolveJoin(one, { ...request, RemoteAddrs: ["10.0.0.9"] });
  assert.deepEqual([join.advertiseAddr, join.remoteAddrs], ["", ["10.0.0.9:2377"]]);
  assert.throws(() => resolveJoin(one, { ...request, RemoteAddrs: [] }), /at least 1 RemoteAddr is required to join/);
});

test("pools and ports", () => {
  checkAddressPools([], 99);
  checkAddressPools(["10.0.0.0/8", "192.168.0.0/16"], 24);
  assert.throws(() => checkAddressPools(["junk"], 24), /invalid base pool junk/);
  assert.throws(() => checkAddressPools(["10.0.0.0/26"], 24), /Subnet size is too small for pool: 24/);
  assert.throws(() => checkAddressPools(["10.0.0.0/8", "10.5.0.0/16"], 24), /overlaps with "10.0.0.0\/8"/);
  assert.throws(() => checkAddressPools(["10.0.0.0/8"], 33), /out of range/);
  assert.equal(checkDataPathPort(0), 4789);
  for (const bad of [80, 1023, 49152]) assert.throws(() => checkDataPathPort(bad), /not in valid range \(1024-49151\)/);
});
