import assert from "node:assert/strict";
import { test } from "node:test";
import type { Neigh } from "../../../src/kernel/types.ts";
import { outdated } from "../../../src/network/neighbours.ts";

const entry = (address: string, mac: string, rest: Partial<Neigh> = {}): Neigh => ({
  link: 2,
  address,
  mac,
  permanent: false,
  state: "reachable",
  ...rest,
});

test("only what names another MAC than the known one is outdated, on its own device, and nothing that is there for good", () => {
  const known = new Map([
    ["10.0.0.5", "02:42:00:00:00:05"],
    ["fd00::5", "02:42:00:00:00:05"],
  ]);
  const stale = entry("10.0.0.5", "02:42:00:00:00:99", { state: "stale" });
  const stale6 = entry("fd00::5", "02:42:00:00:00:99");
  const right = [
    entry("10.0.0.5", "02:42:00:00:00:05"),
    entry("10.0.0.5", "02:42:00:00:00:99", { link: 3 }),
    entry("10.0.0.5", "02:42:00:00:00:99", { permanent: true }),
    entry("10.0.0.5", "", { state: "incomplete" }),
    entry("10.0.0.1", "02:42:00:00:00:01"),
  ];
  assert.deepEqual(outdated([...right, stale, stale6], 2, known), [stale, stale6]);
});
