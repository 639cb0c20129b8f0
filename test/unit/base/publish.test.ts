import assert from "node:assert/strict";
import { test } from "node:test";
import {
  hasPublishLabels,
  hostAddresses,
  publishLabels,
  publishOptions,
  publishProblem,
  subnetsOf,
} from "../../../src/base/publish.ts";

const tcp = (publishedPort: number) => ({ protocol: "tcp", publishedPort, mode: "ingress" }) as const;
const udp = (publishedPort: number) => ({ protocol: "udp", publishedPort, mode: "ingress" }) as const;

test("without labels a port is published everywhere", () => {
  assert.deepEqual(publishOptions({ other: "x", "skein.publisher": "y" }, tcp(80)), {});
  assert.equal(hasPublishLabels({ "skein.publisher": "y" }), false);
});

test("addresses and subnets, for all ports or one; the more precise label goes first", () => {
  const labels = {
    "skein.publish.address": "127.0.0.1, 10.1.2.3/16",
    "skein.publish.53/udp.address": "fd00::5",
    "skein.publish.53.address": "0.0.0.0",
    "skein.publish.53.policy": "local",
  };
  assert.deepEqual(publishOptions(labels, tcp(80)), { bound: ["127.0.0.1/32", "10.1.0.0/16"] });
  assert.deepEqual(publishOptions(labels, tcp(53)), { bound: ["0.0.0.0/0"], local: true });
  assert.deepEqual(publishOptions(labels, udp(53)), { bound: ["fd00::5/128"], local: true });
  assert.deepEqual(hostAddresses(["127.0.0.1/32", "0.0.0.0/0", "::1/128"]), ["127.0.0.1", "0.0.0.0", "::1"]);
});

test("one port may be excepted from what all ports are", () => {
  const labels = { "skein.publish.policy": "local", "skein.publish.80.policy": "mesh", "skein.publish.proxy": "v2" };
  assert.deepEqual(publishOptions(labels, tcp(80)), { proxy: true });
  assert.deepEqual(publishOptions(labels, tcp(81)), { local: true, proxy: true });
});

test("a label that cannot be understood closes every port", () => {
  const wrong: Record<string, string>[] = [
    { "skein.publish.adress": "127.0.0.1" },
    { "skein.publish.address": "localhost" },
    { "skein.publish.address": "" },
    { "skein.publish.address": "127.0.0.1,," },
    { "skein.publish.81.policy": "here" },
    { "skein.publish.0.address": "127.0.0.1" },
  ];
  for (const labels of wrong) {
    assert.deepEqual(publishOptions(labels, tcp(80)), { bound: [] }, JSON.stringify(labels));
    assert.match(publishProblem(labels, [tcp(80), tcp(81)]) ?? "", /^invalid (label|value)/, JSON.stringify(labels));
  }
});

test("labels that would do nothing, or what cannot be, are refused by name", () => {
  const problem = (labels: Record<string, string>, ...ports: Parameters<typeof publishProblem>[1][number][]) =>
    publishProblem(labels, ports) ?? "";
  assert.equal(problem({ "skein.publish.address": "127.0.0.1", "skein.publish.80.policy": "local" }, tcp(80)), "");
  assert.match(problem({ "skein.publish.81.policy": "local" }, tcp(80)), /does not publish port 81/);
  assert.match(problem({ "skein.publish.80/udp.policy": "local" }, tcp(80)), /does not publish port 80/);
  assert.match(problem({ "skein.publish.proxy": "v2" }, tcp(80), udp(80)), /PROXY protocol is for TCP/);
  assert.equal(problem({ "skein.publish.80/tcp.proxy": "v2" }, tcp(80), udp(80)), "");
  assert.match(problem({ "skein.publish.proxy": "v2" }, { ...tcp(80), mode: "host" }), /in mode host/);
  assert.match(problem({ "skein.publish.address": "10.0.0.0/8" }, { ...tcp(80), mode: "host" }), /not subnets/);
  assert.equal(problem({ "skein.publish.address": "::,10.0.0.1" }, { ...tcp(80), mode: "host" }), "");
  assert.match(problem({ "skein.publish.address": "::1" }, { ...tcp(80), protocol: "sctp" }), /SCTP/);
});

test("subnets within others are left out: the kernel's sets know no overlaps", () => {
  const bound = ["10.1.0.0/16", "10.0.0.0/8", "fd00::/64", "10.1.2.3/32", "127.0.0.1/32", "127.0.0.1/32"];
  assert.deepEqual(subnetsOf(bound, 4), ["10.0.0.0/8", "127.0.0.1/32"]);
  assert.deepEqual(subnetsOf(bound, 6), ["fd00::/64"]);
});

test("only what concerns tasks counts as a change of them", () => {
  const labels = { b: "1", "skein.publish.policy": "local", "skein.publish.address": "::1" };
  assert.deepEqual(publishLabels(labels), [
    ["skein.publish.address", "::1"],
    ["skein.publish.policy", "local"],
  ]);
});
