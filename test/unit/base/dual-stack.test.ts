import assert from "node:assert/strict";
import { test } from "node:test";
import { dualStackOf, toIpv4, toIpv6 } from "../../../src/base/dual-stack.ts";

test("an address of one family tells that of the other", () => {
  const dual = dualStackOf([{ subnet: "10.0.1.0/24" }, { subnet: "fd00:1::/64" }]);
  assert.ok(dual);
  assert.equal(toIpv6(dual, "10.0.1.5/24"), "fd00:1::5");
  assert.equal(toIpv6(dual, "10.0.1.255"), "fd00:1::ff");
  assert.equal(toIpv6(dual, "10.0.2.5"), undefined);
  assert.equal(toIpv4(dual, "fd00:1::5/64"), "10.0.1.5");
  assert.equal(toIpv4(dual, "fd00:1::100"), undefined, "beyond the IPv4 subnet");
  assert.equal(toIpv4(dual, "fd00:2::5"), undefined);
  assert.equal(toIpv4(dual, "fd00::5"), undefined);
  assert.equal(toIpv4(dual, "10.0.1.5"), undefined);
  for (let n = 1; n < 255; n++) assert.equal(toIpv4(dual, toIpv6(dual, `10.0.1.${n}`) ?? ""), `10.0.1.${n}`);
});

test("a range moves the addresses, not the subnet", () => {
  const dual = dualStackOf([{ subnet: "fd00:1::/64", ipRange: "fd00:1::1:0/112" }, { subnet: "172.20.0.0/16" }]);
  assert.ok(dual);
  assert.equal(toIpv6(dual, "172.20.255.1"), "fd00:1::1:ff01");
  assert.equal(toIpv4(dual, "fd00:1::1:ff01"), "172.20.255.1");
  assert.equal(dual.v6.prefix, 64);
});

test("one family alone, and IPv6 without room, are no dual stack", () => {
  assert.equal(dualStackOf([{ subnet: "10.0.1.0/24" }]), undefined);
  assert.equal(dualStackOf([{ subnet: "fd00:1::/64" }]), undefined);
  assert.equal(dualStackOf([{ subnet: "10.0.0.0/16" }, { subnet: "fd00:1::/120" }]), undefined);
  assert.ok(dualStackOf([{ subnet: "10.0.1.0/24" }, { subnet: "fd00:1::/120" }]));
});
