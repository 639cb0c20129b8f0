import assert from "node:assert/strict";
import { test } from "node:test";
import { hostNames, labSpec, overlaps } from "../../../src/lab/spec.ts";

test("three hosts are a manager and two workers", () => {
  const spec = labSpec();
  assert.deepEqual(
    spec.hosts.map((host) => [host.name, host.address, host.netns, host.socket]),
    [
      ["manager", "10.77.0.11", "skein-manager", "/run/skein/lab/manager/docker.sock"],
      ["worker-1", "10.77.0.12", "skein-worker-1", "/run/skein/lab/worker-1/docker.sock"],
      ["worker-2", "10.77.0.13", "skein-worker-2", "/run/skein/lab/worker-2/docker.sock"],
    ],
  );
  assert.equal(spec.gateway, "10.77.0.1");
});

test("labs of different names share no name on the machine", () => {
  const names = (name: string) => {
    const spec = labSpec({ name });
    return [
      spec.bridge,
      spec.runDir,
      spec.stateDir,
      spec.cgroup,
      ...spec.hosts.flatMap((host) => [host.netns, host.port]),
    ];
  };
  const other = new Set(names("test"));
  assert.deepEqual(
    names("lab").filter((name) => other.has(name)),
    [],
  );
});

test("interface names fit the kernel's 15 characters", () => {
  const spec = labSpec({ name: "abcdefgh", hosts: hostNames(50) });
  for (const name of [spec.bridge, ...spec.hosts.map((host) => host.port)]) assert.ok(name.length <= 15, name);
});

test("host bits of a subnet are dropped", () => {
  assert.equal(labSpec({ subnet: "10.9.8.77/24" }).subnet, "10.9.8.0/24");
});

for (const [what, options] of [
  ["a name with a slash", { name: "../x" }],
  ["a subnet that is none", { subnet: "10.0.0.0" }],
  ["an IPv6 subnet", { subnet: "fd00::/64" }],
  ["a subnet too small", { subnet: "10.0.0.0/30" }],
] as const) {
  test(`refused: ${what}`, () => {
    assert.throws(() => labSpec(options), { code: "invalid" });
  });
}

test("several managers are numbered", () => {
  assert.deepEqual(hostNames(4, 3), ["manager-1", "manager-2", "manager-3", "worker-1"]);
  assert.throws(() => hostNames(2, 3), { code: "invalid" });
  assert.throws(() => hostNames(0), { code: "invalid" });
});

test("overlap of subnets", () => {
  assert.equal(overlaps("10.0.0.0/8", "10.77.0.0/24"), true);
  assert.equal(overlaps("10.77.0.128/25", "10.77.0.0/24"), true);
  assert.equal(overlaps("10.76.0.0/24", "10.77.0.0/24"), false);
});
