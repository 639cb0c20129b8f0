import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { NodeSchema, type Task, TaskSchema } from "#proto/docker/swarmkit/objects_pb.js";
import {
  NodeStatus_State,
  PluginDescriptionSchema,
  PortConfig_PublishMode,
  TaskState,
} from "#proto/docker/swarmkit/types_pb.js";
import { meets, parseConstraints } from "../../../src/swarm/manager/scheduler/constraints.ts";
import { NodeInfo } from "../../../src/swarm/manager/scheduler/nodes.ts";
import { place } from "../../../src/swarm/manager/scheduler/place.ts";

const node = (id: string, labels: Record<string, string> = {}) =>
  new NodeInfo(
    create(NodeSchema, {
      id,
      spec: { annotations: { labels } },
      status: { state: NodeStatus_State.READY, addr: "10.1.2.3" },
      description: {
        hostname: `host-${id}`,
        platform: { os: "linux", architecture: "x86_64" },
        resources: {
          nanoCpus: 2_000_000_000n,
          memoryBytes: 1n << 30n,
          generic: [{ resource: { case: "discreteResourceSpec", value: { kind: "gpu", value: 2n } } }],
        },
        engine: {
          plugins: [
            { type: "Network", name: "overlay" },
            { type: "Volume", name: "local" },
          ],
        },
      },
    }),
  );

type Init = Parameters<typeof create<typeof TaskSchema>>[1];
let count = 0;
const tasks = (n: number, init: Init = {}): Task[] =>
  Array.from({ length: n }, () =>
    create(TaskSchema, {
      id: `t${count++}`,
      serviceId: "s",
      status: { state: TaskState.PENDING },
      desiredState: TaskState.RUNNING,
      ...init,
    } as Init),
  );

const run = (list: Task[], nodes: NodeInfo[]) => place(list, nodes, 0, (task, nodeId) => ({ ...task, nodeId }));
const counts = (nodes: NodeInfo[]) => nodes.map(({ byService }) => byService.get("s") ?? 0);

test("constraints", () => {
  const { node: n } = node("n1", { zone: "East" });
  const ok = (...expressions: string[]) => meets(n, parseConstraints(expressions));
  assert.ok(ok("node.id==N1", "node.labels.zone == east", "node.role!=manager", "node.hostname==host-n1"));
  assert.ok(
    ok("node.platform.os==linux", "node.platform.arch==x86_64", "node.ip==10.1.0.0/16", "node.ip!=10.2.0.0/16"),
  );
  assert.ok(!ok("node.labels.zone!=east"));
  assert.ok(ok("node.labels.none!=x"));
  assert.ok(!ok("node.something==x"));
  assert.throws(() => parseConstraints(["node.id=x"]), /expected one operator from ==, !=/);
  assert.throws(() => parseConstraints(["node.id=="]), /value '' is invalid/);
  assert.throws(() => parseConstraints([" ==x"]), /key '' is invalid/);
});

test("the emptiest node of the service wins, then the emptiest", () => {
  const nodes = [node("a"), node("b"), node("c")];
  for (const task of tasks(3, { serviceId: "other", nodeId: "a" })) nodes[0]?.add(task);
  run(tasks(1), nodes);
  assert.deepEqual(counts(nodes)[0], 0);
  run(tasks(5), nodes);
  assert.deepEqual(counts(nodes), [2, 2, 2]);
});

test("tasks whose ports have labels of ours go to nodes of ours only; without ports, or labels, anywhere", () => {
  const ours = node("ours");
  ours.node.description?.engine?.plugins.push(create(PluginDescriptionSchema, { type: "Manager", name: "skein" }));
  const labelled = { serviceAnnotations: { labels: { "skein.publish.address": "127.0.0.1" } } };
  const ports = { endpoint: { ports: [{ targetPort: 80, publishedPort: 8080 }] } };
  const [docker, both] = [[node("docker")], [node("docker"), ours]];
  const closed = run(tasks(2, { ...labelled, ...ports }), both);
  assert.deepEqual(counts(both), [0, 2]);
  assert.equal(closed.explanation, "");
  assert.equal(
    run(tasks(1, { ...labelled, ...ports }), docker).explanation,
    "no suitable node (labels skein.publish not supported on 1 node)",
  );
  run(tasks(1, labelled), docker);
  run(tasks(1, ports), docker);
  assert.deepEqual(counts(docker), [2]);
});

test("resources, host ports and max replicas fill nodes up, and the explanation counts them", () => {
  const nodes = [node("a"), node("b")];
  const reservations = { memoryBytes: 512n << 20n };
  const placed = run(tasks(6, { spec: { resources: { reservations } } }), nodes);
  assert.equal(placed.placements.length, 4);
  assert.equal(placed.explanation, "no suitable node (insufficient resources on 2 nodes)");
  const gpus = run(
    tasks(5, {
      serviceId: "g",
      spec: {
        resources: {
          reservations: {
            generic: [{ resource: { case: "discreteResourceSpec", value: { kind: "gpu", value: 1n } } }],
          },
        },
      },
    }),
    nodes,
  );
  assert.equal(gpus.placements.length, 4);
  const ports = [{ targetPort: 80, publishedPort: 8080, publishMode: PortConfig_PublishMode.HOST }];
  const hosted = run(tasks(3, { serviceId: "h", endpoint: { ports } }), nodes);
  assert.equal(hosted.placements.length, 2);
  assert.equal(hosted.explanation, "no suitable node (host-mode port already in use on 2 nodes)");
  const limited = run(tasks(3, { serviceId: "m", spec: { placement: { maxReplicas: 1n } } }), nodes);
  assert.equal(limited.explanation, "no suitable node (max replicas per node limit exceed)");
});

test("plugins and platforms", () => {
  const nodes = [node("a")];
  const network = (name: string) => [{ network: { driverState: { name } } }];
  assert.equal(run(tasks(1, { networks: network("overlay") }), nodes).placements.length, 1);
  assert.equal(
    run(tasks(1, { networks: network("weave") }), nodes).explanation,
    "no suitable node (missing plugin on 1 node)",
  );
  const on = (os: string, architecture: string) => ({ spec: { placement: { platforms: [{ os, architecture }] } } });
  assert.equal(run(tasks(1, on("linux", "amd64")), nodes).placements.length, 1);
  assert.equal(
    run(tasks(1, on("windows", "")), nodes).explanation,
    "no suitable node (unsupported platform on 1 node)",
  );
});

test("spread preferences balance branches before nodes", () => {
  const nodes = [
    node("a1", { zone: "a" }),
    node("b1", { zone: "b" }),
    node("b2", { zone: "b" }),
    node("b3", { zone: "b" }),
  ];
  const preferences = [{ preference: { case: "spread", value: { spreadDescriptor: "node.labels.zone" } } }] as const;
  run(tasks(6, { spec: { placement: { preferences: [...preferences] } } }), nodes);
  assert.deepEqual(counts(nodes), [3, 1, 1, 1]);
});

test("a node where the service keeps failing comes last", () => {
  const nodes = [node("a"), node("b")];
  const [sample] = tasks(1);
  assert.ok(sample);
  for (let i = 0; i < 5; i++) nodes[0]?.failed(sample, 0);
  run(tasks(3), nodes);
  assert.deepEqual(counts(nodes), [0, 3]);
  const later = place(tasks(3), nodes, 400_000, (task, nodeId) => ({ ...task, nodeId }));
  assert.ok(later.placements.every(({ nodeId }) => nodeId === "a"));
});
