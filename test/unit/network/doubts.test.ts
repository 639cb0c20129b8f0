import assert from "node:assert/strict";
import { test } from "node:test";
import { VirtualClock } from "../../../src/base/clock.ts";
import type { TableEvent } from "../../../src/gossip/types.ts";
import { Doors } from "../../../src/network/overlay/doors.ts";
import { Doubts } from "../../../src/network/overlay/doubts.ts";
import { encodeDoor } from "../../../src/network/overlay/mesh.ts";
import { encodePeer, peerTable } from "../../../src/network/overlay/records.ts";
import { NetworkTables } from "../../../src/network/overlay/tables.ts";
import type { EndpointState } from "../../../src/network/state.ts";

const endpoint = { ipv4: "10.0.1.5/24", mac: "02:42:0a:00:01:05" } as EndpointState;
const host = "192.0.2.2";
const event = (kind: "create" | "delete", owner = "old"): TableEvent => ({
  kind,
  table: peerTable,
  networkId: "net",
  key: "endpoint",
  value: encodePeer(endpoint, host),
  owner,
  ownerAddress: host,
  local: false,
});

/** This node ("self") and what it knows of one endpoint of the node "old" at `host`. */
function setUp() {
  const clock = new VirtualClock();
  const tables = new NetworkTables();
  const doors = new Doors();
  const peers = [{ name: "self", address: "192.0.2.1" }];
  const members = [...peers];
  const told = new Set<string>();
  tables.apply(event("create"));
  doors.apply({
    kind: "create",
    networkId: "ingress",
    key: "door",
    owner: "old",
    value: encodeDoor({ address: "10.0.0.9", mac: "02:42:0a:00:00:09", returns: true }),
  });
  const doubts = new Doubts({
    clock,
    gossip: () => ({
      peers: (networkId) => (networkId === undefined ? peers : members),
      synced: (name) => told.has(name),
    }),
    tables: new Map([["net", tables]]),
    doors,
    dropped: () => {},
    shut: () => {},
  });
  /** Milliseconds until the record is gone, at most ten minutes and a bit. */
  const lasts = () => {
    const began = clock.now();
    while (tables.peers().length > 0 && clock.now() - began < 700_000) clock.advance(100);
    return clock.now() - began;
  };
  return { clock, doors, doubts, lasts, members, peers, tables, told };
}

test("the end of an entry is its owner's word as long as its node is there", () => {
  const { doubts } = setUp();
  assert.equal(doubts.covers(event("delete")), false);
  doubts.node({ kind: "replaced", name: "old", address: host });
  assert.equal(doubts.covers(event("delete")), true);
  assert.equal(doubts.covers(event("create")), false);
  assert.equal(doubts.covers(event("delete", "other")), false);
  doubts.node({ kind: "join", name: "old", address: host });
  assert.equal(doubts.covers(event("delete")), false);
});

test("the way to a lost host's containers stays for ten minutes, what they are called does not", () => {
  const { doubts, lasts, doors } = setUp();
  doubts.node({ kind: "failed", name: "old", address: host });
  assert.equal(doubts.covers({ ...event("delete"), table: "endpoint_table" }), false);
  assert.equal(doubts.covers(event("delete")), true);
  doubts.doubt(event("delete"));
  const ms = lasts();
  assert.ok(ms >= 600_000 && ms < 601_000, `${ms} ms`);
  assert.equal(doors.byNode().size, 0, "nor its door any longer than that");
});

test("a host that is back under another name has told all when tables were exchanged, and not before", () => {
  const { clock, doubts, lasts, members, peers, tables, told, doors } = setUp();
  doubts.node({ kind: "replaced", name: "old", address: host });
  doubts.doubt(event("delete"));
  peers.push({ name: "new", address: host });
  members.push({ name: "new", address: host });
  clock.advance(20_000);
  assert.equal(tables.peers().length, 1);
  assert.equal(doors.byNode().size, 1);
  told.add("new");
  assert.ok(lasts() <= 300);
});

test("what a last life heard is waited for from when gossip runs: for a minute alone, shortly among others", () => {
  for (const [others, least, most] of [
    [0, 60_000, 60_500],
    [1, 5_000, 5_500],
  ] as const) {
    const { clock, doubts, lasts, members, tables } = setUp();
    tables.doubt(peerTable, "endpoint", "old", clock.now());
    clock.advance(300_000);
    for (let i = 0; i < others; i++) members.push({ name: `other ${i}`, address: `192.0.2.${10 + i}` });
    doubts.begin();
    const ms = lasts();
    assert.ok(ms >= least && ms <= most, `${others} others: ${ms} ms`);
  }
});

test("a record that is told anew is no longer doubted", () => {
  const { clock, doubts, tables } = setUp();
  doubts.node({ kind: "replaced", name: "old", address: host });
  doubts.doubt(event("delete"));
  tables.apply(event("create", "new"));
  clock.advance(700_000);
  assert.equal(tables.peers().length, 1);
});
