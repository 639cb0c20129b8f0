/** What `network create` for the swarm may not ask, in Docker's words. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type AskedPool, checkIpam } from "../../../src/engine/networks/ipam.ts";

const pool = (Subnet: string, more: Partial<AskedPool> = {}): AskedPool => ({
  Subnet,
  IPRange: "",
  Gateway: "",
  ...more,
});
const refused = (pools: AskedPool[], text: string, ipv6 = false) =>
  assert.throws(() => checkIpam(pools, ipv6), { message: `invalid network config:\n${text}`, code: "invalid" });

test("what is right passes: host bits, ranges, gateways, auxiliary addresses, both families", () => {
  checkIpam([], false);
  checkIpam([pool("")], false);
  checkIpam([pool("10.5.0.77/24", { IPRange: "10.5.0.128/25", Gateway: "10.5.0.254" })], false);
  checkIpam([pool("10.5.0.0/24"), pool("fd00:5::/64", { Gateway: "fd00:5::1", AuxAddress: { a: "fd00:5::9" } })], true);
});

test("what is wrong is named", () => {
  refused([pool("10.5.0.0")], "invalid subnet 10.5.0.0: invalid CIDR block notation");
  refused([pool("10.5.0.0/33")], "invalid subnet 10.5.0.0/33: invalid CIDR block notation");
  refused(
    [pool("10.5.0.0/24", { Gateway: "10.6.0.1" })],
    "invalid gateway 10.6.0.1: parent subnet 10.5.0.0/24 doesn't contain this address",
  );
  refused([pool("10.5.0.0/24", { Gateway: "fd00::1" })], "invalid gateway fd00::1: parent subnet is an IPv4 block");
  refused([pool("10.5.0.0/24", { Gateway: "me" })], "invalid gateway me: invalid address");
  refused(
    [pool("10.5.0.0/24", { IPRange: "10.5.0.0/16" })],
    "invalid ip-range 10.5.0.0/16: CIDR block is bigger than its parent subnet 10.5.0.0/24",
  );
  refused(
    [pool("10.5.0.0/24", { IPRange: "10.6.0.0/25" })],
    "invalid ip-range 10.6.0.0/25: parent subnet 10.5.0.0/24 doesn't contain ip-range",
  );
  refused(
    [pool("10.5.0.0/24", { AuxiliaryAddresses: { router: "10.6.0.9" } })],
    "invalid auxiliary address router: parent subnet 10.5.0.0/24 doesn't contain this address",
  );
  refused([pool("", { Gateway: "10.5.0.1" })], "an ip-range, gateway or auxiliary address needs its subnet");
  refused([pool("fd00:5::/64")], "invalid subnet fd00:5::/64: IPv6 is not enabled (--ipv6)");
  refused(
    [pool("10.5.0.0/24", { Gateway: "10.6.0.1", IPRange: "x" }), pool("y")],
    "* invalid ip-range x: invalid CIDR block notation\n" +
      "* invalid gateway 10.6.0.1: parent subnet 10.5.0.0/24 doesn't contain this address\n" +
      "* invalid subnet y: invalid CIDR block notation",
  );
});
