import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../../src/base/clock.ts";
import { createLogger } from "../../../src/base/log.ts";
import { ConnectionTables, type TableUse } from "../../../src/network/connection-tables.ts";

test("a full connection table is told once, and once that it has room again", async () => {
  const clock = new VirtualClock();
  const lines: string[] = [];
  const log = createLogger((line) => lines.push(line));
  let tables: TableUse[] = [];
  const use = (owner: string, count: number): TableUse => ({ owner, count, max: 1000 });
  using watched = new ConnectionTables({ clock, log, read: () => tables });
  const at = async (...now: TableUse[]) => {
    tables = now;
    await clock.advance(5_000);
    return watched.full().map(({ owner, count }) => `${owner} ${count}`);
  };
  assert.deepEqual(await at(use("this host", 899), use("the routing mesh", 0)), []);
  assert.deepEqual(await at(use("this host", 900)), ["this host 900"]);
  assert.deepEqual(await at(use("this host", 1000), use("container c", 950)), ["this host 1000", "container c 950"]);
  assert.deepEqual(
    await at(use("this host", 800)),
    ["this host 800"],
    "not to and fro; a container that is gone is forgotten",
  );
  assert.deepEqual(await at(use("this host", 700)), []);
  const said = lines.map((line) => `${/level=(\w+)/.exec(line)?.[1]} ${/owner="?([\w ]+?)"? count/.exec(line)?.[1]}`);
  assert.deepEqual(said, ["warn this host", "warn container c", "info this host"]);
});
