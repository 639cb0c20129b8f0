/** A manager for `bench/scale.ts`: the real one, with etcd and its port, on a host that runs no tasks itself. */
import { create } from "@bufbuild/protobuf";
import {
  ClusterSpecSchema,
  NetworkSpecSchema,
  NodeSpec_Availability,
  ServiceSpecSchema,
} from "#proto/docker/swarmkit/specs_pb.js";
import { NodeStatus_State, TaskState } from "#proto/docker/swarmkit/types_pb.js";
import { createLogger } from "../../src/base/log.ts";
import { createSwarmNode } from "../../src/swarm/node/node.ts";
import type { StoreObject } from "../../src/swarm/types.ts";
import { answer, pidsOf, usage, usageOf } from "./process.ts";
import { IdleHost } from "./scale-host.ts";

const [stateDir = "", addr = ""] = process.argv.slice(2);
const node = createSwarmNode({
  stateDir,
  executor: new IdleHost(`manager-${addr.split(":")[1]}`),
  log: createLogger(
    (line) => process.stderr.write(`${addr} ${line}\n`),
    process.env.SKEIN_BENCH_LOG === "debug" ? "debug" : "warn",
  ),
});

const counts = { ready: 0, running: 0, tasks: 0, changes: 0 };
function follow(): void {
  const control = node.control();
  const is = (of: StoreObject | undefined, state: number) =>
    of && "status" in of && of.status?.state === state ? 1 : 0;
  const tasks = control.tasks();
  counts.tasks = tasks.length;
  counts.running = tasks.filter(({ status }) => status?.state === TaskState.RUNNING).length;
  counts.ready = control.nodes().filter(({ status }) => status?.state === NodeStatus_State.READY).length;
  control.onChange(({ action, kind, object, old }) => {
    counts.changes++;
    const gone = action === "remove";
    const moved = (state: number) => (gone ? 0 : is(object, state)) - is(old, state);
    if (kind === "node") counts.ready += moved(NodeStatus_State.READY);
    if (kind !== "task") return;
    counts.tasks += action === "create" ? 1 : gone ? -1 : 0;
    counts.running += moved(TaskState.RUNNING);
  });
}

const availability = NodeSpec_Availability.DRAIN;
answer(
  {
    init: async () => {
      await node.init({
        ...{ listenAddr: addr, advertiseAddr: addr, dataPathAddr: "", dataPathPort: 0, availability },
        ...{ forceNewCluster: false, autoLock: false, defaultAddressPool: ["10.0.0.0/8"], subnetSize: 16 },
        spec: create(ClusterSpecSchema),
      });
      follow();
      const tokens = node.control().cluster().rootCa?.joinTokens;
      return { worker: tokens?.worker, manager: tokens?.manager };
    },
    join: async ({ remote, token }: { remote: string; token: string }) => {
      const addresses = { listenAddr: addr, advertiseAddr: addr, dataPathAddr: "" };
      await node.join({ ...addresses, remoteAddrs: [remote], joinToken: token, availability });
      for (;;) {
        try {
          return follow();
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      }
    },
    network: async (name: string) => {
      const ipam = { configs: [{ subnet: "10.64.0.0/14" }] };
      const spec = { annotations: { name }, driverConfig: { name: "overlay" }, ipam };
      return (await node.control().createNetwork(create(NetworkSpecSchema, spec))).id;
    },
    create: async ({ name, replicas, network }: { name: string; replicas: number; network: string }) => {
      const spec = create(ServiceSpecSchema, {
        annotations: { name },
        mode: { case: "replicated", value: { replicas: BigInt(replicas) } },
        task: {
          runtime: { case: "container", value: { image: "alpine" } },
          networks: network ? [{ target: network }] : [],
        },
        ...(network ? { endpoint: {} } : {}),
      });
      return (await node.control().createService(spec)).id;
    },
    remove: (id: string) => node.control().removeService(id),
    counts: () => ({ ...counts, leads: node.control().isLeader() }),
    usage: () => {
      const [etcd = 0] = pidsOf("etcd", stateDir);
      return { own: usage(), etcd: { pid: etcd, ...usageOf(etcd) } };
    },
  },
  () => Promise.resolve(node[Symbol.asyncDispose]()),
);
