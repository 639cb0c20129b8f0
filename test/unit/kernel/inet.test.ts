import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBytes, macFromBytes, macToBytes, parseCidr, sockaddr, toBytes } from "../../../src/kernel/inet.ts";

test("addresses go to bytes and back in canonical form", () => {
  const cases: [string, string][] = [
    ["10.0.1.3", "10.0.1.3"],
    ["::", "::"],
    ["::1", "::1"],
    ["1::", "1::"],
    ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["fd00:0:0:1:0:0:0:5", "fd00:0:0:1::5"],
    ["1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"],
    ["::ffff:10.0.0.1", "::ffff:a00:1"],
    ["fe80::1%eth0", "fe80::1"],
  ];
  for (const [input, output] of cases) assert.equal(fromBytes(toBytes(input)), output);
});

test("what is no address is refused by name", () => {
  assert.throws(() => toBytes("10.0.0"), /"10.0.0" is no address/);
  assert.throws(() => macToBytes("02:42:0a"), /no MAC/);
});

test("MAC, CIDR and sockaddr", () => {
  assert.equal(macFromBytes(macToBytes("02:42:0A:0:1:3")), "02:42:0a:00:01:03");
  assert.deepEqual(parseCidr("10.0.0.0/24"), { address: "10.0.0.0", family: 4, prefix: 24 });
  assert.deepEqual(parseCidr("fd00::1"), { address: "fd00::1", family: 6, prefix: 128 });
  assert.equal(sockaddr("127.0.0.1", 53).toString("hex"), "020000357f0000010000000000000000");
});
