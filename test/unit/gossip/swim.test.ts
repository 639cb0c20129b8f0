/** The pure parts: state machine, suspicion, queue, keys, tables. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { keyIds, keyRing } from "../../../src/gossip/keys.ts";
import { Awareness } from "../../../src/gossip/memberlist/awareness.ts";
import { pushPullInterval } from "../../../src/gossip/memberlist/config.ts";
import { retransmitLimit, TransmitQueue } from "../../../src/gossip/memberlist/queue.ts";
import { type Action, MemberState } from "../../../src/gossip/memberlist/state.ts";
import { Suspicion, suspicionTimeout } from "../../../src/gossip/memberlist/suspicion.ts";
import { LamportClock } from "../../../src/gossip/networkdb/clock.ts";
import type { TableMessage } from "../../../src/gossip/networkdb/messages.ts";
import { Pending } from "../../../src/gossip/networkdb/pending.ts";
import { Tables } from "../../../src/gossip/networkdb/tables.ts";

const vsn = Uint8Array.of(1, 5, 2, 0, 0, 0);
const meta = new Uint8Array();
const options = {
  name: "me",
  suspicionMult: 4,
  suspicionMaxMult: 6,
  suspicionUnitMs: 1000,
  maxMembers: 100,
};
const alive = (node: string, incarnation: number, last = 2) =>
  ({ kind: "alive", node, incarnation, addr: Uint8Array.of(10, 0, 0, last), port: 7946, meta, vsn }) as const;
const suspect = (node: string, incarnation: number, from = "x") =>
  ({ kind: "suspect", node, incarnation, from }) as const;
const dead = (node: string, incarnation: number, from = "x") => ({ kind: "dead", node, incarnation, from }) as const;

function machine(...others: string[]): MemberState {
  const state = new MemberState(options);
  state.start({ addr: Uint8Array.of(10, 0, 0, 1), port: 7946, meta, vsn }, 0);
  others.forEach((name, i) => {
    state.alive(alive(name, 1, 2 + i), 0);
  });
  return state;
}

/** Actions in short: what a reader of a protocol trace would write. */
function short(actions: Action[]): string[] {
  return actions.map(line);
}

function line(action: Action): string {
  switch (action.kind) {
    case "broadcast":
      return `${action.message.kind} ${action.message.node} ${action.message.incarnation}`;
    case "changed":
      return `${action.member.name} ${action.change}`;
    case "accused":
      return action.dead ? "accused of death" : "accused";
    case "ignored":
      return `ignored ${action.reason}`;
  }
}

test("alive: news is passed on once; equal and older is not", () => {
  const state = machine();
  assert.deepEqual(short(state.alive(alive("a", 3), 0)), ["alive a 3", "a join"]);
  assert.deepEqual(short(state.alive(alive("a", 3), 0)), []);
  assert.deepEqual(short(state.alive(alive("a", 2), 0)), []);
  assert.deepEqual(short(state.alive(alive("a", 4), 0)), ["alive a 4"]);
});

test("alive: bad versions, addresses, conflicts and absurd incarnations are refused", () => {
  const state = machine("a");
  assert.deepEqual(short(state.alive({ ...alive("b", 1), vsn: Uint8Array.of(0, 5) }, 0)), ["ignored badVersion"]);
  assert.deepEqual(short(state.alive({ ...alive("b", 1), vsn: Uint8Array.of(5, 1) }, 0)), ["ignored badVersion"]);
  assert.deepEqual(short(state.alive({ ...alive("b", 1), addr: Uint8Array.of(1) }, 0)), ["ignored badAddress"]);
  assert.deepEqual(short(state.alive(alive("a", 2, 77), 0)), ["ignored conflict"]);
  assert.deepEqual(short(state.alive(alive("a", 0xffffffff), 0)), ["ignored badIncarnation"]);
  assert.deepEqual(short(state.suspect(suspect("me", 0xffffffff), 0)), ["ignored badIncarnation"]);
});

test("suspicion: passed on, confirmed by others, taken back by a higher incarnation", () => {
  const state = machine("a", "b", "c");
  assert.deepEqual(short(state.suspect(suspect("a", 1), 0)), ["suspect a 1", "a suspect"]);
  assert.deepEqual(short(state.suspect(suspect("a", 1), 0)), [], "the same accuser again");
  assert.deepEqual(short(state.suspect(suspect("a", 1, "y"), 0)), ["suspect a 1"]);
  assert.deepEqual(short(state.alive(alive("a", 1), 0)), [], "the same incarnation proves nothing");
  assert.deepEqual(short(state.alive(alive("a", 2), 0)), ["alive a 2", "a alive"]);
  assert.equal(state.nextDeadline(), undefined);
});

test("suspicion runs out: dead; and dead again is no news", () => {
  const state = machine("a", "b", "c");
  state.suspect(suspect("a", 1), 0);
  assert.equal(state.nextDeadline(), 24_000);
  state.suspect(suspect("a", 1, "y"), 0);
  state.suspect(suspect("a", 1, "z"), 0);
  assert.equal(state.nextDeadline(), 4_000);
  assert.deepEqual(short(state.tick(3_999)), []);
  assert.deepEqual(short(state.tick(4_000)), ["dead a 1", "a failed"]);
  assert.deepEqual(short(state.dead(dead("a", 1), 0)), []);
  assert.deepEqual(short(state.alive(alive("a", 2), 0)), ["alive a 2", "a join"]);
});

test("accused ourselves we refute with a higher incarnation", () => {
  const state = machine("a");
  assert.deepEqual(short(state.suspect(suspect("me", 5), 0)), ["accused", "alive me 6"]);
  assert.deepEqual(short(state.dead(dead("me", 6), 0)), ["accused of death", "alive me 7"]);
  assert.deepEqual(short(state.alive(alive("me", 9, 99), 0)), ["accused", "alive me 10"]);
  assert.deepEqual(short(state.suspect(suspect("me", 3), 0)), []);
});

test("leaving: dead by one's own word is left, and may come back elsewhere", () => {
  const state = machine("a");
  assert.deepEqual(short(state.dead(dead("a", 1, "a"), 0)), ["dead a 1", "a left"]);
  assert.deepEqual(short(state.alive(alive("a", 1, 50), 0)), ["alive a 1", "a join"]);
  assert.deepEqual(short(state.leave(0)), ["dead me 1", "me left"]);
  assert.deepEqual(short(state.suspect(suspect("me", 1), 0)), []);
});

test("merge: another's dead are only suspected", () => {
  const state = machine("a", "b");
  const node = { addr: Uint8Array.of(10, 0, 0, 2), port: 7946, meta, vsn, incarnation: 1 };
  const actions = state.merge(
    [
      { ...node, name: "a", state: "dead" },
      { ...node, name: "b", state: "left" },
      { ...node, name: "c", state: "alive" },
    ],
    0,
  );
  assert.deepEqual(short(actions), ["suspect a 1", "a suspect", "dead b 1", "b left", "alive c 1", "c join"]);
});

test("merge: whoever holds us for dead, even of old, has forgotten what we had", () => {
  const state = machine("a");
  const self = { name: "me", addr: Uint8Array.of(10, 0, 0, 1), port: 7946, meta, vsn };
  assert.deepEqual(short(state.merge([{ ...self, incarnation: 1, state: "dead" }], 0)), [
    "accused of death",
    "alive me 2",
  ]);
  assert.deepEqual(short(state.merge([{ ...self, incarnation: 1, state: "dead" }], 0)), ["accused of death"]);
  assert.deepEqual(short(state.merge([{ ...self, incarnation: 2, state: "suspect" }], 0)), ["accused", "alive me 3"]);
});

test("the dead are forgotten after a while", () => {
  const state = machine("a");
  state.dead(dead("a", 1), 1000);
  state.forget(30_000, 31_000);
  assert.ok(state.get("a"));
  state.forget(30_000, 31_001);
  assert.equal(state.get("a"), undefined);
  assert.ok(state.get("me"));
});

test("suspicion time-outs by Lifeguard", () => {
  assert.equal(suspicionTimeout(4, 2, 1000), 4000);
  assert.equal(Math.floor(suspicionTimeout(4, 50, 1000)), 6795);
  assert.equal(new Suspicion("a", 0, 4000, 24_000, 100).deadline, 4100);
  const one = new Suspicion("a", 2, 4000, 24_000, 0);
  assert.equal(one.confirm("b"), true);
  assert.equal(one.deadline, Math.floor(24_000 - (Math.log(2) / Math.log(3)) * 20_000));
});

test("local health is bounded and stretches time-outs", () => {
  const health = new Awareness(8);
  health.apply(-1);
  assert.equal(health.scale(1000), 1000);
  health.apply(100);
  assert.equal(health.scale(1000), 8000);
});

test("queue: least sent first, then the largest that fits, then the newest; limited; replaced by key", () => {
  const queue = new TransmitQueue(() => 2);
  const done: string[] = [];
  const push = (key: string, size: number) =>
    queue.push({ key, message: Buffer.alloc(size, key), done: () => done.push(key) });
  push("a", 10);
  push("b", 20);
  push("c", 20);
  push("a", 11);
  assert.deepEqual(done, ["a"]);
  const take = (room: number) =>
    queue
      .take(2, room)
      .map((message) => String.fromCharCode(message[0] ?? 0))
      .join("");
  assert.equal(take(36), "ca");
  assert.equal(take(100), "bca", "b was never sent");
  assert.deepEqual(done, ["a", "c", "a"]);
  assert.equal(take(100), "b");
  assert.equal(queue.size, 0);
});

test("queue: bounded, and replaced items do not pile up", () => {
  const queue = new TransmitQueue(() => 4, 10);
  for (let i = 0; i < 1000; i++) queue.push({ key: `k${i % 50}`, message: Buffer.alloc(5) });
  assert.equal(queue.size, 10);
});

test("figures that depend on the size of the cluster", () => {
  assert.deepEqual(
    [1, 9, 10, 99, 100].map((nodes) => retransmitLimit(4, nodes)),
    [4, 4, 8, 8, 12],
  );
  assert.deepEqual(
    [2, 32, 33, 64, 65].map((nodes) => pushPullInterval(30, nodes)),
    [30, 30, 60, 60, 90],
  );
});

test("keys: the second oldest sends, all receive", () => {
  const key = (n: number, lamportTime: bigint) => ({ key: new Uint8Array(16).fill(n), lamportTime });
  const order = keyRing([key(3, 12n), key(1, 10n), key(2, 11n)]).map((bytes) => bytes[0]);
  assert.deepEqual(order, [2, 1, 3]);
  assert.deepEqual(
    keyRing([key(1, 1n)]).map((bytes) => bytes[0]),
    [1],
  );
  assert.throws(() => keyRing([]), /number of gossip keys/);
  assert.throws(() => keyRing([{ key: new Uint8Array(5), lamportTime: 1n }]), /size of gossip key/);
});

test("keys are shown by ids that tell them apart and by the one that sends", () => {
  const key = (n: number, lamportTime: bigint) => ({ key: new Uint8Array(16).fill(n), lamportTime });
  const keys = [key(3, 12n), key(1, 10n), key(2, 11n)];
  const shown = keyIds(keys);
  assert.deepEqual(
    shown.map(({ lamportTime, sends }) => [lamportTime, sends]),
    [
      [10n, false],
      [11n, true],
      [12n, false],
    ],
  );
  assert.equal(new Set(shown.map(({ id }) => id)).size, 3);
  assert.equal(keyIds([key(2, 99n)])[0]?.id, shown[1]?.id, "the same key, told at another time");
  assert.equal(keyIds([key(2, 99n)])[0]?.sends, true);
  for (const { id } of shown) assert.match(id, /^[0-9a-f]{8}$/);
});

test("Lamport clock: witnesses, and refuses the absurd", () => {
  const clock = new LamportClock();
  assert.equal(clock.increment(), 1n);
  assert.equal(clock.witness(7n), true);
  assert.equal(clock.time(), 8n);
  assert.equal(clock.witness(3n), true);
  assert.equal(clock.time(), 8n);
  assert.equal(clock.witness(0xffffffffffffffffn), false);
  assert.equal(clock.time(), 8n);
});

const event = (type: TableMessage["type"], ltime: bigint, value = "v", owner = "o"): TableMessage => ({
  kind: "table",
  type,
  ltime,
  owner,
  networkId: "n",
  table: "t",
  key: "k",
  value: Buffer.from(value),
  residualReap: type === "delete" ? 1800 : 0,
});

test("tables: newer wins; kinds say what changed here", () => {
  const tables = new Tables();
  assert.equal(tables.apply(event("update", 5n), 0).change?.kind, "create");
  assert.equal(tables.apply(event("create", 5n, "x"), 0).fresh, false);
  assert.equal(tables.apply(event("create", 6n, "x"), 0).change?.kind, "update");
  assert.deepEqual(tables.apply(event("create", 7n, "x"), 0), { fresh: true }, "the same value is no change");
  assert.equal(tables.apply(event("delete", 8n), 0).change?.kind, "delete");
  assert.equal(tables.apply(event("create", 7n), 0).fresh, false, "late create after delete");
  assert.equal(tables.apply(event("create", 9n), 0).change?.kind, "create");
});

test("tables: a delete that overtakes its create wins, and tombstones are reaped", () => {
  const tables = new Tables();
  assert.deepEqual(tables.apply(event("delete", 6n), 0), { fresh: false, unknownTombstone: true });
  assert.equal(tables.apply(event("create", 5n), 0).fresh, false);
  tables.reap(1_793_000);
  assert.equal(tables.size, 1);
  tables.reap(1_794_000);
  assert.equal(tables.size, 0);
});

test("pending: in order, bounded, expiring", () => {
  const pending = new Pending<number>(1000, 3);
  assert.deepEqual(
    [1, 2, 3, 4].map((n) => pending.add("a", n, 0)),
    ["first", "more", "more", "full"],
  );
  assert.deepEqual(pending.take("a"), [1, 2, 3]);
  pending.add("b", 5, 0);
  assert.equal(pending.expire(999), 0);
  assert.equal(pending.expire(1000), 1);
  assert.equal(pending.size, 0);
});

test("a caller is not told of its own former life, but of everybody else", () => {
  const state = machine("former", "other");
  const node = (name: string, last: number, liveness: "alive" | "dead" = "alive") =>
    ({ name, addr: Uint8Array.of(10, 0, 0, last), port: 7946, meta, incarnation: 1, state: liveness, vsn }) as const;
  const told = (address: string, ...nodes: ReturnType<typeof node>[]) =>
    state.known({ address, nodes }).map(({ name }) => name);
  assert.deepEqual(told("10.0.0.2", node("again", 2)), ["me", "other"]);
  // It knows of it; it is not at that address itself; it is somewhere else.
  assert.deepEqual(told("10.0.0.2", node("again", 2), node("former", 2, "dead")), ["me", "former", "other"]);
  assert.deepEqual(told("10.0.0.2", node("again", 2, "dead")), ["me", "former", "other"]);
  assert.deepEqual(told("10.0.0.9", node("again", 2)), ["me", "former", "other"]);
  // It must hear that it is suspected or dead, to be able to say that it is not.
  state.suspect(suspect("former", 1), 0);
  assert.deepEqual(told("10.0.0.2", node("again", 2)), ["me", "former", "other"]);
});
