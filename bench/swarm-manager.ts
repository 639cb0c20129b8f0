/**
 * How fast a manager places a large service: `node bench/swarm-manager.ts [nodes] [replicas] [etcd]`.
 * The loops run on the real clock; nodes are simulated and report RUNNING at once.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import {
  ClusterSchema,
  NetworkSchema,
  NodeSchema,
  ServiceSchema,
  type Task,
} from "#proto/docker/swarmkit/objects_pb.js";
import { ClusterSpecSchema, NodeSpec_Membership } from "#proto/docker/swarmkit/specs_pb.js";
import { NodeStatus_State, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { systemClock } from "../src/base/clock.ts";
import { nullLogger } from "../src/base/log.ts";
import { readCredentials } from "../src/swarm/ca/files.ts";
import { Allocator } from "../src/swarm/manager/allocator/allocator.ts";
import { bootstrapCluster, withDefaults } from "../src/swarm/manager/bootstrap.ts";
import { Orchestrator } from "../src/swarm/manager/orchestrator/orchestrator.ts";
import { Reaper } from "../src/swarm/manager/orchestrator/reaper.ts";
import { Scheduler } from "../src/swarm/manager/scheduler/scheduler.ts";
import { MemoryBackend } from "../src/swarm/store/backend.ts";
import { EtcdBackend } from "../src/swarm/store/etcd/backend.ts";
import { connectEtcd } from "../src/swarm/store/etcd/client.ts";
import { EtcdSupervisor } from "../src/swarm/store/etcd/supervisor.ts";
import { Store } from "../src/swarm/store/store.ts";

const nodes = Number(process.argv[2] ?? 1000);
const replicas = Number(process.argv[3] ?? 30_000);
const withEtcd = process.argv[4] === "etcd";
const stateDir = mkdtempSync(join(tmpdir(), "skein-bench-"));
await using cleanup = new AsyncDisposableStack();
cleanup.defer(() => rmSync(stateDir, { recursive: true }));

async function backend() {
  if (!withEtcd) return new MemoryBackend();
  await bootstrapCluster(stateDir);
  const node = readCredentials(stateDir);
  if (!node) throw new Error("no credentials");
  const etcd = await EtcdSupervisor.start({
    ...{ stateDir, name: "bench", binary: "etcd", forceNewCluster: false },
    ...{ clock: systemClock, log: nullLogger },
  });
  cleanup.defer(() => etcd.stop());
  const client = connectEtcd(etcd.address, node);
  cleanup.defer(() => client.close());
  const made = new EtcdBackend(() => client, "bench", systemClock, nullLogger);
  cleanup.defer(() => made.close());
  return made;
}

const store = await Store.open(await backend(), systemClock, nullLogger);
cleanup.defer(() => store.close());
let worst = 0;
let last = performance.now();
const lag = setInterval(() => {
  const now = performance.now();
  worst = Math.max(worst, now - last - 10);
  last = now;
}, 10);
cleanup.defer(() => clearInterval(lag));

await store.update((tx) => {
  tx.create("cluster", create(ClusterSchema, { id: "c", spec: withDefaults(create(ClusterSpecSchema)) }));
  tx.create(
    "network",
    create(NetworkSchema, {
      id: "ingress",
      spec: { annotations: { name: "ingress" }, ingress: true, ipam: { configs: [{ subnet: "10.0.0.0/16" }] } },
    }),
  );
  tx.create(
    "network",
    create(NetworkSchema, {
      id: "net",
      spec: { annotations: { name: "net" }, ipam: { configs: [{ subnet: "10.4.0.0/14" }] } },
    }),
  );
});
await store.batch(
  Array.from({ length: nodes }, (_, i) => i),
  (tx, i) =>
    void tx.create(
      "node",
      create(NodeSchema, {
        id: `n${i}`,
        spec: { annotations: {}, membership: NodeSpec_Membership.ACCEPTED },
        status: { state: NodeStatus_State.READY },
        description: { hostname: `n${i}`, resources: { nanoCpus: 64_000_000_000n, memoryBytes: 1n << 40n } },
      }),
    ),
);
const marks: Record<string, number> = {};
const reached: Record<string, number> = { created: 0, pending: 0, assigned: 0, running: 0 };
const started = performance.now();
const done = Promise.withResolvers<void>();
const note = (what: string) => {
  reached[what] = (reached[what] ?? 0) + 1;
  if (reached[what] === replicas) {
    marks[what] = Math.round(performance.now() - started);
    if (what === "running") done.resolve();
  }
};
const stateOf = (task: Task) => task.status?.state ?? 0;
store.onCommit((changes) => {
  const assigned: Task[] = [];
  for (const change of changes) {
    if (change.kind !== "task") continue;
    const before = change.old ? stateOf(change.old) : -1;
    const now = stateOf(change.object);
    if (before < 0) note("created");
    if (before < TaskState.PENDING && now >= TaskState.PENDING) note("pending");
    if (before < TaskState.ASSIGNED && now >= TaskState.ASSIGNED) {
      note("assigned");
      assigned.push(change.object);
    }
    if (before < TaskState.RUNNING && now >= TaskState.RUNNING) note("running");
  }
  if (assigned.length === 0) return;
  void store
    .batch(assigned, (tx, { id }) => {
      const task = tx.get("task", id);
      if (task?.status) tx.update("task", { ...task, status: { ...task.status, state: TaskState.RUNNING } });
    })
    .catch(() => {});
});
const loops = [
  new Allocator(store, "c", systemClock, nullLogger),
  new Scheduler(store, systemClock, nullLogger),
  new Orchestrator(store, "c", systemClock, nullLogger),
  new Reaper(store, "c", systemClock, nullLogger),
];
cleanup.defer(() => {
  for (const loop of loops) loop.close();
});
await store.update((tx) =>
  tx.create(
    "service",
    create(ServiceSchema, {
      id: "s",
      specVersion: { index: 1n },
      spec: {
        annotations: { name: "s" },
        mode: { case: "replicated", value: { replicas: BigInt(replicas) } },
        task: { runtime: { case: "container", value: { image: "x" } }, networks: [{ target: "net" }] },
      },
    }),
  ),
);
await done.promise;
console.log(
  JSON.stringify({
    nodes,
    replicas,
    store: withEtcd ? "etcd" : "memory",
    ms: marks,
    worstLagMs: Math.round(worst),
    rssMb: Math.round(process.memoryUsage().rss / 2 ** 20),
  }),
);
const one = performance.now();
const single = Promise.withResolvers<void>();
store.onCommit((changes) => {
  for (const c of changes)
    if (c.kind === "task" && c.object.serviceId === "s2" && stateOf(c.object) === TaskState.ASSIGNED) single.resolve();
});
await store.update((tx) =>
  tx.create(
    "service",
    create(ServiceSchema, {
      id: "s2",
      specVersion: { index: 1n },
      spec: {
        annotations: { name: "s2" },
        mode: { case: "replicated", value: { replicas: 1n } },
        task: { runtime: { case: "container", value: { image: "x" } } },
      },
    }),
  ),
);
await single.promise;
console.log(`one more task assigned in ${Math.round(performance.now() - one)} ms`);
