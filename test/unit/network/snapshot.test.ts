import assert from "node:assert/strict";
import { test } from "node:test";
import type { Nft } from "../../../src/kernel/types.ts";
import type { LoadedTable } from "../../../src/network/reconcile/namespaces.ts";
import { intact } from "../../../src/network/reconcile/snapshot.ts";

/** A namespace with one table; `content` is what the kernel would list. */
function namespace(size: number) {
  const body = "x".repeat(size);
  const state = { content: "as loaded", listings: 0 };
  const loaded = new Map<string, LoadedTable>([
    ["ip skein-t", { body, fingerprint: undefined, looks: 0, suspect: false }],
  ]);
  const list = () => {
    state.listings++;
    return [state.content];
  };
  const nft: Pick<Nft, "list"> = { list };
  const open = { loaded, nft: nft as Nft };
  const check = (pass: boolean) => intact(open, "ip skein-t", pass) === body;
  const touch = () => {
    for (const table of loaded.values()) table.suspect = true;
  };
  return { state, check, touch };
}

test("a small table is listed whenever it is asked about", () => {
  const { state, check } = namespace(100);
  assert.ok(check(true));
  state.content = "changed";
  assert.ok(!check(false));
  assert.equal(state.listings, 2);
});

test("a large table is listed by the pass after somebody touched nftables, and else hardly ever", () => {
  const { state, check, touch } = namespace(60_000);
  assert.ok(check(true), "the first pass takes its fingerprint");
  for (let i = 0; i < 10; i++) assert.ok(check(true));
  assert.equal(state.listings, 1);
  state.content = "changed";
  touch();
  assert.ok(check(false), "not at once: somebody who adds to a set every second would make it list every second");
  assert.ok(!check(true), "but by the pass");
  assert.equal(state.listings, 2);
  state.content = "as loaded";
  for (let i = 0; i < 40; i++) assert.ok(check(true));
  assert.equal(state.listings, 4, "one pass of twenty looks all the same");
});
