/**
 * The data key changes: the ring of keys, and the whole way under crashes. Each third step is one at which the leader is
 * killed; with `SKEIN_EVERY_STEP=1` each is (some ten seconds).
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { SecretSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { deferred } from "../../../src/base/async.ts";
import { sleep, VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import type { DataKey } from "../../../src/swarm/ca/files.ts";
import { keyId, sealAs, sealedAs, unsealNamed } from "../../../src/swarm/ca/seal.ts";
import { KeyPurge } from "../../../src/swarm/manager/key-purge.ts";
import { FreshKeys } from "../../../src/swarm/manager/leadership/fresh-key.ts";
import { DataKeys } from "../../../src/swarm/store/data-keys.ts";
import { EtcdBackend } from "../../../src/swarm/store/etcd/backend.ts";
import {
  type Answer,
  bounded,
  changedTo,
  formatRing,
  isNeeded,
  isSafe,
  nextGeneration,
  parseRing,
  settled,
} from "../../../src/swarm/store/ring.ts";
import { Store } from "../../../src/swarm/store/store.ts";
import { FakeEtcd } from "./support/fake-etcd.ts";

const newKey = (generation: number): DataKey => ({ generation, key: randomBytes(32) });

test("a value carries its key's name, and opens with that key in its own place only", () => {
  const { key } = newKey(1);
  const sealed = sealAs(keyId(key), key, Buffer.from("secret"), "secret/1");
  assert.equal(sealedAs(sealed), keyId(key));
  assert.equal(Buffer.from(unsealNamed(key, sealed, "secret/1")).toString(), "secret");
  assert.throws(() => unsealNamed(key, sealed, "secret/2"));
  assert.throws(() => unsealNamed(randomBytes(32), sealed, "secret/1"));
  for (const other of [Buffer.from([2, 1]), Buffer.from([1, 2, 3]), Buffer.of()])
    assert.equal(sealedAs(other), undefined);
});

test("the ring: which keys are needed, and when it may name a new one", () => {
  const [first, second, lost, third] = [newKey(0), newKey(1), newKey(1), newKey(2)];
  const changing = changedTo(second);
  const done = settled(changing);
  assert.equal(nextGeneration(undefined), 1);
  assert.equal(nextGeneration(done), 2);
  assert.deepEqual(parseRing(formatRing(changing)), changing);
  assert.throws(() => parseRing(Buffer.from('{"generation":"x"}')), /not understood/);
  const needed = (ring?: typeof done) => [first, second, lost, third].filter((key) => isNeeded(key, ring));
  assert.deepEqual(needed(), [first, second, lost, third]);
  assert.deepEqual(needed(changing), [first, second, lost, third]);
  assert.deepEqual(needed(done), [second, third]);
  const many = [first, ...Array.from({ length: 20 }, () => newKey(1))];
  assert.deepEqual(bounded(many, undefined), [first, ...many.slice(-16)]);
  const safe = (...answers: Answer[]) => isSafe(answers);
  assert.ok(safe() && safe("kept", "away") && safe("kept", "kept", "away", "away"));
  assert.ok(!safe("away") && !safe("away", "away") && !safe("kept", "away", "away", "away"));
});

const stride = process.env.SKEIN_EVERY_STEP ? 1 : 3;
const ids = ["a", "b", "c"];
const SECRETS = 110;

/** Three managers on one etcd; what each has on disk outlives it. */
class World {
  readonly clock = new VirtualClock(1_000_000);
  readonly etcd = new FakeEtcd();
  readonly disks = new Map<string, readonly DataKey[]>();
  /** What users were told is written, and what was on the way when its manager was killed. */
  readonly told = new Map<string, string[]>();
  readonly away = new Set<string>();
  readonly old = newKey(0);

  constructor() {
    for (const id of ids) this.disks.set(id, [this.old]);
  }

  /** `crashAt`: the step at which it is killed. */
  async start(id: string, crashAt = Number.POSITIVE_INFINITY) {
    const { clock, disks, etcd } = this;
    let steps = 0;
    const step = () => {
      if (++steps >= crashAt) throw new Error("killed");
    };
    const client = etcd.client(step);
    const keys = new DataKeys({
      keys: disks.get(id) ?? [],
      save: (list) => {
        step();
        disks.set(id, [...list]);
        step();
      },
      ask: async (name) => {
        for (const other of ids) {
          const list = disks.get(other) ?? [];
          if (other !== id && !this.away.has(other) && list.some(({ key }) => keyId(key) === name)) return list;
        }
        throw new Error(`nobody has ${name}`);
      },
    });
    let fence = 0n;
    const backend = new EtcdBackend(() => client, id, clock, nullLogger, { keys, fence: () => fence });
    const store = await Store.open(backend, clock, nullLogger);
    keys.save();
    const lead = async () => {
      fence = await backend.takeLead(id, 1000);
      await store.reached(fence);
      const list = ids.map((nodeId, at) => ({ id: BigInt(at), nodeId, learner: false }));
      return new FreshKeys({
        ...{ keys, backend, client: () => client, members: { list: async () => list }, nodeId: id },
        bring: async (nodeId, key): Promise<Answer> => {
          step();
          if (this.away.has(nodeId)) return "away";
          disks.set(nodeId, [...(disks.get(nodeId) ?? []), key]);
          step();
          return "kept";
        },
        ...{ clock, log: nullLogger },
      });
    };
    const write = async (name: string, text: string) => {
      this.told.set(name, [...(this.told.get(name) ?? [""]), text]);
      await store.update((tx) => {
        const last = tx.get("secret", name);
        const spec = { annotations: { name }, data: Buffer.from(text) };
        if (last)
          tx.update("secret", { ...last, spec: { ...last.spec, ...create(SecretSchema, { spec }).spec } as never });
        else tx.create("secret", create(SecretSchema, { id: name, spec }));
      });
      this.told.set(name, [text]);
    };
    const purge = () => new KeyPurge({ keys, client: () => client, nodeId: id, turn: () => 0, clock, log: nullLogger });
    const close = () => {
      store.close();
      backend.close();
    };
    return { keys, backend, store, lead, write, purge, close, steps: () => steps };
  }

  /** Lets the clock run until it is so. */
  async until(what: string, is: () => boolean): Promise<void> {
    for (let i = 0; i < 400; i++) {
      if (is()) return;
      await this.clock.advanceAsync(50);
    }
    assert.fail(`never: ${what}`);
  }

  /** Runs what may be killed, and what goes on beside it. */
  async finish<T>(work: Promise<T>): Promise<T | "killed"> {
    let over = false;
    const result = work
      .catch((error) => {
        if (error instanceof assert.AssertionError) throw error;
        return "killed" as const;
      })
      .finally(() => {
        over = true;
      });
    await this.until("it ends", () => over);
    return result;
  }

  /** Reads everything with what this manager has on disk. */
  async check(id: string): Promise<void> {
    const manager = await this.start(id);
    for (const [name, texts] of this.told) {
      const data = manager.store.view.get("secret", name)?.spec?.data;
      assert.ok(texts.includes(Buffer.from(data ?? []).toString()), name);
    }
    manager.close();
  }
}

async function withSecrets(): Promise<World> {
  const world = new World();
  const first = await world.start("a");
  const fresh = await first.lead();
  await Promise.all(Array.from({ length: SECRETS }, (_, i) => first.write(`s${i}`, `text ${i}`)));
  fresh.close();
  first.close();
  return world;
}

/** Leads from here on: ends what was begun, takes the old key from everywhere. */
async function goOn(world: World, id: string): Promise<void> {
  const parts = await Promise.all(ids.map(async (name) => ({ name, manager: await world.start(name) })));
  const leader = parts.find(({ name }) => name === id)?.manager;
  assert.ok(leader);
  const fresh = await leader.lead();
  await leader.write("last", "words");
  await world.until("it is settled", () => !leader.keys.ring?.changing);
  const purges = parts.map(({ manager }) => manager.purge());
  await world.until("old keys are gone", () => parts.every(({ manager }) => manager.keys.unneeded.length === 0));
  for (const part of [fresh, ...purges, ...parts.map(({ manager }) => manager)]) part.close();
}

/** Nothing that was told is lost, and where the key was changed the former one is nowhere. */
async function checkAll(world: World): Promise<void> {
  for (const id of ids) await world.check(id);
  const value = world.etcd.values("/skein/ring")[0]?.value;
  if (!value) return;
  const { current } = parseRing(value);
  for (const list of world.disks.values())
    assert.ok(!list.includes(world.old) && list.some(({ key }) => keyId(key) === current));
  const names = world.etcd.file
    .filter(({ key }) => Buffer.from(key).includes("secret"))
    .map((kv) => sealedAs(kv.value));
  assert.deepEqual([...new Set(names)], [current]);
}

test("killed at any step of a change of the data key: the next leader ends it, and no write is lost", async () => {
  let changed = 0;
  for (let crashAt = 1; ; crashAt += stride) {
    const world = await withSecrets();
    // It comes back later, and has to ask for the key.
    if (crashAt % 4 < 2) world.away.add("c");
    const work = async () => {
      const mortal = await world.start("a", crashAt);
      const fresh = await mortal.lead();
      try {
        const use = fresh.use(() => mortal.write("locked", "under the new key"));
        const writer = async () => {
          for (let i = 0; i < 20; i++) {
            await mortal.write(`s${(i * 7) % SECRETS}`, `new ${i}`);
            await sleep(world.clock, 3);
          }
        };
        await Promise.all([use, writer()]);
        assert.ok(mortal.keys.ring);
        const locked = world.etcd.values("/skein/secret/locked")[0];
        assert.equal(sealedAs(locked?.value ?? Buffer.of()), mortal.keys.ring.current);
        await sleep(world.clock, 200);
        const purge = mortal.purge();
        await sleep(world.clock, 200);
        purge.close();
        if (mortal.steps() >= crashAt) throw new Error("killed");
        assert.deepEqual([mortal.keys.ring.changing, mortal.keys.list.length], [false, 1]);
      } finally {
        fresh.close();
        mortal.close();
      }
    };
    const outcome = await world.finish(work());
    world.away.clear();
    await goOn(world, crashAt % 2 ? "b" : "a");
    await checkAll(world);
    if (world.etcd.values("/skein/ring").length > 0) changed++;
    if (outcome !== "killed") break;
  }
  assert.ok(changed > 10, `${changed}`);
});

/** A transaction that is held up on its way, the first one that writes this value. */
function heldUp(world: World, name: string) {
  const [arrived, release] = [deferred<void>(), deferred<void>()];
  world.etcd.gate = ({ success }) => {
    const writes = success.some(({ request }) => {
      return request.case === "requestPut" && Buffer.from(request.value.key).toString().endsWith(`/${name}`);
    });
    if (!writes) return undefined;
    world.etcd.gate = () => undefined;
    arrived.resolve();
    return release.promise;
  };
  return { arrived: arrived.promise, release: () => release.resolve() };
}

test("overtaken on the way: a commit by a new key, a value encrypted anew by its change, and by the next leader", async () => {
  const world = await withSecrets();
  const sealed = (name: string) => sealedAs(world.etcd.values(`/skein/secret/${name}`)[0]?.value ?? Buffer.of());
  const a = await world.start("a");
  const fresh = await a.lead();
  let held = heldUp(world, "s1");
  const commit = a.write("s1", "slow");
  await held.arrived;
  // Where the leader does not know it: as when the answer to its own change is lost.
  const other = new EtcdBackend(() => world.etcd.client(), "x", world.clock, nullLogger, { keys: a.keys });
  const key = newKey(1);
  a.keys.add([key]);
  world.disks.set("c", [world.old, key]);
  const resealing = heldUp(world, "s0");
  assert.ok(await other.putRing(changedTo(key)));
  held.release();
  await world.finish(commit);
  assert.equal(sealed("s1"), keyId(key.key), "the commit is done again, under the new key");
  await world.clock.advanceAsync(200);
  await resealing.arrived;
  assert.equal(sealed("s0"), undefined);
  await a.write("s0", "quick");
  resealing.release();
  await world.until("it is settled", () => a.keys.ring?.changing === false);
  await world.check("a");

  held = heldUp(world, "s2");
  const changing = fresh.use(async () => {});
  await world.until("the key is changed", () => a.keys.ring?.generation === 2);
  await world.finish(changing);
  await world.clock.advanceAsync(200);
  await held.arrived;
  const b = await world.start("b");
  const next = await b.lead();
  next.close();
  const before = sealed("s2");
  held.release();
  await world.clock.advanceAsync(50);
  assert.equal(sealed("s2"), before, "who leads no more writes nothing");
  for (const part of [fresh, a, b]) part.close();
});

test("a manager that was away knows the key that it has to write under, before any value is", async () => {
  const world = new World();
  const a = await world.start("a");
  await (await world.start("b")).lead();
  const key = newKey(1);
  world.disks.set("c", [world.old, key]);
  const other = new EtcdBackend(() => world.etcd.client(), "x", world.clock, nullLogger, {
    keys: new DataKeys({ keys: [key], save: () => {} }),
  });
  assert.ok(await other.putRing(changedTo(key)));
  await world.clock.advanceAsync(0);
  assert.deepEqual(a.keys.list, [world.old, key], "one that watches");
  const late = await world.start("a");
  assert.deepEqual(late.keys.list, [world.old, key], "one that starts");
  await late.lead();
  await late.write("one", "text");
  world.disks.set("b", [world.old]);
  world.disks.set("c", [world.old]);
  world.disks.set("a", [world.old]);
  await assert.rejects(world.start("b"), /nobody has/);
});
