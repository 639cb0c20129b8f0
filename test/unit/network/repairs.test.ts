import assert from "node:assert/strict";
import { test } from "node:test";
import { describe, type Step } from "../../../src/network/reconcile/diff.ts";
import { Repairs } from "../../../src/network/repairs.ts";

test("every step is counted under what it mends", () => {
  const route = { dst: "default", family: 4, link: "eth0" } as const;
  const rule = { family: 4, priority: 1, mark: 1, mask: 1, table: 7 } as const;
  const neigh = { link: "vxlan0", address: "10.0.1.5", mac: "02:42:00:00:00:05" };
  const fdb = { link: "vxlan0", mac: "02:42:00:00:00:05", dst: "192.0.2.2" };
  const table = { family: "ip", name: "skein-t", body: "" } as const;
  const steps: Record<string, Step[]> = {
    sysctl: [{ do: "set sysctl", path: "net.x", value: "1", was: undefined }],
    table: [
      { do: "load table", table, had: undefined },
      { do: "load table", table, had: "" },
      { do: "delete table", family: "ip", name: "skein-link" },
    ],
    link: [
      { do: "delete link", name: "table", index: 3 },
      { do: "change link", name: "br0", change: { mtu: 1400 } },
      { do: "await inner", name: "eth0" },
    ],
    address: [{ do: "add address", link: "br0", address: "10.0.1.1", prefix: 24 }],
    route: [{ do: "set route", ...route }],
    rule: [{ do: "add rule", ...rule }],
    neighbour: [{ do: "set neighbour", ...neigh }],
    fdb: [
      { do: "set fdb", ...fdb },
      { do: "delete fdb", ...fdb },
    ],
  };
  const repairs = new Repairs();
  for (const list of Object.values(steps)) repairs.add("host", list.map(describe), 5);
  repairs.add("overlay/n", ["pin the namespace"], 7);
  const expected = Object.fromEntries(Object.entries(steps).map(([kind, list]) => [kind, list.length]));
  assert.deepEqual(repairs.counts(), { ...expected, namespace: 1 });
  assert.equal(repairs.total, 14);
  assert.equal(repairs.recent().length, 14);
  assert.deepEqual(repairs.recent().at(-1), { at: 7, namespace: "overlay/n", difference: "pin the namespace" });
});

test("only the last repairs are remembered, all are counted", () => {
  const repairs = new Repairs();
  for (let i = 0; i < 500; i++) repairs.add("host", [`set sysctl net.x = ${i} (was 0)`], i);
  assert.equal(repairs.total, 500);
  assert.equal(repairs.recent().length, 200);
  assert.equal(repairs.recent().at(-1)?.at, 499);
});
