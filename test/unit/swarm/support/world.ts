/** A manager's loops on a store in memory, under virtual time, with nodes that do what they are told. */
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { ClusterSchema, NetworkSchema, NodeSchema, type Task } from "#proto/docker/swarmkit/objects_pb.js";
import {
  ClusterSpecSchema,
  type NodeSpec_Availability,
  NodeSpec_Membership,
  type ServiceSpec,
  ServiceSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import { NodeStatus_State, NodeStatusSchema, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { sleep, VirtualClock } from "../../../../src/base/clock.ts";
import { swarmId } from "../../../../src/base/id.ts";
import { nullLogger } from "../../../../src/base/log.ts";
import { Allocator } from "../../../../src/swarm/manager/allocator/allocator.ts";
import { withDefaults } from "../../../../src/swarm/manager/bootstrap.ts";
import { createControl } from "../../../../src/swarm/manager/control/control.ts";
import { LogBroker } from "../../../../src/swarm/manager/log-broker.ts";
import { Enforcer } from "../../../../src/swarm/manager/orchestrator/enforcer.ts";
import { Orchestrator } from "../../../../src/swarm/manager/orchestrator/orchestrator.ts";
import { Reaper } from "../../../../src/swarm/manager/orchestrator/reaper.ts";
import { Scheduler } from "../../../../src/swarm/manager/scheduler/scheduler.ts";
import { isWanted, stateOf } from "../../../../src/swarm/manager/tasks.ts";
import { MemoryBackend } from "../../../../src/swarm/store/backend.ts";
import { Store } from "../../../../src/swarm/store/store.ts";
import type { ControlApi } from "../../../../src/swarm/types.ts";

/** What a simulated host does with a task: the state it ends in after starting, or keeps running. */
export type Fate = "run" | "fail" | "reject" | "complete";

export interface World {
  readonly clock: VirtualClock;
  readonly store: Store;
  readonly control: ControlApi;
  readonly allocator: Allocator;
  /** What becomes of a task that is to run; may be changed. */
  fate: (task: Task) => Fate;
  /** Milliseconds from assignment to running, and from shutdown to stopped. */
  startMs: number;
  stopMs: number;
  /** Nodes whose tasks make no progress. */
  readonly frozen: Set<string>;
  addNode(id: string, options?: { labels?: Record<string, string>; memory?: bigint }): Promise<void>;
  setNode(
    id: string,
    change: { state?: NodeStatus_State; availability?: NodeSpec_Availability; labels?: Record<string, string> },
  ): Promise<void>;
  run(ms: number): Promise<void>;
  /** Tasks of a service that are to run. */
  wanted(serviceId: string): Task[];
  running(serviceId: string): Task[];
  /** Another orchestrator takes over, which knows the store only. */
  elect(): void;
  close(): void;
}

export const CLUSTER = "cluster";

/** `commitMs`: what each write to the store takes, asked anew each time. */
export async function createWorld(commitMs: () => number = () => 0): Promise<World> {
  const clock = new VirtualClock(1_700_000_000_000);
  const delay = () => (commitMs() > 0 ? sleep(clock, commitMs()) : Promise.resolve());
  const store = await Store.open(new MemoryBackend(delay), clock, nullLogger);
  await store.update((tx) => {
    tx.create("cluster", create(ClusterSchema, { id: CLUSTER, spec: withDefaults(create(ClusterSpecSchema)) }));
    tx.create(
      "network",
      create(NetworkSchema, { id: "ingress", spec: { annotations: { name: "ingress" }, ingress: true } }),
    );
  });
  const allocator = new Allocator(store, CLUSTER, clock, nullLogger);
  let orchestrator = new Orchestrator(store, CLUSTER, clock, nullLogger);
  const loops = [
    allocator,
    new Scheduler(store, clock, nullLogger),
    new Reaper(store, CLUSTER, clock, nullLogger),
    new Enforcer(store, clock, nullLogger),
  ];
  const logs = new LogBroker(store, {
    caller: () => undefined,
    require: () => ({ cn: "", ou: "", o: "" }),
    isDemoted: () => false,
  });
  const control = createControl({
    store,
    clusterId: CLUSTER,
    clock,
    allocated: () => allocator.state,
    logs,
    authorities: { reachable: async () => false, crossSign: () => Promise.reject(new Error("there is none")) },
    underFreshKey: (work) => work(),
  });
  const busy = new Set<string>();
  const world: World = {
    clock,
    store,
    control,
    allocator,
    fate: () => "run",
    startMs: 100,
    stopMs: 100,
    frozen: new Set(),
    addNode: (id, options = {}) =>
      store
        .update((tx) =>
          tx.create(
            "node",
            create(NodeSchema, {
              id,
              spec: { annotations: { labels: options.labels ?? {} }, membership: NodeSpec_Membership.ACCEPTED },
              status: { state: NodeStatus_State.READY, addr: "10.0.0.1" },
              description: {
                hostname: id,
                platform: { os: "linux", architecture: "x86_64" },
                resources: { nanoCpus: 4_000_000_000n, memoryBytes: options.memory ?? 8n << 30n },
              },
            }),
          ),
        )
        .then(() => {}),
    setNode: (id, { state, availability, labels }) =>
      store.update((tx) => {
        const node = tx.get("node", id);
        if (!node?.spec || !node.status) return;
        tx.update("node", {
          ...node,
          spec: {
            ...node.spec,
            availability: availability ?? node.spec.availability,
            annotations: node.spec.annotations && {
              ...node.spec.annotations,
              labels: labels ?? node.spec.annotations.labels,
            },
          },
          status: create(NodeStatusSchema, { state: state ?? node.status.state, addr: node.status.addr }),
        });
      }),
    run: (ms) => clock.advanceAsync(ms),
    wanted: (serviceId) => store.view.tasksOfService(serviceId).filter(isWanted),
    running: (serviceId) =>
      store.view.tasksOfService(serviceId).filter((task) => isWanted(task) && stateOf(task) === TaskState.RUNNING),
    elect: () => {
      orchestrator.close();
      orchestrator = new Orchestrator(store, CLUSTER, clock, nullLogger);
    },
    close: () => {
      orchestrator.close();
      for (const loop of loops) loop.close();
      store.close();
    },
  };
  const report = (id: string, state: TaskState) => {
    busy.delete(id);
    void store.update((tx) => {
      const task = tx.get("task", id);
      if (!task?.status || stateOf(task) >= state) return;
      tx.update("task", { ...task, status: { ...task.status, state } });
    });
  };
  const later = (task: Task, ms: number, state: TaskState) => {
    busy.add(task.id);
    clock.after(ms, () => report(task.id, state));
  };
  /** One step of the node's agent. */
  const step = (task: Task) => {
    const state = stateOf(task);
    if (busy.has(task.id) || world.frozen.has(task.nodeId) || state < TaskState.ASSIGNED || state > TaskState.RUNNING)
      return;
    if (task.desiredState >= TaskState.SHUTDOWN) later(task, world.stopMs, TaskState.SHUTDOWN);
    else if (state < TaskState.READY && world.fate(task) === "reject") later(task, 10, TaskState.REJECTED);
    else if (state < TaskState.READY) later(task, 10, TaskState.READY);
    else if (task.desiredState >= TaskState.RUNNING && state < TaskState.RUNNING) {
      later(task, world.startMs, world.fate(task) === "fail" ? TaskState.FAILED : TaskState.RUNNING);
    } else if (state === TaskState.RUNNING && world.fate(task) === "complete") later(task, 10, TaskState.COMPLETE);
  };
  store.onCommit((changes) => {
    for (const change of changes) if (change.kind === "task" && change.action !== "remove") step(change.object);
  });
  return world;
}

/** A service of containers; `change` overrides parts of the spec. */
export function service(
  replicas: number,
  change: Partial<MessageInitShape<typeof ServiceSpecSchema>> = {},
): ServiceSpec {
  const spec = create(ServiceSpecSchema, {
    annotations: { name: `s${swarmId().slice(0, 6)}` },
    mode: { case: "replicated", value: { replicas: BigInt(replicas) } },
    task: { runtime: { case: "container", value: { image: "busybox" } } },
  });
  const { $typeName: _type, ...fields } = spec;
  const { $typeName: _other, ...changed } = change as MessageInitShape<typeof ServiceSpecSchema>;
  return create(ServiceSpecSchema, { ...fields, ...changed });
}
