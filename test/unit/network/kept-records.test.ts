import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { type HeardRecord, KeptRecords } from "../../../src/network/overlay/kept-records.ts";
import type { KeptRecord } from "../../../src/network/store.ts";

const record = (key: string): HeardRecord => ({
  table: "endpoint_table",
  key,
  value: Buffer.from([1, 2, 255]),
  owner: "a",
  ownerAddress: "192.0.2.1",
});

function setUp() {
  const clock = new VirtualClock();
  const files = new Map<string, readonly KeptRecord[]>();
  const heard = new Map<string, HeardRecord[]>([["net", [record("one")]]]);
  let writes = 0;
  const kept = new KeptRecords({
    clock,
    log: nullLogger,
    heard: (networkId) => heard.get(networkId) ?? [],
    store: {
      records: (networkId) => [...(files.get(networkId) ?? [])],
      saveRecords: (networkId, records) => {
        writes++;
        files.set(networkId, records);
      },
      deleteRecords: (networkId) => files.delete(networkId),
    },
  });
  return { clock, files, heard, kept, writes: () => writes };
}

test("a burst of changes is written down once, and read back as it was heard", () => {
  const { clock, heard, kept, writes } = setUp();
  for (let i = 0; i < 50; i++) {
    heard.set("net", [record("one"), record(`two ${i}`)]);
    kept.changed("net");
    clock.advance(10);
  }
  clock.advance(600);
  assert.equal(writes(), 1);
  assert.deepEqual(kept.read("net"), [record("one"), record("two 49")]);
});

test("an orderly stop writes down what waits, and nothing is written after it", () => {
  const { clock, kept, writes } = setUp();
  kept.changed("net");
  kept.flush();
  assert.deepEqual(kept.read("net"), [record("one")]);
  clock.advance(10_000);
  assert.equal(writes(), 1);
});

test("of a network that this node left nothing stays, be it due or not", () => {
  const { clock, files, kept } = setUp();
  kept.changed("net");
  kept.flush();
  kept.changed("net");
  kept.forget("net");
  clock.advance(10_000);
  assert.equal(files.size, 0);
  kept.changed("net");
  kept.changed("other");
  kept.forgetAll(["net"]);
  clock.advance(10_000);
  assert.equal(files.size, 0);
});

test("beyond what is worth it nothing is kept, rather than a part", () => {
  const { files, heard, kept } = setUp();
  kept.changed("net");
  kept.flush();
  heard.set("net", new Array(20_001).fill(record("one")));
  kept.changed("net");
  kept.flush();
  assert.equal(files.size, 0);
});
