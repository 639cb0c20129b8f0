import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { NetworkSchema, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import { systemClock, VirtualClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { createCsr, createRootCa, signCsr } from "../../../src/swarm/ca/certificates.ts";
import { readCredentials, writeCredentials } from "../../../src/swarm/ca/files.ts";
import { MemoryBackend, type OnEntries, TooLarge } from "../../../src/swarm/store/backend.ts";
import { EtcdBackend } from "../../../src/swarm/store/etcd/backend.ts";
import { connectEtcd } from "../../../src/swarm/store/etcd/client.ts";
import { EtcdSupervisor } from "../../../src/swarm/store/etcd/supervisor.ts";
import { versionOf } from "../../../src/swarm/store/objects.ts";
import { type Change, Store } from "../../../src/swarm/store/store.ts";

const net = (id: string, name = id) => create(NetworkSchema, { id, spec: { annotations: { name } } });
const task = (id: string, serviceId: string, nodeId = "") => create(TaskSchema, { id, serviceId, nodeId });

async function open(backend = new MemoryBackend()) {
  return { backend, store: await Store.open(backend, new VirtualClock(1000), nullLogger) };
}

test("updates made together share one commit and see each other", async () => {
  const { backend, store } = await open(new MemoryBackend(() => new Promise((done) => setImmediate(done))));
  const first = store.update((tx) => tx.create("network", net("a")));
  const rest = Promise.all([
    store.update((tx) => tx.create("network", net("b"))),
    store.update((tx) => tx.get("network", "a")?.id),
    assert.rejects(
      store.update((tx) => {
        tx.create("network", net("gone"));
        tx.create("network", net("c", "B"));
      }),
      /name conflicts with an existing object/,
    ),
  ]);
  assert.equal(store.view.get("network", "a"), undefined, "not visible before it is durable");
  await first;
  const [, seen] = await rest;
  assert.equal(seen, "a");
  assert.equal(backend.commits, 1);
  assert.equal(store.view.get("network", "gone"), undefined);
  assert.equal(store.view.byName("network", "B")?.id, "b");
});

test("what is too large together is committed in parts; what is too large alone is left out or refused", async () => {
  class Small extends MemoryBackend {
    override async commit(writes: Parameters<MemoryBackend["commit"]>[0]) {
      const size = writes.reduce((sum, { id }) => sum + Number(id.split("-")[1]), 0);
      if (size > 10) throw new TooLarge();
      return super.commit(writes);
    }
  }
  const { store } = await open(new Small());
  const sizes = [3, 4, 99, 5, 2, 9, 1, 10];
  await store.batch(sizes, (tx, size) => void tx.create("network", net(`n-${size}`)));
  const kept = () =>
    store.view
      .all("network")
      .map(({ id }) => Number(id.split("-")[1]))
      .sort((a, b) => a - b);
  assert.deepEqual(kept(), [1, 2, 3, 4, 5, 9, 10]);
  const updates = [6, 7, 50, 8].map((size) => store.update((tx) => tx.create("network", net(`n-${size}`))));
  const results = await Promise.allSettled(updates);
  assert.deepEqual(
    results.map(({ status }) => status),
    ["fulfilled", "fulfilled", "rejected", "fulfilled"],
  );
  assert.deepEqual(kept(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
});

test("an update from an old version is refused, also within one commit", async () => {
  const { store } = await open();
  const old = await store.update((tx) => tx.create("network", net("a"))).then(() => store.view.get("network", "a"));
  assert.ok(old);
  const results = await Promise.allSettled([
    store.update((tx) => tx.update("network", old)),
    store.update((tx) => tx.update("network", old)),
  ]);
  assert.deepEqual(
    results.map((result) => result.status),
    ["fulfilled", "rejected"],
  );
  await assert.rejects(
    store.update((tx) => tx.update("network", old)),
    /update out of sequence/,
  );
});

test("indexes follow their objects, in and out of transactions", async () => {
  const { store } = await open();
  await store.update((tx) => {
    tx.create("task", task("t1", "s1"));
    tx.create("task", task("t2", "s1", "n1"));
    assert.equal(tx.tasksOfService("s1").length, 2);
  });
  await store.update((tx) => {
    const t1 = tx.get("task", "t1");
    assert.ok(t1);
    tx.update("task", { ...t1, nodeId: "n1" });
    assert.equal(tx.tasksOfNode("n1").length, 2);
    tx.remove("task", "t2");
    assert.deepEqual(
      tx.tasksOfNode("n1").map((t) => t.id),
      ["t1"],
    );
  });
  assert.deepEqual(
    store.view.tasksOfNode("n1").map((t) => t.id),
    ["t1"],
  );
  assert.equal(store.view.tasksOfService("s1").length, 1);
});

test("two stores on one backend see each other's changes and never both win", async () => {
  const backend = new MemoryBackend();
  const { store: a } = await open(backend);
  const { store: b } = await open(backend);
  const seen: Change[] = [];
  b.onCommit((changes) => seen.push(...changes));
  await a.update((tx) => tx.create("task", task("t", "s")));
  await new Promise((done) => setImmediate(done));
  assert.equal(seen[0]?.action, "create");
  const count = (store: Store) =>
    store.update((tx) => {
      const t = tx.get("task", "t");
      assert.ok(t);
      tx.update("task", { ...t, slot: t.slot + 1n });
    });
  await Promise.all(Array.from({ length: 20 }, (_, i) => count(i % 2 ? a : b)));
  await new Promise((done) => setImmediate(done));
  assert.equal(a.view.get("task", "t")?.slot, 20n);
  assert.equal(b.view.get("task", "t")?.slot, 20n);
});

test("a watch that lost its history is told everything, and what is gone goes", async () => {
  const backend = new MemoryBackend();
  let tell: OnEntries | undefined;
  const watch: typeof backend.watch = (revision, onEntries) => {
    tell = onEntries;
    return backend.watch(revision, onEntries);
  };
  const store = await Store.open(
    { load: () => backend.load(), commit: (w) => backend.commit(w), watch },
    new VirtualClock(),
    nullLogger,
  );
  await store.update((tx) => {
    tx.create("network", net("a"));
    tx.create("network", net("b"));
  });
  const { entries, revision } = await backend.load();
  const seen: string[] = [];
  store.onCommit((changes) => seen.push(...changes.map(({ action, object }) => `${action} ${object.id}`)));
  tell?.(
    entries.filter(({ id }) => id === "b"),
    revision + 5n,
    true,
  );
  assert.deepEqual(seen, ["remove a"]);
  assert.equal(store.revision, revision + 5n);
});

test("etcd: survives its own death and ours", { timeout: 30_000 }, async () => {
  const stateDir = mkdtempSync(join(tmpdir(), "skein-etcd-"));
  const root = await createRootCa();
  const { csrPem, keyPem } = await createCsr();
  const certPem = await signCsr({ root, csrPem, cn: "node1", ou: "swarm-manager", o: "c" });
  writeCredentials(stateDir, { rootPem: root.certPem, certPem, keyPem });
  const credentials = readCredentials(stateDir);
  assert.ok(credentials);
  const options = {
    ...{ stateDir, name: "node1", binary: "etcd", forceNewCluster: false },
    ...{ clock: systemClock, log: nullLogger },
  };
  const etcd = await EtcdSupervisor.start(options);
  try {
    const client = connectEtcd(etcd.address, credentials);
    const backend = new EtcdBackend(() => client, "node1", systemClock, nullLogger);
    const store = await Store.open(backend, systemClock, nullLogger);
    await store.update((tx) => tx.create("network", net("a")));
    const pid = etcd.pid;
    assert.ok(pid);
    process.kill(pid, "SIGKILL");
    const many = Array.from({ length: 700 }, (_, i) => i);
    await store.batch(many, (tx, i) => tx.create("task", task(`t${i}`, "s")));
    assert.notEqual(etcd.pid, pid);
    await store.update((tx) => tx.remove("network", "a"));
    assert.equal(store.view.all("task").length, 700);
    // Another store, as after a crash of ours: etcd is adopted and everything is there.
    const adopted = await EtcdSupervisor.start(options);
    assert.equal(adopted.pid, etcd.pid);
    const other = connectEtcd(adopted.address, credentials);
    const backend2 = new EtcdBackend(() => other, "node1", systemClock, nullLogger);
    const again = await Store.open(backend2, systemClock, nullLogger);
    assert.equal(again.view.all("task").length, 700);
    assert.equal(again.view.get("network", "a"), undefined);
    const t = store.view.get("task", "t1");
    assert.ok(t);
    assert.equal(versionOf(t), versionOf(again.view.get("task", "t1") ?? t));
    await again.update((tx) => tx.create("network", net("b")));
    await store.update((tx) => tx.get("network", "b") ?? tx.create("network", net("b")));
    assert.equal(store.view.byName("network", "b")?.id, "b");
    for (const part of [backend, backend2, store, again, client, other]) part.close();
    await adopted.stop();
  } finally {
    await etcd.stop();
    rmSync(stateDir, { recursive: true });
  }
});

test("etcd: a worker's certificate does not open the store", { timeout: 30_000 }, async () => {
  const stateDir = mkdtempSync(join(tmpdir(), "skein-etcd-"));
  const root = await createRootCa();
  const { csrPem, keyPem } = await createCsr();
  const certPem = await signCsr({ root, csrPem, cn: "node1", ou: "swarm-manager", o: "c" });
  writeCredentials(stateDir, { rootPem: root.certPem, certPem, keyPem });
  const etcd = await EtcdSupervisor.start({
    ...{ stateDir, name: "node1", binary: "etcd", forceNewCluster: false },
    ...{ clock: systemClock, log: nullLogger },
  });
  try {
    const worker = await signCsr({ root, csrPem, cn: "node2", ou: "swarm-worker", o: "c" });
    const identity = { cn: "node2", ou: "swarm-worker", o: "c" };
    const client = connectEtcd(etcd.address, {
      rootPem: root.certPem,
      certPem: worker,
      keyPem,
      identity,
      dataKeys: [],
    });
    await assert.rejects(client.kv.range({ key: new Uint8Array([1]) }, { timeoutMs: 2000 }));
    client.close();
  } finally {
    await etcd.stop();
    rmSync(stateDir, { recursive: true });
  }
});
