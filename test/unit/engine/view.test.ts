import assert from "node:assert/strict";
import { test } from "node:test";
import type { StatusView } from "../../../src/engine/view/types.ts";
import { warningsOf } from "../../../src/engine/view/warnings.ts";
import { testHost } from "./fakes.ts";

const well: Omit<StatusView, "warnings"> = {
  host: {
    name: "h",
    version: "1",
    kernel: "6",
    startedAt: "2026-01-01T00:00:00.000Z",
    containers: { running: 0, total: 0 },
  },
  swarm: {
    state: "active",
    role: "leader",
    nodeId: "n",
    address: "192.0.2.1",
    dataPath: "192.0.2.1:4789",
    error: "",
    managers: [],
  },
  networks: { overlay: 0, local: 3, endpoints: 0 },
  kernel: { namespaces: 1, differences: [], repairs: { total: 0, byKind: {} } },
  paths: [{ host: "192.0.2.2", mtu: 1500, expected: 1500 }],
};
const node = {
  id: "n2",
  hostname: "worker-1",
  address: "192.0.2.2",
  role: "worker",
  state: "ready",
  availability: "active",
  engine: "1",
} as const;
const quiet: NonNullable<Parameters<typeof warningsOf>[1]> = {
  members: [],
  dropped: {},
  counters: {},
  keys: [{}],
  health: 0,
};
const member = (address: string, state: string) => ({ address, state, sinceMs: 1 });

test("a host that is well has no warnings", () => {
  assert.deepEqual(warningsOf(well, quiet), []);
  assert.deepEqual(warningsOf({ ...well, swarm: { ...well.swarm, state: "inactive" } }, undefined), []);
  assert.deepEqual(
    warningsOf({ ...well, swarm: { ...well.swarm, nodes: [{ ...node, role: "leader" }, node] } }, quiet),
    [],
  );
});

test("each thing that deserves a look is told in words", () => {
  const nodes = [
    { ...node, role: "leader" },
    { ...node, role: "manager", reachable: false },
    { ...node, state: "down" },
    { ...node, availability: "drain" },
  ] as const;
  const cases: [RegExp, Omit<StatusView, "warnings">, typeof quiet | undefined][] = [
    [/^swarm: no quorum$/, { ...well, swarm: { ...well.swarm, error: "no quorum" } }, quiet],
    [/part in the swarm is locked/, { ...well, swarm: { ...well.swarm, state: "locked" } }, quiet],
    [/manager worker-1 \(192.0.2.2\) is not reachable/, { ...well, swarm: { ...well.swarm, nodes } }, quiet],
    [/node worker-1 \(192.0.2.2\) is down/, { ...well, swarm: { ...well.swarm, nodes } }, quiet],
    [/node worker-1 is set to drain/, { ...well, swarm: { ...well.swarm, nodes } }, quiet],
    [/2 managers bear no more failures than 1/, { ...well, swarm: { ...well.swarm, nodes } }, quiet],
    [/waits for its keys/, well, { ...quiet, keys: [] }],
    [/192.0.2.9 does not answer gossip/, well, { ...quiet, members: [member("192.0.2.9", "suspect")] }],
    [/given 192.0.2.9 up/, well, { ...quiet, members: [member("192.0.2.9", "dead")] }],
    [/gossip health 3/, well, { ...quiet, health: 3 }],
    [/is UDP blocked/, well, { ...quiet, counters: { udpBlocked: 1 } }],
    [/4 packets could not be decrypted/, well, { ...quiet, dropped: { undecryptable: 4 } }],
    [/192.0.2.3 answers no echo/, { ...well, paths: [{ host: "192.0.2.3", mtu: null, expected: 1500 }] }, quiet],
    [/more than 1400 bytes/, { ...well, paths: [{ host: "192.0.2.3", mtu: 1400, expected: 1500 }] }, quiet],
    [
      /overlay\/x is not as planned: set fdb a/,
      { ...well, kernel: { ...well.kernel, differences: [{ namespace: "overlay/x", differences: ["set fdb a"] }] } },
      quiet,
    ],
  ];
  for (const [expected, status, gossip] of cases) {
    const found = warningsOf(status, gossip);
    assert.ok(
      found.some((text) => expected.test(text)),
      `${expected} in ${JSON.stringify(found)}`,
    );
  }
});

test("a daemon that was restarted is not mourned under its former name", () => {
  const members = [member("192.0.2.9", "dead"), member("192.0.2.9", "alive")];
  assert.deepEqual(warningsOf(well, { ...quiet, members }), []);
});

test("a host that is in no swarm: a status, no gossip, nothing published, and words for what is not there", async () => {
  await using host = await testHost();
  const { views } = host.engine;
  const status = await views.status();
  assert.deepEqual([status.swarm.state, status.swarm.role, status.gossip], ["inactive", "none", undefined]);
  assert.deepEqual(status.warnings, []);
  assert.throws(() => views.gossip(), /in no swarm/);
  assert.throws(() => views.service("web"), /no network of this node tells of a service web/);
  await assert.rejects(views.network("nix"), /network nix not found/);
  assert.deepEqual(views.ports("8080"), []);
  for (const bad of ["0", "65536", "http", "80/icmp", "80/", "-1", "8080x"]) {
    assert.throws(() => views.ports(bad), /invalid port/, bad);
  }
});
