import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../../src/base/clock.ts";
import { createLogger } from "../../../src/base/log.ts";
import { type ConnectionTable, ConnectionTables } from "../../../src/network/connection-tables.ts";

test("a full connection table is told once, and once that it has room again", async () => {
  const clock = new VirtualClock();
  const lines: string[] = [];
  const log = createLogger((line) => lines.push(line));
  let tables: ConnectionTable[] = [];
  let refused = 7;
  const use = (owner: string, count: number): ConnectionTable => ({
    owner,
    count,
    max: 1000,
    losses: () => ({ refused, displaced: 0 }),
  });
  using watched = new ConnectionTables({ clock, log, read: () => tables });
  const at = async (...now: ConnectionTable[]) => {
    tables = now;
    await clock.advance(5_000);
    return watched
      .full()
      .map((table) => `${table.owner} ${table.count}${table.refused > 0 ? ` lost ${table.refused}` : ""}`);
  };
  assert.deepEqual(await at(use("this host", 899), use("the routing mesh", 0)), []);
  assert.deepEqual(await at(use("this host", 900)), ["this host 900"]);
  assert.deepEqual(await at(use("this host", 1000), use("container c", 950)), ["this host 1000", "container c 950"]);
  refused = 12;
  assert.deepEqual(
    await at(use("this host", 800)),
    ["this host 800 lost 5"],
    "not to and fro; a container that is gone is forgotten",
  );
  assert.deepEqual(await at(use("this host", 700)), []);
  const said = lines.map((line) => `${/level=(\w+)/.exec(line)?.[1]} ${/owner="?([\w ]+?)"? count/.exec(line)?.[1]}`);
  assert.deepEqual(said, ["warn this host", "warn container c", "warn this host", "info this host"]);
});
